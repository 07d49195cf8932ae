"""Scale on which a study searched each field of a config: logarithmic or linear.

A regression that holds a learning rate must hold it on the scale that the search sampled it on. A rate drawn between
1e-4 and 1e-1 on a logarithmic scale has most of its variation in the exponent. Held linearly, it removes little of that
variation, and the rest acts as an unmeasured common cause. In simulated studies in which the rate moved gap and
accuracy and nothing went through the gap, an indirect effect was then found in 55% of 80 studies with 24 configs and in
95% of 80 with 40. With the rate in logarithms it was found in 4% and 7% of 200
(`tests/analysis/questions/test_mediation.py`).

The summary of a study contains the scales. Records without a summary, such as those of a running study, name their
search space, and the scales of this project's spaces are known here.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from study.records import DamagedRecordsError

# Fields that every space of this project searches on a logarithmic scale, if it searches them.
_ALWAYS: Final = frozenset(
    {"adapter_width", "adapter_learning_rate", "adapter_ce_weight", "temperature", "student_learning_rate"}
    | {"ttm_gamma", "label_smoothing"}
)
_BY_SPACE: Final[Mapping[str, frozenset[str]]] = {"method_tuned": frozenset({"kd_weight"})}


def log_fields_of(spaces: Iterable[str | None]) -> frozenset[str]:
    """Return the fields that the spaces search on a logarithmic scale, for records without a summary."""
    return _ALWAYS.union(*(_BY_SPACE.get(space or "", frozenset()) for space in spaces))


def log_fields_in(summary: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the fields that a study searched on a logarithmic scale; None if its summary does not contain them.

    Args:
        summary: content of `summary.json`. Earlier versions listed no fields for a comparison of methods.
    """
    if "log_fields" in summary:
        return frozenset(summary["log_fields"])
    searched = summary.get("searched")
    return frozenset(each["name"] for each in searched if each["log"]) if searched else None


def read_log_fields(directory: str | Path) -> frozenset[str] | None:
    """Read the fields that a study searched on a logarithmic scale from its folder; None without a summary.

    Raises:
        DamagedRecordsError: the summary cannot be read.
    """
    path = Path(directory) / "summary.json"
    try:
        return parse_log_fields(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def parse_log_fields(content: bytes, shown: str) -> frozenset[str] | None:
    """Return `log_fields_in` a summary given as bytes.

    Raises:
        DamagedRecordsError: the content is no summary; the message names it as `shown`.
    """
    try:
        return log_fields_in(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedRecordsError(f"{shown} cannot be read ({error}); restore it from a copy") from None
