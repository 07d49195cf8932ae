"""Execution of studies in the user's process."""

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from study.cli.commands import interrupted_at_once, resume_command
from study.running.conduct import conduct_study, deliver_study, undelivered
from trainables.process.errors import StudyError, UsageError
from trainables.storage.uris import redact

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan

_running: Final = threading.Lock()


class StudyInterrupted(KeyboardInterrupt):
    """The user interrupted a study. The message has the call for resuming."""


def conduct(
    plan: "StudyPlan",
    *,
    resumed: bool,
    call: str,
    quiet: bool,
    retry_failed: bool = False,
    sets_aside: bool = False,
) -> None:
    """Run the remaining work of a study in this process or on Ray, and store the result.

    Args:
        plan: the study.
        resumed: whether the study exists already.
        call: the user's call, for the record.
        quiet: whether to show no progress.
        retry_failed: whether to start failed trials again.
        sets_aside: whether to move away records missing from the journal.

    Raises:
        StudyInterrupted: the user interrupted the study.
        UsageError: the study cannot run in this process.
        StudyError: the study failed.
    """
    _refuse_other_ray(plan)
    if not _running.acquire(blocking=False):
        raise UsageError(
            "another thread of this process is running a study, and both would set the threads of PyTorch: wait for "
            "it, or run this one in a process of its own"
        )
    try:
        _conduct(plan, resumed=resumed, call=call, quiet=quiet, retry_failed=retry_failed, sets_aside=sets_aside)
    finally:
        _running.release()


def _conduct(plan: "StudyPlan", *, resumed: bool, call: str, quiet: bool, retry_failed: bool, sets_aside: bool) -> None:
    from pesfkd.progress import progress_of  # imports pyarrow
    from study.running.same_failure import ended_by_same_failure

    progress = progress_of(plan, quiet=quiet)
    if not resumed:
        _say_what_is_left_out(plan, progress.say)
    try:
        run, outcome = conduct_study(
            plan, progress, resumed=resumed, command=redact(call), retry_failed=retry_failed, sets_aside=sets_aside
        )
    except KeyboardInterrupt:
        raise StudyInterrupted(interrupted_at_once(plan)) from None
    if run.interrupted:
        raise StudyInterrupted(f"interrupted; to go on:\n  {resume_command(plan)}")
    if outcome.tracking_error is not None:
        progress.warn(undelivered(plan, outcome.tracking_error))
    if run.out_of_time:
        progress.warn(f"out of time (time_budget={plan.time_budget:g}); to go on:\n  {resume_command(plan)}")
    if run.failed_alike:
        raise StudyError(ended_by_same_failure(run.ledger, with_traceback=True))
    if failed := outcome.summary["trials"]["failed"]:
        progress.warn(f"{failed} trials failed; the column `error` of `trials` has the reasons")
    progress.say(f"done; the study is in {plan.directory}")


def deliver(plan: "StudyPlan", *, call: str, sets_aside: bool, quiet: bool) -> None:
    """Deliver a study to MLflow.

    Raises:
        StudyError: MLflow did not accept everything.
    """
    from pesfkd.progress import progress_of

    progress = progress_of(plan, quiet=quiet)
    _, outcome = deliver_study(plan, progress, command=call, sets_aside=sets_aside)
    if outcome.tracking_error is not None:
        raise StudyError(undelivered(plan, outcome.tracking_error))


def _refuse_other_ray(plan: "StudyPlan") -> None:
    """Check that Ray is not running in this process for other work. A study would join or end this Ray."""
    from study.plan.executor import executor_of

    ray = sys.modules.get("ray")
    if executor_of(plan) == "ray" and ray is not None and ray.is_initialized():
        raise UsageError(
            "Ray is running in this process already, and a study connects Ray by itself: call ray.shutdown() before, "
            'or give executor="in-process"'
        )


def _say_what_is_left_out(plan: "StudyPlan", say: Callable[[str], None]) -> None:
    from study.plan.notes import left_out_lines
    from study.plan.siblings import repeated_seed_note

    for line in left_out_lines(plan):
        say(f"left out {line}")
    if (note := repeated_seed_note(plan)) is not None:
        say(note)
