"""One run of a study, from a checked plan to the exit code."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from study.cli.app import command_line, stdout_for_results_only
from study.cli.request import keep_confirmation, resume_command, sync_command
from trainables.process.errors import ExitCode, UsageError
from trainables.process.standard_streams import show_result

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan


def run_plan(plan: "StudyPlan", values: dict[str, Any], *, resumed: bool, command: str = "study.launch") -> None:
    """Run the remaining work of a study, then show and store the result.

    Args:
        plan: the study.
        values: options of the command line: `quiet`, `verbose`, `as_json` and, if given, `retry_failed` and
            `set_aside_records`.
        resumed: whether the study exists already.
        command: name of the module run by the user, for the record.

    Raises:
        typer.Exit: always, with the exit code.
    """
    _make_folder(plan.output_dir)
    shows_all = values["verbose"] or plan.executor == "in-process"  # output of trials, and of a debugger in a trial
    with _resume_command_shown(plan), stdout_for_results_only(verbose=shows_all) as stdout:
        # Slow imports (Optuna, MLflow, pyarrow, and Ray if it runs the study) happen only from here on.
        from study.cli.data_preview import data_warnings
        from study.cli.progress import StudyProgress
        from study.plan.places import begin_study
        from study.plan.user_code import keep_code
        from study.result.outcome import conclude
        from study.result.terminal import outcome_in_words
        from study.running.runner import check_services, run_study
        from trainables.process.versions import running_versions

        check_services(plan)
        if resumed:
            keep_code(plan)  # again, if the copy was lost and the user named the same file
            keep_confirmation(plan)
        else:
            begin_study(plan, resume_command(plan))
        progress = StudyProgress(plan, quiet=values["quiet"])
        for warning in data_warnings(plan):
            progress.warn(warning)
        typed = command_line(command)
        run, tracker = run_study(
            plan,
            progress=progress,
            command=typed,
            versions=running_versions(),
            retry_failed=values.get("retry_failed", False),
            sets_aside=values.get("set_aside_records", False),
        )
        outcome = conclude(plan, run, tracker, progress)
        as_json = values["as_json"]
        text = json.dumps(outcome.summary, indent=2) + "\n" if as_json else outcome_in_words(outcome, stdout)
        show_result(text, stdout, elsewhere=f"it is in {plan.directory / 'summary.json'}")
    if run.interrupted:
        typer.echo(f"interrupted; to go on:\n  {resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED)
    if outcome.tracking_error:
        typer.echo(undelivered(plan, outcome.tracking_error), err=True)
    if run.out_of_time:
        typer.echo(f"out of time (--time-budget {plan.time_budget:g}); to go on:\n  {resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.OUT_OF_TIME)
    if outcome.tracking_error:
        raise typer.Exit(ExitCode.UNDELIVERED)
    raise typer.Exit(ExitCode.FAILED_TRIALS if outcome.summary["trials"]["failed"] else ExitCode.OK)


@contextmanager
def _resume_command_shown(plan: "StudyPlan") -> Iterator[None]:
    """On KeyboardInterrupt, print the resume command and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted at once; to go on:\n  {resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def undelivered(plan: "StudyPlan", error: Exception) -> str:
    """Return the message for an incomplete delivery to MLflow, with the command that delivers the rest."""
    from study.tracking.delivery import first_line

    return (
        f"MLflow does not have everything ({first_line(error)}); the study's own records do. To deliver it "
        f"later:\n  {sync_command(plan)}"
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"--output-dir: cannot write in {folder} ({error.strerror}); name a folder that you may write"
        ) from None
