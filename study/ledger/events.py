"""Validation of journal events, written by hand for speed: a journal has one line per epoch and trial.

A line with a valid checksum may still contain content unknown to every version of this project, from another program or
a manual edit. The line then counts as damaged. The ledger checks conditions between lines.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_TRIAL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}-[0-9]{4,9}")
_CONFIG_ID: Final = re.compile(r"[0-9a-f]{12}")
_LATEST: Final = 1e11  # seconds since 1970
_MOST: Final = 10**9
_LARGEST: Final = 2**63
_MOST_BINS: Final = 10_000
STATUSES: Final = ("finished", "pruned", "failed")
STAGES: Final = ("search", "control", "replicate", "tune", "confirm")
_COUNTS_OF_DATA: Final = ("train", "validation", "test", "channels", "image_size")
_BIN: Final = frozenset({"count", "confidence", "correct"})


def fault_of(event: Mapping[str, Any]) -> str | None:
    """Return why an event is invalid in any journal, or None for a valid event.

    The pydantic models check a trial's config and a confirmation's content.
    """
    kind = event["event"]
    checks = _CHECKS.get(kind) if isinstance(kind, str) else None
    if checks is None:
        return f"unknown event {str(kind)[:40]!r}"
    for name, (check, is_needed) in checks.items():
        if name not in event:
            if is_needed:
                return f"{kind}: {name} is missing"
        elif not check(event[name]):
            return f"{kind}: invalid {name} {str(event[name])[:40]!r}"
    if kind == "trial" and (unknown := event.keys() - checks.keys() - {"event"}):
        return f"trial: unknown field {min(unknown)[:40]!r}"
    if not _is_encodable(event):
        return f"{kind}: a string is not valid Unicode"
    return None


def ordinal_in(trial_id: str) -> int:
    """Return the number at the end of a trial identifier, or -1 if there is none."""
    digits = trial_id.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= len(str(_MOST)) else -1


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or -_LARGEST <= value < _LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_large_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _is_time(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and 0 <= value < _LATEST


def _is_duration(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_trial_id(value: Any) -> bool:
    return isinstance(value, str) and _TRIAL_ID.fullmatch(value) is not None


def _is_config_id(value: Any) -> bool:
    return isinstance(value, str) and _CONFIG_ID.fullmatch(value) is not None


def _are_attempts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_trial_id, value)) and all(map(_is_count, value.values()))


def _are_trial_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_trial_id, value)) and len(set(value)) == len(value)


def _are_measures(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_optuna_trial(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    if not all(
        isinstance(value.get(name), dict) for name in ("params", "distributions", "system_attrs", "study_attrs")
    ):
        return False
    if not isinstance(value.get("search", ""), str):
        return False
    return bool(value["params"].keys() == value["distributions"].keys())


_PER_CLASS: Final = ("count", "correct", "gap_count", "gap")


def _are_answers(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() - {"samples", "bits", *_PER_CLASS}:
        return False
    lists = [value[name] for name in _PER_CLASS if name in value]
    if not all(isinstance(each, list) for each in lists):
        return False
    if not all(
        _is_number(each) if name == "gap" else _is_large_count(each)
        for name in _PER_CLASS
        for each in value.get(name, ())
    ):
        return False
    if len({len(each) for each in lists}) > 1 or ("gap" in value) != ("gap_count" in value):
        return False
    if {"samples", "bits", "count", "correct"} - value.keys():
        return value.keys() <= {"gap_count", "gap"}
    try:
        bits = base64.b64decode(value["bits"], validate=True)
    except (ValueError, TypeError):
        return False
    return (
        isinstance(value["bits"], str) and _is_large_count(value["samples"]) and len(bits) == -(-value["samples"] // 8)
    )


def _is_calibration(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_bins, value.values()))


def _are_bins(sums: Any) -> bool:
    if not isinstance(sums, dict) or sums.keys() != _BIN:
        return False
    if not all(isinstance(each, list) and len(each) <= _MOST_BINS for each in sums.values()):
        return False
    counts = [*sums["count"], *sums["correct"]]
    lengths = {len(each) for each in sums.values()}
    return len(lengths) == 1 and all(map(_is_large_count, counts)) and all(map(_is_number, sums["confidence"]))


def _is_dataset(value: Any) -> bool:
    """Return whether a value is a dataset entry: a digest and split sizes. Image folders also have an image format."""
    if not isinstance(value, dict) or not isinstance(value.get("digest"), str):
        return False
    if "class_names" in value and not (value.keys() >= set(_COUNTS_OF_DATA) and _are_names(value["class_names"])):
        return False
    return all(_is_large_count(value[name]) for name in _COUNTS_OF_DATA if name in value)


def _are_gpus(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"per_trial", "gpus", "idle", "words"}:
        return False
    return (
        _is_duration(value["per_trial"])
        and all(map(_is_count, (value["gpus"], value["idle"])))
        and _is_text(value["words"])
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_encodable(value: Any) -> bool:
    """Return whether all strings can be encoded. JSON escapes may contain lone surrogates."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return all(_is_encodable(key) and _is_encodable(each) for key, each in value.items())
    return not isinstance(value, list) or all(map(_is_encodable, value))


_Check = tuple[Callable[[Any], bool], bool]
_NAMED: Final[dict[str, _Check]] = {"trial_id": (_is_trial_id, True)}
_CHECKS: Final[dict[str, dict[str, _Check]]] = {
    "study": {"study_id": (_is_text, True), "name": (_is_text, True)},
    "trial": {
        **_NAMED,
        "ordinal": (_is_count, True),
        "stage": (lambda stage: stage in STAGES, True),
        "replicate": (_is_count, True),
        "config": (_is_object, True),
        "config_id": (_is_config_id, False),
        "started": (_is_time, True),
        "optuna": (_is_optuna_trial, False),
    },
    "epoch": {
        **_NAMED,
        "epoch": (lambda epoch: _is_count(epoch) and epoch > 0, True),
        "time": (_is_time, True),
        "measures": (_are_measures, True),
    },
    "facts": {**_NAMED, "facts": (_are_measures, True)},
    "answers": {**_NAMED, "answers": (_are_answers, True)},
    "calibration": {**_NAMED, "calibration": (_is_calibration, True)},
    "dataset": {"dataset": (_is_dataset, True)},
    "deployment": {"student": (_is_text, True), "facts": (_are_measures, True), "time": (_is_time, True)},
    "gpus": {"gpus": (_are_gpus, True), "time": (_is_time, True)},
    "pack": {"trials": (_are_trial_ids, True)},
    "fill": {
        "time": (_is_time, False),
        "forwards": (_is_large_count, True),
        "files": (_is_large_count, False),
        "seconds": (_is_duration, False),
    },
    "confirmation": {"confirmation": (_is_object, True)},
    "end": {
        **_NAMED,
        "status": (lambda status: status in STATUSES, True),
        "error": (_is_text_or_none, False),
        "time": (_is_time, True),
        "attempt": (lambda attempt: _is_count(attempt) and attempt > 0, False),
    },
    "retry": {
        **_NAMED,
        "time": (_is_time, True),
        "attempt": (lambda attempt: _is_count(attempt) and attempt > 1, False),
    },
    "set_aside": {
        "time": (_is_time, True),
        "next_ordinal": (_is_count, True),
        "again": (_are_attempts, True),
        "folder": (_is_text, False),
    },
}


def first_error_line(error: Exception) -> str:
    """Return the first line of an error, shortened to 200 characters."""
    return (str(error).splitlines() or [""])[0][:200]
