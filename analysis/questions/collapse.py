"""Find configs with collapsed seeds, and describe them by the collapsed share and a trimmed mean.

A seed has collapsed if its score is less than halfway from a constant answer to the median score in the study. If some
seeds collapsed, the mean over seeds describes neither kind, and the interval around it covers the population mean too
rarely (`analysis.statistics.trimmed`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from analysis.reading.trials import CONFIRM, REPEATED, Split, numbers, objective, select, trial_scores
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE
from analysis.statistics.trimmed import trimmed_mean
from trainables.display.numbers import counted, format_estimate, format_number, format_percent

_PREFIX: Final[Mapping[Split, str]] = {"validation": "val", "test": "test"}
_MOST_NAMED: Final = 8
# If a study's median is hardly above a constant answer, a low score is no collapse.
_LEAST_DISTANCE: Final = 0.1


@dataclass(frozen=True)
class Collapse:
    """Collapsed seeds in one config.

    Args:
        config_id: config digest.
        collapsed: number of collapsed seeds, at least 1.
        share: collapsed share, with Wilson's interval; n counts seeds.
        trimmed: mean score without the lowest and the highest fifth of seeds.
        floor: a seed with a score below this counts as collapsed.
    """

    config_id: str
    collapsed: int
    share: Estimate
    trimmed: Estimate
    floor: float


def collapses(trials: pa.Table, split: Split) -> list[Collapse]:
    """Return the configs with a collapsed seed, in trial order.

    Args:
        trials: trials of a single study.
        split: `validation` for repeated configs, `test` for confirmed ones.
    """
    rows = select(trials, stages=[CONFIRM] if split == "test" else REPEATED)
    scores = trial_scores(rows, split)
    rows, scores = rows.filter(pa.array(np.isfinite(scores))), scores[np.isfinite(scores)]
    if not len(scores):
        return []
    constant = numbers(rows, f"data/{_PREFIX[split]}_constant_score")
    # Earlier versions did not record the constant-answer score.
    lowest = float(np.nanmax(constant)) if np.isfinite(constant).any() else 0.0
    median = float(np.median(scores))
    if median - lowest < _LEAST_DISTANCE:
        return []
    floor = (lowest + median) / 2
    ids, found = np.array(rows["config_id"].to_pylist()), []
    for config_id in dict.fromkeys(ids.tolist()):
        own = scores[ids == config_id]
        number = int(np.count_nonzero(own < floor))
        if number:
            found.append(Collapse(config_id, number, _share(number, len(own)), trimmed_mean(own), floor))
    return found


def _share(number: int, n: int) -> Estimate:
    from scipy import stats  # slow to import, and most studies have no collapse

    interval = stats.binomtest(number, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(number / n, float(interval.low), float(interval.high), n, f"Wilson interval, {CONFIDENCE}")


def collapse_warning(trials: pa.Table, split: Split, labels: Mapping[str, str]) -> str | None:
    """Return a warning that names the configs with collapsed seeds; None if there are none.

    Args:
        trials: trials of a single study.
        split: see `collapses`.
        labels: config names by digest; other configs are left out.
    """
    found = [each for each in collapses(trials, split) if each.config_id in labels]
    if not found:
        return None
    named = "; ".join(f"{labels[each.config_id]} {_in_words(each)}" for each in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return (
        f"Collapsed seeds on the {split} split (below {format_number(found[0].floor)}, halfway from a constant answer "
        f"to the median {objective(trials)}): {named}{more}. Means and differences of such configs describe neither "
        "kind of seed, and their intervals are too short."
    )


def _in_words(found: Collapse) -> str:
    share = f"{format_percent(found.share.low)} to {format_percent(found.share.high)} of seeds"
    text = f"{found.collapsed} of {counted(found.share.n, 'seed')} ({share}"
    if not math.isfinite(found.trimmed.value):
        return f"{text})"
    return f"{text}; trimmed mean {format_estimate(found.trimmed)})"
