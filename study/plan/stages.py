"""Study stages, and trials planned in advance."""

from typing import Literal, NamedTuple

from trainables.spec.trial import TrialConfig

Stage = Literal["search", "control", "replicate", "tune", "confirm"]


class PlannedTrial(NamedTuple):
    """Trial that starts without a proposal from a sampler."""

    stage: Stage
    config: TrialConfig
    replicate: int
