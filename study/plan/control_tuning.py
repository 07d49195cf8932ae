"""Trials for tuning the temperature of the control `kd` on the validation split before a confirmation.

An adapter with tuned settings could beat distillation at a default temperature only because of the tuning. The control
`kd` is therefore tuned as well. The grid covers the temperature ranges of the search spaces and of the user's
`--search temperature=...`. With several students, the temperature is tuned for each of them. All temperatures use the
seeds of the control's own trials, so differences between temperatures are paired by seed. The temperature is tuned on
the search schedule, like the searched configs, even if confirmed trials have more epochs.
"""

from collections.abc import Iterator
from typing import Final

from study.plan.methods import BASELINE
from study.plan.plan import StudyPlan
from study.plan.stages import PlannedTrial
from trainables.spec.trial import TrialConfig

# Powers of two from no softening to the upper bound of the spaces. With a finer grid, noise would pick the best.
TEMPERATURES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
_MOST_TEMPERATURES: Final = 9


def temperatures_of(plan: StudyPlan) -> tuple[float, ...]:
    """Return the grid temperatures: `TEMPERATURES`, extended to the user's bounds, in the order of the bounds.

    Beyond `TEMPERATURES`, the grid has powers of two, and the bound itself. If there would be too many temperatures,
    the ratio between neighbours is doubled until there are few enough.
    """
    given = [float(value) for each in plan.given_bounds if each.field == "temperature" for value in each.extremes]
    if not given:
        return TEMPERATURES
    ratio, grid = 2.0, _continued(min(given), max(given), 2.0)
    while len(grid) > _MOST_TEMPERATURES:
        ratio *= 2
        grid = _continued(min(given), max(given), ratio)
    return grid


def _continued(low: float, high: float, ratio: float) -> tuple[float, ...]:
    """Return the grid, extended with temperatures at this ratio down to `low` and up to `high`."""
    first, last = TEMPERATURES[0], TEMPERATURES[-1]
    below = [low] if low < first else []
    above = [high] if high > last else []
    while (value := first / ratio ** len(below)) > low and below:
        below.append(value)
    while (value := last * ratio ** len(above)) < high and above:
        above.append(value)
    return tuple(sorted({*below, *TEMPERATURES, *above}))


def tuned_configs(plan: StudyPlan, student: str | None = None) -> tuple[TrialConfig, ...]:
    """Return `kd` configs at all grid temperatures, the control's own temperature first.

    Args:
        plan: study plan.
        student: one of several students. Default: the default point's student.

    Returns:
        An empty tuple if there is nothing to tune: the study has no confirmation or no control `kd`, compares methods,
        or has a fixed temperature.
    """
    if plan.confirmation is None or plan.compared or BASELINE not in plan.controls or "temperature" in plan.overrides:
        return ()
    control = plan.control_config(BASELINE, student)
    others = (TrialConfig(**{**control.model_dump(), "temperature": each}) for each in temperatures_of(plan))
    return (control, *(config for config in others if config.temperature != control.temperature))


def tuning_trials(plan: StudyPlan) -> Iterator[PlannedTrial]:
    """Yield trials at all temperatures except the control's own, which has already run, seed by seed."""
    for replicate in range(1, plan.sure_replicates + 1):
        for student in plan.students:
            for config in tuned_configs(plan, student)[1:]:
                yield PlannedTrial("tune", config.with_seeds(plan.seed, replicate), replicate)
