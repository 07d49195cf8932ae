"""Answer the question behind the space `adapter_why`: does learning the adapter help, or only the softening?

PESF-KD is compared with each control in the space, paired by replicate, with Holm's correction over the controls. If
each method has the best configs from several searches, intervals and tests are over searches and seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from analysis.questions.searches import NestedScores, of_each_search
from analysis.reading.scores import mean_over_configs, scores_by_method
from analysis.reading.trials import (
    CONFIRM,
    REPEATED,
    Split,
    method_names,
    numbers,
    objective,
    objective_measure,
    select,
    within_reach,
)
from analysis.statistics.estimates import Estimate, holm, paired_difference
from analysis.statistics.power import LEVEL
from trainables.display.numbers import format_difference, format_number, listed, p_clause
from trainables.spec.measures import ADAPTER_SHIFT

SPACE: Final = "adapter_why"
LEARNED: Final = "pesf_kd"
SOFTENED: Final = ("kd", "dtkd")  # controls without an adapter
FIXED: Final = ("pesf_kd+frozen", "pesf_kd+first")  # controls with an adapter independent of the student


@dataclass(frozen=True)
class LearnedAgainst:
    """PESF-KD less one control.

    Args:
        control: control name.
        difference: paired score difference, with the uncorrected p-value.
        corrected_p: p-value corrected over the controls.
    """

    control: str
    difference: Estimate
    corrected_p: float

    @property
    def sign(self) -> int:
        """1 if PESF-KD is better by the corrected p-value, -1 if it is worse, 0 if neither is shown."""
        return int(np.sign(self.difference.value)) if self.corrected_p < LEVEL else 0


def learned_against_controls(trials: pa.Table, *, confirmed: bool = False, seed: int = 0) -> list[LearnedAgainst]:
    """Compare PESF-KD with all controls on the same replicates.

    Args:
        trials: study trials over the space.
        confirmed: compare test scores of confirmed trials, instead of validation scores of repeated trials.
        seed: random seed for the intervals and the tests.

    Returns:
        One comparison for each control with at least two replicates in common, in table order. If methods have the best
        configs from several searches, the comparison is over searches and seeds.
    """
    split: Split = "test" if confirmed else "validation"
    stages: tuple[str, ...] = (CONFIRM,) if confirmed else REPEATED
    measure = objective_measure(select(trials, stages=stages))
    configs = scores_by_method(trials, stages, split)
    searches = max((len(each) for each in configs.values()), default=0)
    averaged = {name: of_each_search([*each], searches) for name, each in configs.items()}
    nested = NestedScores({key: own for each in configs.values() for key, own in each.items()}, averaged)
    own = mean_over_configs(configs.get(LEARNED, {}).values())
    found = []
    for control in configs:
        theirs = mean_over_configs(configs[control].values())
        shared = sorted(own.keys() & theirs.keys())
        if len(shared) < 2 or control not in (*SOFTENED, *FIXED, *_averages(configs)):
            continue
        pair = paired_difference([own[r] for r in shared], [theirs[r] for r in shared], seed=seed)
        if searches > 1:  # include the variation between searches
            pair = nested.difference(LEARNED, control)
        found.append(LearnedAgainst(control, within_reach(pair, measure), float("nan")))
    p_values = [float("nan") if each.difference.p_value is None else each.difference.p_value for each in found]
    return [replace(each, corrected_p=p) for each, p in zip(found, holm(p_values), strict=True)]


def adapter_why_texts(trials: pa.Table, *, confirmed: bool = False, seed: int = 0) -> list[str]:
    """Return the paragraph on the space's question; empty without a control to compare with.

    Args:
        trials: see `learned_against_controls`.
        confirmed: see `learned_against_controls`.
        seed: see `learned_against_controls`.
    """
    found = {each.control: each for each in learned_against_controls(trials, confirmed=confirmed, seed=seed)}
    if not found:
        return []
    words = f"{'test' if confirmed else 'validation'} {objective(trials)}"
    shown = [
        f"{each.control} {format_difference(each.difference)}{p_clause(each.corrected_p)} (n = {each.difference.n})"
        for each in found.values()
    ]
    return [
        f"{_verdict(found)} PESF-KD less each control, in {words} by seed, p by Holm over {len(found)} controls: "
        f"{'; '.join(shown)}. {_moved(trials, confirmed=confirmed)}".strip()
    ]


def _verdict(found: Mapping[str, LearnedAgainst]) -> str:
    softened = [found[name] for name in SOFTENED if name in found]
    fixed = [found[name] for name in FIXED if name in found]
    worse = [each.control for each in (*softened, *fixed) if each.sign < 0]
    if worse:
        return f"Learning the adapter with the student does not help here: PESF-KD is worse than {listed(worse)}."
    if not softened or not all(each.sign > 0 for each in softened):
        open_ = [each.control for each in softened if each.sign <= 0] or list(SOFTENED)
        return (
            "These trials do not show that learning the adapter helps more than softening the teacher: PESF-KD is not "
            f"distinguishable from {listed(open_)}."
        )
    above = listed([each.control for each in softened])
    equal = [each.control for each in fixed if each.sign == 0]
    if not fixed:
        return f"PESF-KD is better than {above}, which soften the teacher without an adapter. No fixed adapter was run."
    if equal:
        return (
            f"PESF-KD is better than {above}, which soften the teacher without an adapter, but not distinguishable "
            f"from {listed(equal)}. These trials do not show that the adapter has to learn with the student."
        )
    return f"Learning the adapter with the student helps: PESF-KD is better than {above} and than fixed adapters."


def _averages(names: Mapping[str, object]) -> list[str]:
    return [name for name in names if name.startswith(f"{LEARNED}+average-of-")]


def _moved(trials: pa.Table, *, confirmed: bool) -> str:
    rows = select(trials, stages=[CONFIRM] if confirmed else REPEATED)
    if ADAPTER_SHIFT not in rows.column_names or not rows.num_rows:
        return ""
    own = numbers(rows, ADAPTER_SHIFT)[np.array(method_names(rows), dtype=object) == LEARNED]
    own = own[np.isfinite(own)]
    if not len(own):
        return ""
    return (
        f"Training moved the sharpness of its adapted teacher by {format_number(float(own.mean()), 2)} nats on average."
    )
