"""Number of repetitions given as `auto`: seeds are added until each comparison is decided, up to a maximum number.

This is for studies without a confirmation, where the repetitions are the result. In a confirmed study they only help to
choose the configs, and `--seeds auto` adds seeds to the confirmation instead.
"""

import re
from collections.abc import Mapping
from typing import Any

from study.plan.confirmation import AUTO, DEFAULT_SEEDS, FIRST_LOOK, seeds_asked
from study.plan.plan import StudyPlan
from trainables.process.errors import UsageError


def with_replicates(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with `--replicates` as a number, and `replicates_detect` if the number is to be found.

    With `auto`, the number is the maximum, and `--detect` and `--most-seeds` are used up.

    Args:
        values: option values, or only the given ones.

    Raises:
        UsageError: the value is neither a number nor `auto`, or `auto` is given for a study that cannot use it.
    """
    replicates = values.get("replicates")
    if replicates is None:
        return dict(values)
    if replicates != AUTO:
        if not re.fullmatch(r"-?[0-9]{1,9}", str(replicates)):
            raise UsageError(f"--replicates {replicates}: give a number, such as 12, or {AUTO}")
        return {**values, "replicates": int(replicates), "replicates_detect": None}
    if values.get("smoke"):
        raise UsageError("--replicates auto needs many seeds, and --smoke runs one: leave out one of them")
    if values.get("confirm") is not None or values.get("seeds") is not None:
        raise UsageError(
            "--replicates auto is for a study without a confirmation: with --confirm, the repetitions only help to "
            "choose the configs, and the confirmation compares them. Give a number of --replicates, and --seeds auto "
            f"(default: {DEFAULT_SEEDS} seeds) for the confirmation; or leave out --confirm and --seeds"
        )
    asked = seeds_asked(AUTO, values.get("detect"), values.get("most_seeds"))
    assert asked is not None
    found = {"replicates": asked.seeds, "replicates_detect": asked.detect}
    return {**values, **found, "detect": None, "most_seeds": None}


def check_not_sequential(plan: StudyPlan, *, is_finished: bool) -> None:
    """Check that no confirmation is requested while repetitions are still being added.

    Raises:
        UsageError: the study adds repetitions and has not finished.
    """
    if plan.replicates_detect is not None and not is_finished:
        raise UsageError(
            f"study {plan.name!r} adds repetitions until its comparisons are decided (--replicates auto): resume it "
            "without --confirm and --seeds first, and confirm it when it has finished (python -m study.confirm)"
        )


def replicates_in_words(plan: StudyPlan) -> str:
    """Return the number of repetitions in words, for example `12` or `6 to 60`."""
    return f"{plan.replicates}" if plan.replicates_detect is None else f"{FIRST_LOOK} to {plan.replicates}"
