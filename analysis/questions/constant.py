"""Warn about small validation splits, students with a mean at or below a constant answer, and collapsed seeds.

The records contain the number of samples in each split. They also contain the best score of a network with the same
class for every sample (`data/...` in `study.records`). Records from earlier versions lack both; there is then no
warning.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from analysis.questions.collapse import collapse_warning
from analysis.questions.confirmation import ConfirmationResult
from analysis.questions.confirmation_words import described
from analysis.reading.trials import ConfigSummary, Split, control_name, numbers, objective
from analysis.statistics.estimates import Estimate
from trainables.data.splits import small_validation
from trainables.display.numbers import format_number
from trainables.spec.modality import samples_of

_PREFIX: Final[dict[Split, str]] = {"validation": "val", "test": "test"}
_MOST_NAMED: Final = 8
_ROUNDING: Final = 1e-9  # Rounding error in a mean over equal scores.


def split_warnings(
    trials: pa.Table, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None
) -> list[str]:
    """Return warnings, one or two sentences each; empty if there is no reason for a warning.

    Args:
        trials: trials of a single study.
        configs: repeated configs, on the validation split.
        confirmed: complete confirmation, if there is one.
    """
    repeated = [(_named(each), each.accuracy) for each in configs if each.split == "validation"]
    chosen = confirmed.configs if confirmed is not None else []
    validated = [*repeated, *((described(each), each.accuracy) for each in chosen)]
    found = [
        _small(trials),
        _no_better_than_constant(trials, "validation", validated),
        _no_better_than_constant(trials, "test", [(described(each), each.test_accuracy) for each in chosen]),
        collapse_warning(trials, "validation", {each.config_id: _named(each) for each in configs}),
        collapse_warning(trials, "test", {each.config_id: described(each) for each in chosen}),
    ]
    return [warning for warning in found if warning is not None]


def _small(trials: pa.Table) -> str | None:
    samples = _fact(trials, "data/val_samples")
    return None if np.isnan(samples) else small_validation(int(samples), _samples(trials))


def _no_better_than_constant(trials: pa.Table, split: Split, scores: Iterable[tuple[str, Estimate]]) -> str | None:
    """Return a warning that names the configs with a mean at or below the best constant-answer score."""
    constant, samples = (_fact(trials, f"data/{_PREFIX[split]}_{name}") for name in ("constant_score", "samples"))
    below = {label: each.value for label, each in scores if each.n and each.value <= constant + _ROUNDING}
    if not below:
        return None
    words = objective(trials)
    named = "; ".join(f"{label} {format_number(value)}" for label, value in [*below.items()][:_MOST_NAMED])
    more = f" and {len(below) - _MOST_NAMED} more" if len(below) > _MOST_NAMED else ""
    score = "the share of its largest class" if words == "accuracy" else f"the {words} of one class for all"
    return (
        f"Not above a constant answer on the {split} split, where {score} is {format_number(constant)} "
        f"(n = {samples:,.0f} {_samples(trials)}): {named}{more}."
    )


def _fact(trials: pa.Table, name: str) -> float:
    """Return a fact about the splits shared by all trials; nan if no trial has it."""
    known = numbers(trials, name) if name in trials.column_names else np.array([])
    return float(known[np.isfinite(known)].max()) if np.isfinite(known).any() else float("nan")


def _samples(trials: pa.Table) -> str:
    datasets = trials["dataset"].to_pylist() if "dataset" in trials.column_names else []
    return samples_of(next((each for each in datasets if each), ""))


def _named(config: ConfigSummary) -> str:
    return control_name(config) if config.stage == "control" else config.name
