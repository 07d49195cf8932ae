"""Teacher training from Python, with the same options as the command."""

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args

from pesfkd.messages import python_errors
from pesfkd.options import convert, without_none
from pesfkd.surroundings import restored_process
from trainables.data.image_progress import hide_progress
from trainables.display.nearest import did_you_mean
from trainables.process.errors import StudyError, UsageError
from trainables.teacher.command import check_model, is_own_error, planned, request_of, teacher, train

_ELSEWHERE: Final = ("context", "as_json", "verbose", "dry_run")


@dataclass(frozen=True)
class Teacher:
    """A trained teacher.

    Args:
        checkpoint: weights file, for a study's `teacher_checkpoint`.
        folder: the teacher's folder, with the model card.
        summary: accuracies with intervals, and the command for training the teacher again.
    """

    checkpoint: Path
    folder: Path
    summary: dict[str, Any] = field(repr=False)


def train_teacher(dataset: str, model: str, *, quiet: bool = False, **options: Any) -> Teacher:
    """Train a teacher, or continue an interrupted training.

    Args:
        dataset: dataset.
        model: architecture.
        quiet: show no progress.
        options: further options for `pesfkd teacher`, e.g. `recipe="short"` or `epochs=10`.

    Raises:
        UsageError: an option is unknown or out of bounds, or the data are missing.
        StudyError: the training failed, or MLflow did not accept the result.
        KeyboardInterrupt: the user interrupted the training. The same call resumes it.

    Examples:
        >>> teacher = pesfkd.train_teacher("digits", "cnn_3_4", epochs=1, output_dir=folder, quiet=True)
        >>> planned = pesfkd.plan(space="temperature", teacher_checkpoint=teacher.checkpoint)
        >>> planned.plan.base.teacher
        'cnn_3_4'
    """
    from trainables.teacher.progress import TeacherProgress

    with _teacher_errors(), restored_process():
        if quiet:
            hide_progress()
        values = _values({"dataset": dataset, "model": model, **options})
        request, _ = request_of(values)
        result = train(request, values, TeacherProgress(request, quiet=quiet))
        if result.tracking_error is not None:
            raise StudyError(f"{result.tracking_error}. Call this again to log it")
        return Teacher(Path(result.summary["checkpoint"]), result.folder, result.summary)


def plan_teacher(dataset: str, model: str, **options: Any) -> dict[str, Any]:
    """Preview `train_teacher` with the same arguments: return the training settings and the folder. Nothing is written.

    Args:
        dataset: dataset.
        model: architecture.
        options: further options.

    Raises:
        UsageError: as for `train_teacher`.

    Examples:
        >>> pesfkd.plan_teacher("digits", "cnn_32_64", recipe="short")["epochs"]
        30
    """
    with _teacher_errors(), restored_process():
        values = _values({"dataset": dataset, "model": model, **options}) | {"dry_run": True}
        request, name = request_of(values)
        check_model(request, values)
        return planned(request, name, values["output_dir"])


@contextmanager
def _teacher_errors() -> Iterator[None]:
    """Rewrite the block's error messages with Python names. This project's errors become a `StudyError`."""
    with python_errors():
        try:
            yield
        except (ValueError, RuntimeError) as error:
            if isinstance(error, UsageError | StudyError) or not is_own_error(error):
                raise
            raise StudyError(str(error)) from error


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for all command parameters."""
    known = _parameters()
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            hint = did_you_mean(name, known, repr) or "."
            raise UsageError(f"pesfkd.train_teacher has no option {name!r}{hint} Options: {', '.join(known)}")
        if value is not None:
            values[name] = _checked(name, known[name], value)
    for name, parameter in known.items():
        variable = _described(parameter).envvar
        if name not in values:
            values[name] = parameter.default
            if variable and os.environ.get(str(variable)):
                values[name] = _checked(name, parameter, os.environ[str(variable)])
    return values | {"quiet": True, "dry_run": False}


@cache
def _parameters() -> Mapping[str, inspect.Parameter]:
    parameters = inspect.signature(teacher, eval_str=True).parameters
    return {name: each for name, each in parameters.items() if name not in (*_ELSEWHERE, "quiet")}


def _described(parameter: inspect.Parameter) -> Any:
    return get_args(parameter.annotation)[1]


def _checked(name: str, parameter: inspect.Parameter, value: Any) -> Any:
    kind = without_none(get_args(parameter.annotation)[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [each.value for each in kind]
        if value not in names:
            raise UsageError(f"{name}={value!r}: give one of {', '.join(map(repr, names))}")
        return kind(value)
    least = _described(parameter).min
    return convert(name, kind, value, least=None if least is None else int(least))
