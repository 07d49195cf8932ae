"""The temperature of the control `kd`, tuned on the validation split before a confirmation compares with it.

A search that tunes an adapter and then beats distillation at a default temperature has shown what tuning does. So `kd`
has a small search of its own: a grid over the range in which the spaces search temperatures, on the seeds on which the
control ran anyway, so that temperatures are compared by seed.
"""

from collections.abc import Iterator
from typing import Final

from study.plan.methods import BASELINE
from study.plan.plan import StudyPlan
from study.plan.stages import PlannedTrial
from trainables.spec.trial import TrialConfig

# By doubling from where nothing is softened to where the spaces stop: the best of a finer grid would be luck's.
TEMPERATURES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)


def tuned_configs(plan: StudyPlan) -> tuple[TrialConfig, ...]:
    """`kd` at every temperature that is tried, the control's own first; none where there is nothing to tune.

    That is a study that is not confirmed, has no such control, tunes its methods itself, or was given a temperature.
    """
    if plan.confirmation is None or plan.compared or BASELINE not in plan.controls or "temperature" in plan.overrides:
        return ()
    control = plan.control_config(BASELINE)
    others = (TrialConfig(**{**control.model_dump(), "temperature": each}) for each in TEMPERATURES)
    return (control, *(config for config in others if config.temperature != control.temperature))


def tuning_trials(plan: StudyPlan) -> Iterator[PlannedTrial]:
    """Those temperatures that did not run as the control, seed by seed."""
    for replicate in range(1, plan.replicates + 1):
        for config in tuned_configs(plan)[1:]:
            yield PlannedTrial("tune", config.with_seeds(plan.seed, replicate), replicate)
