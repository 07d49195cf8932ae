"""A checked plan, from the command line's values or from a study's folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import (
    ValidationError,
)

from study.plan.folder import missing_plan, settled
from study.plan.plan import StudyPlan
from study.plan.size import check_request
from study.plan.teacher_storage import check_teacher_storage
from study.plan.validation import describe_validation
from trainables.process.errors import UsageError

# Fields that no flag sets by itself, those of a config that have a flag, and flags with another name than their field.
_WITHOUT_FLAG: Final = frozenset(
    {"study_id", "base", "overrides", "compared", "controls", "confirmation", "space_digest", "teacher_outputs_used"}
)


_FLAGS_OF_CONFIGS: Final = frozenset(
    {"method", "adapter", "dataset", "student", "teacher", "teacher_recipe", "teacher_epochs", "epochs"}
    | {"student_layers", "precision", "temperature"}
)


_FLAGS_OF_FIELDS: Final = {"configs": "confirm"}


def resolve_plan(values: dict[str, Any]) -> StudyPlan:
    """A checked plan.

    Raises:
        UsageError: with one line per value that is out of its bounds.
    """
    try:
        return _decided(StudyPlan(**values))
    except ValidationError as error:
        raise UsageError(describe_validation(error, name=_flag_of)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _decided(plan: StudyPlan) -> StudyPlan:
    """The plan, once it is known that it can be confirmed and where the teacher's outputs come from.

    Raises:
        ValueError: it asks for more configs than there will be, or for outputs that cannot be stored.
    """
    check_request(plan)
    if plan.teacher_outputs_used is not None:  # decided once: an image folder may be gone when the plan is read again
        return plan
    return plan.model_copy(update={"teacher_outputs_used": check_teacher_storage(plan).source})


def _flag_of(location: Sequence[int | str]) -> str:
    """The flag that a value of a plan comes from, or the field's name where there is none."""
    field = str(location[-1])
    flag = _FLAGS_OF_FIELDS.get(field, field.replace("_", "-"))
    if location[0] == "base" and len(location) > 1:
        return f"--set {field}" if field not in _FLAGS_OF_CONFIGS else f"--{flag}"
    return ".".join(map(str, location)) if field in _WITHOUT_FLAG or len(location) > 2 else f"--{flag}"


def load_plan(directory: Path) -> StudyPlan:
    """The plan of a study that exists.

    Raises:
        UsageError: there is no such study, or its plan is not one that this version wrote.
    """
    directory = directory if directory.name else directory.absolute()
    path = directory / "plan.json"
    if not path.is_file():
        raise UsageError(missing_plan(directory))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # The folder may have been moved or renamed since.
        return _decided(StudyPlan.model_validate_json(json.dumps(settled(content, directory))))
    except ValidationError as error:
        raise UsageError(f"{path} is not a plan of this version:\n{describe_validation(error)}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is damaged, it is no text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): restore it from a copy") from None
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not a plan of this version, it is no JSON object: {error}") from None
