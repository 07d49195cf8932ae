"""Gather the scores from repeated or confirmed trials by method, config and replicate."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.reading.trials import SHARPNESS_GAP, Split, method_names, numbers, select, trial_scores

# Scores for one config by replicate.
ByReplicate: TypeAlias = dict[int, float]


def scores_by_replicate(rows: pa.Table, split: Split = "validation") -> ByReplicate:
    """Return one config's scores by replicate; nan where a trial has no score.

    Args:
        rows: trials of a single config.
        split: score split.
    """
    return dict(zip(rows["replicate"].to_pylist(), trial_scores(rows, split).tolist(), strict=True))


def scores_by_config(
    trials: pa.Table, stages: Collection[str] | None, split: Split = "validation"
) -> dict[str, ByReplicate]:
    """Return finite scores from finished trials by config and replicate, in table order.

    Args:
        trials: trials of a single study.
        stages: trial stages; None for all.
        split: score split.
    """
    rows = select(trials, stages=stages)
    return _by_config(rows, trial_scores(rows, split))


def gaps_by_config(trials: pa.Table, stages: Collection[str]) -> dict[str, ByReplicate]:
    """Return finite sharpness gaps from finished trials by config and replicate, in table order.

    Args:
        trials: trials of a single study.
        stages: trial stages.
    """
    rows = select(trials, stages=stages)
    return _by_config(rows, numbers(rows, SHARPNESS_GAP))


def _by_config(rows: pa.Table, values: NDArray[np.float64]) -> dict[str, ByReplicate]:
    found: dict[str, ByReplicate] = {}
    columns = (rows["config_id"].to_pylist(), rows["replicate"].to_pylist(), values.tolist())
    for config_id, replicate, score in zip(*columns, strict=True):
        if math.isfinite(score):
            found.setdefault(config_id, {})[replicate] = score
    return found


def scores_by_method(
    trials: pa.Table, stages: Collection[str], split: Split = "validation"
) -> dict[str, dict[str, ByReplicate]]:
    """Return finite scores from finished trials by method, config and replicate, in table order.

    A method has several configs if a study repeated several, such as the best from each search.

    Args:
        trials: trials of a single study.
        stages: trial stages.
        split: score split.
    """
    rows = select(trials, stages=stages)
    names = dict(zip(rows["config_id"].to_pylist(), method_names(rows), strict=True))
    found: dict[str, dict[str, ByReplicate]] = {}
    for config_id, scores in scores_by_config(trials, stages, split).items():
        found.setdefault(names[config_id], {})[config_id] = scores
    return found


def shared_replicates(configs: Collection[Mapping[int, float]]) -> list[int]:
    """Return the replicates with a score in every config, ascending."""
    return sorted(set.intersection(*(set(scores) for scores in configs))) if configs else []


def mean_over_configs(configs: Collection[Mapping[int, float]]) -> ByReplicate:
    """Average configs by replicate, over the replicates with a score in all configs."""
    return {each: float(np.mean([scores[each] for scores in configs])) for each in shared_replicates(configs)}


def score_table(configs: Sequence[Mapping[int, float]], replicates: Sequence[int]) -> NDArray[np.float64]:
    """Return scores as (configs, replicates)."""
    rows = [[scores[each] for each in replicates] for scores in configs]
    return np.array(rows, dtype=np.float64).reshape(len(configs), len(replicates))
