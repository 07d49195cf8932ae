"""Reliability: how often predictions of a given confidence are right, pooled over seeds.

Every finished trial recorded its predictions in bins of equal width over the confidence (`calibration/…` in the
records), so that pooling is adding. A frozen teacher is one network, whatever trials it taught: it is counted once.
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
# By what people call the network; the order is that of the panels.
VALIDATION: Final = {
    TEACHER: "calibration/val_teacher",
    "adapted teacher": "calibration/val_adapted",
    "student": "calibration/val_student",
}
TEST: Final = {"student": "calibration/test_student"}
# Fewer predictions say little of how often they are right.
FEWEST: Final = 10


@dataclass(frozen=True)
class Reliability:
    """One network, or several equal but for their seeds, in bins over the confidence.

    Args:
        network: which one: teacher, adapted teacher or student.
        label: whose; the config's, or nothing for a teacher that all configs share.
        networks: how many networks are pooled: one for each seed, or one frozen teacher.
        count: (bins,) predictions in each bin, over all of them.
        confidence: (bins,) their mean confidence; nan in an empty bin.
        accuracy: (bins,) the share of them that is right.
    """

    network: str
    label: str
    networks: int
    count: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def drawn(self) -> Any:
        """(bins,) which bins hold enough predictions to be drawn."""
        return self.count >= FEWEST

    @property
    def images(self) -> int:
        """Predictions of each network."""
        return round(float(self.count.sum()) / self.networks)

    @property
    def error(self) -> float:
        """Expected calibration error of the pooled predictions; at most the mean of those of the single networks."""
        held = self.count > 0
        apart = np.abs(self.accuracy[held] - self.confidence[held])
        return float((self.count[held] * apart).sum() / self.count.sum())


def pooled(trials: pa.Table, network: str, column: str, label: str) -> Reliability | None:
    """The predictions of these trials together; None where none recorded any.

    Args:
        trials: of one config.
        network: whose predictions.
        column: where they are.
        label: what the config is called.
    """
    if column not in trials.column_names:  # of an earlier version, or of another
        return None
    found = [bins for bins in trials[column].to_pylist() if bins]
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
    """The networks of these configs, each pooled over its finished trials.

    Args:
        trials: a study's.
        configs: identifier and label of each.
        stages: whose trials.
        on: columns by network: `VALIDATION`, if not given, or `TEST`.

    Returns:
        By network, then config; networks of which nothing was recorded are left out.
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
    """Expected calibration error of each trial's own predictions as (n,), nan where none are recorded.

    Args:
        trials: of any config.
        column: where the predictions are.
    """
    found = [pooled(trials.slice(row, 1), column, column, "") for row in range(trials.num_rows)]
    return np.array([np.nan if each is None else each.error for each in found], dtype=np.float64)


def _shared(found: list[Reliability]) -> list[Reliability]:
    """One frozen teacher, where it is the same for all."""
    if not found or found[0].network != TEACHER:
        return found
    first, *others = found
    same = all(
        np.array_equal(each.count, first.count) and np.array_equal(each.confidence, first.confidence, equal_nan=True)
        for each in others
    )
    return [Reliability(TEACHER, "", 1, first.count, first.confidence, first.accuracy)] if same else found


def reliability_caption(found: Sequence[Reliability], split: str, left_out: Sequence[str] = ()) -> str:
    """What the diagrams show, with n, and whom they leave out."""
    rest = f" Not drawn here, but in the table: {', '.join(left_out)}." if left_out else ""
    counts = "; ".join(f"{_named(each)} n = {each.networks}" for each in found if each.network == found[-1].network)
    return (
        f"Predictions of the {split} split in {len(found[-1].count)} bins of equal width over their confidence, pooled "
        f"over seeds ({counts}; {found[-1].images:,} images each). Below the diagonal a network is too sure of itself. "
        f"A larger dot holds more predictions; bins with fewer than {FEWEST} are left out. All seeds see the same "
        f"images, so there is no interval here; that of the calibration error, over seeds, is in the table.{rest}"
    )


def _named(reliability: Reliability) -> str:
    return reliability.label or reliability.network


def networks_of(found: Sequence[Reliability]) -> list[str]:
    """The networks, in the order of their panels."""
    return list(dict.fromkeys(each.network for each in found))
