"""Resolution of a study: least detectable difference at the study's seeds, and seeds needed for a given difference.

The spread is the study's own: the standard deviation over seeds of the paired difference between two configs. Each
comparison has a separate spread, and their median stands for the study. The comparisons are from the confirmation if
there is one, else every repeated config against the baseline.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from analysis.questions.confirmation import ConfirmationResult
from analysis.reading.scores import mean_over_configs, scores_by_config
from analysis.reading.trials import (
    BASELINE,
    CONFIRM,
    REPEATED,
    STUDENT,
    ConfigSummary,
    Split,
    control_name,
    objective,
    objective_of_all,
)
from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import Estimate, holm
from analysis.statistics.power import LEVEL, POWER, fewest_pairs, least_detectable, seeds_needed
from trainables.display.numbers import NETWORK_PLACES, counted, format_number, listed

LEADS: Final = ("Least detectable difference", "Not settled", "No difference is detectable")
_MOST_NAMED: Final = 4


class Compared(NamedTuple):
    """Comparison between two configs over seeds.

    Args:
        label: first config's name.
        against: second config's name.
        spread: standard deviation of the paired differences; nan for fewer than two pairs.
        difference: estimated mean difference.
        corrected_p: p-value after Holm's correction over all comparisons; None without a test.
    """

    label: str
    against: str
    spread: float
    difference: Estimate
    corrected_p: float | None

    def settles(self, smallest: float) -> bool:
        """Return whether the sign is clear, or the whole interval lies within ± `smallest`."""
        low, high = self.difference.low, self.difference.high
        clear = (low > 0 or high < 0) and (self.corrected_p is None or self.corrected_p < LEVEL)
        return clear or (-smallest < low and high < smallest)


@dataclass(frozen=True)
class Resolution:
    """Resolution of a study.

    Args:
        compared: comparisons, at least one.
        objective: objective of the differences in words.
        split: split of the differences.
        over_searches: whether the intervals for the differences cover searches too, while spreads are over seeds alone.
    """

    compared: tuple[Compared, ...]
    objective: str
    split: Split
    over_searches: bool = False

    @property
    def spreads(self) -> list[float]:
        """Known standard deviations of paired differences, in ascending order."""
        return sorted(each.spread for each in self.compared if not math.isnan(each.spread))

    @property
    def spread(self) -> float:
        """Median standard deviation of paired differences; nan if no comparison has two pairs."""
        return float(np.median(self.spreads)) if self.spreads else math.nan

    @property
    def seeds(self) -> int:
        """Smallest number of paired seeds over the comparisons."""
        return min(each.difference.n for each in self.compared)

    def detectable(self, *, corrected: bool, seeds: int | None = None, power: float = POWER) -> float:
        """Return the least detectable difference, by default at the study's own seeds.

        Args:
            corrected: whether after Holm's correction for all comparisons.
            seeds: number of paired seeds.
            power: wanted power.
        """
        tests = len(self.compared) if corrected else 1
        return least_detectable(self.spread, self.seeds if seeds is None else seeds, power=power, tests=tests)

    def too_few(self, *, corrected: bool) -> str:
        """Explain why the study's seeds can show no difference, and give the number needed; empty if they can."""
        tests = len(self.compared) if corrected else 1
        if not math.isinf(self.detectable(corrected=corrected)):
            return ""
        least = fewest_pairs(tests=tests)
        least_p = f"the smallest possible p-value, {2 / 2**self.seeds:.3g}, is above {_level(tests)}"
        shows = format_number(self.detectable(corrected=corrected, seeds=least), NETWORK_PLACES)
        return (
            f"{least_p}. At least {counted(least, 'seed')} are needed, which can show a difference of {shows} "
            f"(power {POWER:g})"
        )

    def needed(self, difference: float, *, corrected: bool, power: float = POWER) -> int | None:
        """Return the number of seeds needed to show a difference; None above `MOST_SEEDS`."""
        return seeds_needed(difference, self.spread, power=power, tests=len(self.compared) if corrected else 1)

    def unsettled(self, smallest: float = SMALLEST_EFFECT) -> list[str]:
        """Return the names of comparisons with neither a clear sign nor an interval within ± `smallest`."""
        several = len({each.against for each in self.compared}) > 1
        return [
            f"{each.label} against {each.against}" if several else each.label
            for each in self.compared
            if not each.settles(smallest)
        ]

    def as_dict(self, differences: Sequence[float], *, power: float = POWER) -> dict[str, Any]:
        """Return the resolution and the seeds needed for each difference as JSON values."""
        known = bool(self.spreads)
        return {
            "objective": self.objective,
            "split": self.split,
            "seeds": self.seeds,
            "comparisons": len(self.compared),
            "spread": self.spread if known else None,
            "smallest_spread": self.spreads[0] if known else None,
            "largest_spread": self.spreads[-1] if known else None,
            "power": power,
            "level": LEVEL,
            "detectable": _finite(self.detectable(corrected=False, power=power)),
            "detectable_after_holm": _finite(self.detectable(corrected=True, power=power)),
            "needed": [
                {
                    "difference": each,
                    "seeds": self.needed(each, corrected=False, power=power),
                    "seeds_after_holm": self.needed(each, corrected=True, power=power),
                }
                for each in differences
                if known
            ],
            "unsettled": self.unsettled(),
        }


def find_resolution(
    trials: pa.Table, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None
) -> Resolution | None:
    """Return the resolution of a study, or None if there is no comparison on paired seeds.

    Args:
        trials: study trials.
        configs: repeated configs.
        confirmed: complete confirmation, or None.
    """
    if confirmed is not None and any(each.difference.n for each in confirmed.comparisons):
        scores = scores_by_config(trials, (CONFIRM,), "test")
        compared = tuple(
            Compared(
                each.label,
                each.against_label,
                _spread(
                    _mean_of(scores, each.configs or (each.config_id,)),
                    _mean_of(scores, each.against_configs or (each.against,)),
                ),
                each.difference,
                each.corrected_p,
            )
            for each in confirmed.comparisons
            if each.difference.n
        )
        return Resolution(compared, confirmed.objective, "test", over_searches=bool(confirmed.methods))
    scores = scores_by_config(trials, REPEATED)
    found = tuple(_repeated(configs, scores))
    return (
        Resolution(found, objective_of_all(configs) if configs else objective(trials), "validation") if found else None
    )


def _repeated(configs: Sequence[ConfigSummary], scores: dict[str, dict[int, float]]) -> Iterator[Compared]:
    baselines = [each for each in configs if each.method == BASELINE and each.against_baseline is None]
    rows = [(each, each.against_baseline) for each in configs]
    known = [(each, against) for each, against in rows if against is not None and against.n]
    if not baselines:
        return
    corrected = holm([math.nan if against.p_value is None else against.p_value for _, against in known])
    for (each, against), p_value in zip(known, corrected, strict=True):
        alike = [own.config_id for own in baselines if own.varied.get(STUDENT) == each.varied.get(STUDENT)]
        spread = _spread(
            scores.get(each.config_id, {}), _mean_of(scores, alike or [own.config_id for own in baselines])
        )
        label = control_name(each) if each.stage == "control" else each.name
        yield Compared(label, BASELINE, spread, against, None if math.isnan(p_value) else p_value)


def _mean_of(scores: dict[str, dict[int, float]], configs: Sequence[str]) -> dict[int, float]:
    return mean_over_configs([scores.get(config_id, {}) for config_id in configs])


def _spread(own: dict[int, float], others: dict[int, float]) -> float:
    differences = [own[each] - others[each] for each in sorted(own.keys() & others.keys())]
    return float(np.std(differences, ddof=1)) if len(differences) > 1 else math.nan


def resolution_texts(found: Resolution | None, command: str, *, difference: float = SMALLEST_EFFECT) -> list[str]:
    """Describe the detectable differences with the study's seeds, for the result table, the report and MLflow.

    Args:
        found: study resolution.
        command: command to plan the number of seeds.
        difference: difference of interest.
    """
    if found is None:
        return []
    if not found.spreads:
        return [
            f"No difference is detectable with {counted(found.seeds, 'paired seed')}: one seed shows no spread. Only "
            "more seeds can settle this."
        ]
    texts = [_detectable_text(found)]
    unsettled = found.unsettled(difference)
    if unsettled:
        named = unsettled[:_MOST_NAMED] + (
            [f"{len(unsettled) - _MOST_NAMED} more"] if len(unsettled) > _MOST_NAMED else []
        )
        texts.append(
            f"Not settled to ±{difference:g}: {listed(named)}. Only more seeds{_beyond_seeds(found)} can settle this: "
            f"{seeds_in_words(found, difference)} (`{command}`)."
        )
    return texts


def _beyond_seeds(found: Resolution) -> str:
    return ", and more searches per method," if found.over_searches else ""


def _detectable_text(found: Resolution) -> str:
    tests, size = len(found.compared), f"{found.split} {found.objective}"
    single, all_of_them = (found.detectable(corrected=corrected) for corrected in (False, True))
    few, few_after = found.too_few(corrected=False), found.too_few(corrected=True)
    spread, seeds = spread_in_words(found), counted(found.seeds, "paired seed")
    after = "" if tests == 1 else f"; {format_number(all_of_them, NETWORK_PLACES)} {_after_holm(tests)}"
    if few:
        text = f"No difference is detectable with {seeds}, however large: {few}, by {spread}."
        text += f" A{_after_holm(tests)[1:]}, {few_after}." if tests > 1 else ""
    else:
        text = (
            f"Least detectable difference in {size} at n = {found.seeds}: {format_number(single, NETWORK_PLACES)} "
            f"(power {POWER:g}, two-sided level {LEVEL:g}{'' if few_after else after}), by {spread}."
        )
        text += f" None is detectable {_after_holm(tests)}: {few_after}." if few_after else ""
    return text + (" It holds for the configs found: the luck of searches comes on top." if found.over_searches else "")


def _after_holm(tests: int) -> str:
    return f"after Holm's correction for {tests} comparisons"


def _level(tests: int) -> str:
    return f"the level {LEVEL:g}" if tests == 1 else f"{LEVEL:g}/{tests}"


def spread_in_words(found: Resolution) -> str:
    """Describe the spread of a study with a known spread, with the range over comparisons."""
    spreads = [format_number(each, NETWORK_PLACES) for each in (found.spread, found.spreads[0], found.spreads[-1])]
    if len(found.spreads) == 1:
        return f"the standard deviation of the paired differences, {spreads[0]}"
    return (
        f"the median standard deviation of {len(found.spreads)} paired differences, {spreads[0]} "
        f"({spreads[1]} to {spreads[2]})"
    )


def seeds_in_words(found: Resolution, difference: float, *, power: float = POWER) -> str:
    """Describe the seeds needed for a difference, alone and after Holm's correction."""
    alone, after = (found.needed(difference, corrected=corrected, power=power) for corrected in (False, True))
    if alone is None:
        return f"a difference of {difference:g} needs more seeds than any study can have"
    words = f"{alone:,} seeds show a difference of {difference:g} with power {power:g}"
    if len(found.compared) > 1:
        words += f", {'far more' if after is None else f'{after:,}'} after Holm's correction"
    return words


def _finite(size: float) -> float | None:
    return size if math.isfinite(size) else None
