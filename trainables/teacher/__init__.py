"""Teachers: trained by a recipe, or taken from a checkpoint; stored under the digest of what they are, and frozen.

`python -m trainables.teacher` trains one. Importing this package imports no torch: `trainables.teacher.recipe` lies in
it, and a plan is checked without. What is listed below is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from trainables.teacher.files import (
        TeacherFileError,
        ensure_teacher,
        load_teacher,
        teacher_digest,
        teacher_trial,
        train_teacher,
    )
    from trainables.teacher.frozen import FrozenTeacher
    from trainables.teacher.given import GivenTeacher, read_given_teacher

__all__ = [
    "FrozenTeacher",
    "GivenTeacher",
    "TeacherFileError",
    "ensure_teacher",
    "load_teacher",
    "read_given_teacher",
    "teacher_digest",
    "teacher_trial",
    "train_teacher",
]

_MODULES: Final[dict[str, str]] = {
    "FrozenTeacher": "frozen",
    "GivenTeacher": "given",
    "TeacherFileError": "files",
    "ensure_teacher": "files",
    "load_teacher": "files",
    "read_given_teacher": "given",
    "teacher_digest": "files",
    "teacher_trial": "files",
    "train_teacher": "files",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
