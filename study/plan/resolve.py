"""Creation of checked plans, from command-line values or from a study's folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from study.plan.folder import adapted, missing_plan
from study.plan.options import names_into
from study.plan.plan import StudyPlan
from study.plan.size import check_request
from study.plan.teacher_storage import check_teacher_storage
from study.plan.validation import describe_validation
from trainables.process.errors import UsageError
from trainables.user_code.storage import remember_saved

# Plan fields without a flag, config fields with a flag, and flags with a name different from the field.
_WITHOUT_FLAG: Final = frozenset(
    {
        "study_id",
        "digest_version",
        "base",
        "overrides",
        "compared",
        "limits",
        "controls",
        "confirmation",
        "space_digest",
        "teacher_outputs_used",
    }
)


_FLAGS_OF_CONFIGS: Final = frozenset(names_into("config")) | {"precision", "temperature"}
_FLAGS_OF_FIELDS: Final = {"configs": "confirm", "searches_per_method": "searches", "replicates_detect": "detect"}


def resolve_plan(values: dict[str, Any]) -> StudyPlan:
    """Return a checked plan.

    Raises:
        UsageError: values are out of bounds. The message has one line per value.
    """
    try:
        return _with_decisions(StudyPlan(**values))
    except ValidationError as error:
        raise UsageError(describe_validation(error, name=_flag_of)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _with_decisions(plan: StudyPlan) -> StudyPlan:
    """Return the plan after checking the confirmation's size and deciding the source of the teacher outputs.

    Raises:
        ValueError: the plan requests more configs than the study will have, or outputs that cannot be stored.
    """
    check_request(plan)
    if plan.teacher_outputs_used is not None:  # decided once: an image folder may be gone at the next read
        return plan
    return plan.model_copy(update={"teacher_outputs_used": check_teacher_storage(plan).source})


def _flag_of(location: Sequence[int | str]) -> str:
    """Return the flag for a plan value, or the field name if there is no flag."""
    field = str(location[-1])
    flag = _FLAGS_OF_FIELDS.get(field, field.replace("_", "-"))
    if location[0] == "base" and len(location) > 1:
        return f"--set {field}" if field not in _FLAGS_OF_CONFIGS else f"--{flag}"
    return ".".join(map(str, location)) if field in _WITHOUT_FLAG or len(location) > 2 else f"--{flag}"


def load_plan(directory: Path) -> StudyPlan:
    """Return an existing study's plan.

    Raises:
        UsageError: the study does not exist, or this version cannot read the plan.
    """
    directory = directory if directory.name else directory.absolute()
    path = directory / "plan.json"
    remember_saved(directory / "code")
    if not path.is_file():
        raise UsageError(missing_plan(directory))
    return read_plan(path)


def read_plan(path: Path) -> StudyPlan:
    """Return the plan in a file, adapted to the file's folder.

    Raises:
        UsageError: this version cannot read the plan.
    """
    directory = path.absolute().parent if not path.parent.name else path.parent
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # The folder may have been moved or renamed.
        plan = StudyPlan.model_validate_json(json.dumps(adapted(content, directory)))
    except ValidationError as error:
        raise UsageError(f"{path} is not a plan of this version:\n{describe_validation(error)}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is damaged and is not text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): restore it from a copy") from None
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not a plan of this version, because it is not a JSON object: {error}") from None
    try:
        return _with_decisions(plan)
    except ValueError as error:
        raise UsageError(f"{path} is not a plan of this version:\n{error}") from None
