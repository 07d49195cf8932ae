"""Stages of a study, and trials planned in advance."""

from typing import Literal, NamedTuple

from trainables.spec.trial import TrialConfig

Stage = Literal["search", "control", "replicate", "tune", "confirm"]


class PlannedTrial(NamedTuple):
    """Trial that can be started without a proposal from a sampler."""

    stage: Stage
    config: TrialConfig
    replicate: int
