"""Commands named in messages, for example the command to resume a study."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.storage.uris import redact_place

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan

_from_python = 0  # number of `pesfkd` calls running now, perhaps in several threads


def resume_command(plan: "StudyPlan") -> str:
    """Return the command to resume a study. Secrets in URIs appear as `***` and must be given again."""
    from study.plan.plan import URI_FIELDS

    if _from_python:
        return _call(f"pesfkd.resume({plan.name!r}", plan, again=URI_FIELDS)
    return _command(plan, "study.launch", "--resume", plan.name, again=URI_FIELDS)


def interrupted_at_once(plan: "StudyPlan") -> str:
    """Return the message for a study ended at once by the user: how to resume it, or that nothing was kept."""
    from study.plan.folder import PLAN_FILE

    if not (plan.directory / PLAN_FILE).exists():
        return "interrupted before any work: nothing was written, and the same command starts the study again"
    return f"interrupted at once; to go on:\n  {resume_command(plan)}"


def sync_command(plan: "StudyPlan") -> str:
    """Return the command to deliver a study to MLflow. Secrets in URIs appear as `***`."""
    if _from_python:
        return f"{_opened(plan)}.sync()"
    return _command(plan, "study.sync", plan.name, again=("tracking_uri",))


def confirm_command(plan: "StudyPlan") -> str:
    """Return the command to confirm a study's best configs. Secrets in URIs appear as `***`."""
    from study.plan.plan import URI_FIELDS

    if _from_python:
        return f"{_opened(plan)}.confirm()"
    return _command(plan, "study.confirm", plan.name, again=URI_FIELDS)


def power_command(plan: "StudyPlan") -> str:
    """Return the command to plan the number of seeds from the study's own spread."""
    if _from_python:
        return f"{_opened(plan)}.power()"
    return _command(plan, "study.power", plan.name, again=())


@contextmanager
def calls_in_messages() -> Iterator[None]:
    """Name Python calls in messages in place of commands, for a program that imports `pesfkd`."""
    global _from_python
    _from_python += 1
    try:
        yield
    finally:
        _from_python -= 1


def _opened(plan: "StudyPlan") -> str:
    return f"pesfkd.open({str(plan.directory)!r})"


def _call(start: str, plan: "StudyPlan", *, again: Sequence[str]) -> str:
    words = [start]
    if plan.output_dir != Path("study_results"):
        words.append(f"output_dir={str(plan.output_dir)!r}")
    for field in again:
        uri = getattr(plan, field)
        if uri is not None and (shown := redact_place(uri)) != uri:
            words.append(f"{field}={shown!r}")
    return ", ".join(words) + ")"


def _command(plan: "StudyPlan", *words: str, again: Sequence[str]) -> str:
    command = ["python", "-m", *words]
    if plan.output_dir != Path("study_results"):
        command += ["--output-dir", str(plan.output_dir)]
    for field in again:
        uri = getattr(plan, field)
        if uri is not None and (shown := redact_place(uri)) != uri:
            command += [f"--{field.replace('_', '-')}", shown]
    return shlex.join(command)
