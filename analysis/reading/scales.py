"""Scale for each config field in a study's search: logarithmic or linear.

A regression must hold a learning rate on its search scale. A rate drawn between 1e-4 and 1e-1 on a logarithmic scale
has most variation in the exponent. Held linearly, the rate removes little of this variation, and the rest acts as an
unmeasured common cause. In simulated studies, the rate moved gap and accuracy and nothing went through the gap. An
indirect effect, with the rate held linearly, was found in 55% of 80 studies with 24 configs and in 95% of 80 with 40.
With the rate in logarithms it was found in 4% and 7% of 200 (`tests/analysis/questions/test_mediation.py`).

A study's summary contains the scales. Without a summary, as in a running study, the plan contains the scale for each
field with bounds from the user (`--search`), and records name their search space. This module knows the scales in this
project's spaces.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from study.records import DamagedRecordsError

# Fields searched on a logarithmic scale in every space of this project, if the space searches them.
_ALWAYS: Final = frozenset(
    {"adapter_width", "adapter_learning_rate", "adapter_ce_weight", "temperature", "student_learning_rate"}
    | {"ttm_gamma", "label_smoothing"}
)
_BY_SPACE: Final[Mapping[str, frozenset[str]]] = {"method_tuned": frozenset({"kd_weight"})}


def log_fields_of(spaces: Iterable[str | None]) -> frozenset[str]:
    """Return the fields searched on a logarithmic scale in the given spaces, for records without a summary."""
    return _ALWAYS.union(*(_BY_SPACE.get(space or "", frozenset()) for space in spaces))


def log_fields_in(summary: Mapping[str, Any]) -> frozenset[str] | None:
    """Return a study's fields searched on a logarithmic scale; None if the summary does not contain them.

    Args:
        summary: content of `summary.json`. Earlier versions listed no fields for a comparison of methods.
    """
    if "log_fields" in summary:
        return frozenset(summary["log_fields"])
    searched = summary.get("searched")
    return frozenset(each["name"] for each in searched if each["log"]) if searched else None


def read_log_fields(directory: str | Path) -> frozenset[str] | None:
    """Read a study's fields on a logarithmic search scale from the folder; None if only the space has this information.

    Raises:
        DamagedRecordsError: the summary or the plan cannot be read.
    """

    def content_of(name: str) -> bytes | None:
        try:
            return (Path(directory) / name).read_bytes()
        except FileNotFoundError:
            return None

    return find_log_fields(content_of, str(directory))


def find_log_fields(content_of: Callable[[str], bytes | None], shown: str) -> frozenset[str] | None:
    """Return a study's fields searched on a logarithmic scale, by the summary, or else by the plan.

    Args:
        content_of: function from a file name in the study folder to the content, or None if there is no such file.
        shown: folder name in messages.

    Returns:
        The fields; None if neither file names them, so only the space has this information.

    Raises:
        DamagedRecordsError: the summary or the plan cannot be read.
    """
    readers = {"summary.json": log_fields_in, "plan.json": planned_log_fields}
    for name, read in readers.items():
        content = content_of(name)
        found = None if content is None else _parsed(content, f"{shown}/{name}", read)
        if found is not None:
            return found
    return None


def planned_log_fields(plan: Mapping[str, Any]) -> frozenset[str] | None:
    """Return a study's fields searched on a logarithmic scale; None if the user gave no bounds.

    Args:
        plan: content of `plan.json`.
    """
    given = {each["field"]: bool(each["log"]) for each in plan.get("search") or ()}
    if not given:
        return None
    others = log_fields_of([plan.get("space")]) - given.keys()
    return others | {name for name, log in given.items() if log}


def _parsed(
    content: bytes, shown: str, read: Callable[[Mapping[str, Any]], frozenset[str] | None]
) -> frozenset[str] | None:
    try:
        return read(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedRecordsError(f"{shown} cannot be read ({error}); restore it from a copy") from None
