"""A study from a checked plan to the stored result, for the command line and for Python."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from study.cli.commands import resume_command, sync_command
from study.cli.request import keep_confirmation, withdraw_confirmation
from trainables.process.errors import ClusterLostError, StudyError, UsageError
from trainables.storage.files import check_writable

if TYPE_CHECKING:
    from study.cli.progress import StudyProgress
    from study.ledger.run import StudyRun
    from study.plan.plan import StudyPlan
    from study.result.outcome import Outcome
    from study.running.start import Start


def conduct_study(
    plan: "StudyPlan",
    progress: "StudyProgress",
    *,
    resumed: bool,
    command: str,
    retry_failed: bool = False,
    sets_aside: bool = False,
) -> "tuple[StudyRun, Outcome]":
    """Run the remaining work of a study, then store the result.

    Args:
        plan: the study.
        progress: progress display for the user.
        resumed: whether the study exists already.
        command: the user's command or call, for the record.
        retry_failed: whether to start failed trials again.
        sets_aside: whether to move away records missing from the journal. If False, the study is refused in this case.

    Raises:
        UsageError: the output folder cannot be written, a study with this name already exists, or another process runs
            it.
        StudyError: a service does not answer, or the study cannot be carried out.
        KeyboardInterrupt: the user ended the study at once. It can be resumed, unless no work had begun.
    """
    check_folder(plan.output_dir)
    # Slow imports (Optuna, MLflow, pyarrow, and Ray if it runs the study) happen only from here on.
    from study.running.start import removed_if_refused

    with removed_if_refused(plan, is_new=not resumed) as start:
        return _conduct(plan, progress, resumed=resumed, command=command, retry_failed=retry_failed,
                        sets_aside=sets_aside, start=start)  # fmt: skip


def _conduct(
    plan: "StudyPlan",
    progress: "StudyProgress",
    *,
    resumed: bool,
    command: str,
    retry_failed: bool,
    sets_aside: bool,
    start: "Start",
) -> "tuple[StudyRun, Outcome]":
    from study.cli.data_preview import data_warnings
    from study.plan.places import begin_study
    from study.plan.user_code import keep_code
    from study.result.outcome import conclude
    from study.running.runner import check_services, run_study
    from trainables.process.versions import running_versions

    check_services(plan)
    versions, before = running_versions(), None
    if resumed:
        keep_code(plan)  # again, if the copy was lost and the user named the same file
        before = keep_confirmation(plan)
    else:
        begin_study(plan, resume_command(plan))
    for warning in data_warnings(plan):
        progress.warn(warning)
    try:
        run, tracker = run_study(
            plan,
            progress=progress,
            command=command,
            versions=versions,
            retry_failed=retry_failed,
            sets_aside=sets_aside,
            start=start,
        )
    except (StudyError, UsageError) as error:
        # Otherwise a later resume would confirm by a refused request.
        if before is not None and not start.has_worked and not isinstance(error, ClusterLostError):
            with suppress(StudyError, UsageError, OSError):
                withdraw_confirmation(plan, before)
        raise
    return run, conclude(plan, run, tracker, progress)


def deliver_study(
    plan: "StudyPlan", progress: "StudyProgress", *, command: str, sets_aside: bool = False
) -> "tuple[StudyRun, Outcome]":
    """Send all missing parts of a study to MLflow. Nothing is run.

    Args:
        plan: the study.
        progress: progress display for the user.
        command: command or call of the user, for the record.
        sets_aside: whether to move away records missing from the journal. If False, the study is refused in this case.

    Raises:
        UsageError: another process runs the study.
        StudyError: the store does not answer, or the study's folder cannot be read.
    """
    from study.running.runner import recorded_run
    from study.tracking.tracker import open_tracker
    from trainables.process.versions import running_versions
    from trainables.storage.mlflow_store import check_tracking_uri
    from trainables.storage.uris import redact_place

    check_tracking_uri(plan.tracking_uri)
    with recorded_run(plan, progress.say, sets_aside=sets_aside) as run:
        from study.result.outcome import conclude

        tracker = open_tracker(
            plan, command=command, versions=running_versions(), report=progress.say, ledger=run.ledger
        )  # fmt: skip
        progress.say(f"delivering {len(run.ledger.entries)} trials to {redact_place(plan.tracking_uri)}")
        tracker.catch_up(run.ledger)
        return run, conclude(plan, run, tracker, progress)


def undelivered(plan: "StudyPlan", error: Exception) -> str:
    """Return the message for an incomplete MLflow delivery, with the command for delivering the rest."""
    from study.tracking.delivery import first_line

    return (
        f"MLflow does not have everything ({first_line(error)}); the study's own records do. To deliver it "
        f"later:\n  {sync_command(plan)}"
    )


def check_folder(folder: Path) -> None:
    """Check that the output folder is writable or can be created. Nothing is left behind.

    Raises:
        UsageError: the folder is not writable, or cannot be created.
    """
    try:
        check_writable(folder)
    except OSError as error:
        raise UsageError(
            f"--output-dir: cannot write in {folder} ({error.strerror}); name a folder that you may write"
        ) from None
