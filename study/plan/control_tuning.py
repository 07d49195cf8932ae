"""Trials that tune the temperature of the control `kd` on the validation split before a confirmation.

An adapter with tuned settings could beat distillation at a default temperature only because of the tuning. The
control `kd` is therefore tuned as well, over a grid covering the temperature range of the search spaces. All
temperatures use the seeds of the control's own trials, so differences between temperatures are paired by seed. The
temperature is tuned on the schedule of the search, like the configs of the search, even if confirmed trials have more
epochs.
"""

from collections.abc import Iterator
from typing import Final

from study.plan.methods import BASELINE
from study.plan.plan import StudyPlan
from study.plan.stages import PlannedTrial
from trainables.spec.trial import TrialConfig

# Powers of two from no softening to the upper bound of the spaces. With a finer grid, noise would pick the best.
TEMPERATURES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)


def tuned_configs(plan: StudyPlan) -> tuple[TrialConfig, ...]:
    """Return `kd` configs at all temperatures of the grid, the control's own temperature first.

    Returns:
        An empty tuple if there is nothing to tune: the study has no confirmation or no control `kd`, compares methods,
        or has a fixed temperature.
    """
    if plan.confirmation is None or plan.compared or BASELINE not in plan.controls or "temperature" in plan.overrides:
        return ()
    control = plan.control_config(BASELINE)
    others = (TrialConfig(**{**control.model_dump(), "temperature": each}) for each in TEMPERATURES)
    return (control, *(config for config in others if config.temperature != control.temperature))


def tuning_trials(plan: StudyPlan) -> Iterator[PlannedTrial]:
    """Yield trials at all temperatures except the control's own, which has already run, seed by seed."""
    for replicate in range(1, plan.sure_replicates + 1):
        for config in tuned_configs(plan)[1:]:
            yield PlannedTrial("tune", config.with_seeds(plan.seed, replicate), replicate)
