"""Reliability of predictions: fraction of correct predictions at a given confidence, pooled over seeds.

Every finished trial records predictions in equal-width confidence bins (`calibration/…` in the records), so pooling
means adding bins. A frozen teacher is a single network, however many trials used it, so it is counted once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.reading.trials import select
from analysis.statistics.resampling import Floats

TEACHER: Final = "teacher"
# Columns by the usual name of the network, in panel order.
VALIDATION: Final = {
    TEACHER: "calibration/val_teacher",
    "adapted teacher": "calibration/val_adapted",
    "student": "calibration/val_student",
}
TEST: Final = {"student": "calibration/test_student"}
# With fewer predictions, the bin accuracy is too uncertain to draw.
FEWEST: Final = 10


@dataclass(frozen=True)
class Reliability:
    """Binned predictions of one network, or of several networks that differ only in their seeds.

    Args:
        network: teacher, adapted teacher or student.
        label: config label; empty for a teacher shared by all configs.
        networks: number of pooled networks: one per seed, or one frozen teacher.
        count: (bins,) number of predictions in each bin, over all networks.
        confidence: (bins,) mean confidence; nan in an empty bin.
        accuracy: (bins,) fraction of correct predictions; nan in an empty bin.
    """

    network: str
    label: str
    networks: int
    count: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def name(self) -> str:
        """Name in the figure: the label, or the network if there is no label."""
        return self.label or self.network

    @property
    def drawn(self) -> Any:
        """Mask (bins,) for bins with enough predictions to draw."""
        return self.count >= FEWEST

    @property
    def images(self) -> int:
        """Number of predictions per network."""
        return round(float(self.count.sum()) / self.networks)

    @property
    def error(self) -> float:
        """Expected calibration error over the pooled predictions; at most the mean error over the single networks."""
        held = self.count > 0
        apart = np.abs(self.accuracy[held] - self.confidence[held])
        return float((self.count[held] * apart).sum() / self.count.sum())


def pooled(trials: pa.Table, network: str, column: str, label: str) -> Reliability | None:
    """Pool the predictions of the given trials; None if none are recorded.

    Args:
        trials: trials of a single config.
        network: source of the predictions.
        column: prediction column.
        label: config label.
    """
    if column not in trials.column_names:  # records from an earlier or another version
        return None
    return _pooled(trials[column].to_pylist(), network, label)


def _pooled(predictions: Sequence[Any], network: str, label: str) -> Reliability | None:
    found = [bins for bins in predictions if bins]
    if network == TEACHER:
        found = list({json.dumps(bins): bins for bins in found}.values())
    if not found:
        return None
    sums = {
        name: np.array([[each[name] for each in bins] for bins in found], dtype=np.float64).sum(axis=0)
        for name in ("count", "confidence", "correct")
    }
    count = np.where(sums["count"] > 0, sums["count"], np.nan)
    return Reliability(network, label, len(found), sums["count"], sums["confidence"] / count, sums["correct"] / count)


def compute_reliability(
    trials: pa.Table, configs: Sequence[tuple[str, str]], *, stages: Sequence[str], on: dict[str, str] | None = None
) -> list[Reliability]:
    """Pool each network's predictions over the finished trials of each config.

    Args:
        trials: study trials.
        configs: identifier and label of each config.
        stages: stages to pool.
        on: columns by network, `VALIDATION` or `TEST`. Default: `VALIDATION`.

    Returns:
        Reliabilities by network, then by config; networks without records are left out.
    """
    ended = select(trials, stages=stages)
    found = []
    for network, column in (VALIDATION if on is None else on).items():
        own = [
            pooled(ended.filter(pc.equal(ended["config_id"], config_id)), network, column, label)
            for config_id, label in configs
        ]
        found += _shared([each for each in own if each is not None])
    return found


def calibration_errors(trials: pa.Table, column: str) -> Floats:
    """Compute the expected calibration error of each trial as (n,); nan if the trial has no recorded predictions.

    Args:
        trials: trials of any config.
        column: prediction column.
    """
    if column not in trials.column_names:  # records from an earlier or another version
        return np.full(trials.num_rows, np.nan)
    found = [_pooled([bins], column, "") for bins in trials[column].to_pylist()]
    return np.array([np.nan if each is None else each.error for each in found], dtype=np.float64)


def _shared(found: list[Reliability]) -> list[Reliability]:
    """Merge the teachers from all configs into one, if they are the same frozen teacher."""
    if not found or found[0].network != TEACHER:
        return found
    first, *others = found
    same = all(
        np.array_equal(each.count, first.count) and np.array_equal(each.confidence, first.confidence, equal_nan=True)
        for each in others
    )
    return [Reliability(TEACHER, "", 1, first.count, first.confidence, first.accuracy)] if same else found


def reliability_caption(found: Sequence[Reliability], split: str, left_out: Sequence[str] = ()) -> str:
    """Describe the reliability diagrams, with n, and name the configs without a diagram."""
    rest = f" Not drawn here, but in the table: {', '.join(left_out)}." if left_out else ""
    counts = "; ".join(f"{each.name} n = {each.networks}" for each in found if each.network == found[-1].network)
    return (
        f"Predictions of the {split} split in {len(found[-1].count)} bins of equal width over their confidence, pooled "
        f"over seeds ({counts}; {found[-1].images:,} images each). Below the diagonal a network is too sure of itself. "
        f"A larger dot holds more predictions; bins with fewer than {FEWEST} are left out. All seeds see the same "
        f"images, so there is no interval here; that of the calibration error, over seeds, is in the table.{rest}"
    )


def networks_of(found: Sequence[Reliability]) -> list[str]:
    """Return the distinct networks in panel order."""
    return list(dict.fromkeys(each.network for each in found))
