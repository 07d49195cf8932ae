"""The stages of a study, and trials that are planned before any result."""

from typing import Literal, NamedTuple

from trainables.spec.trial import TrialConfig

Stage = Literal["search", "control", "replicate", "tune", "confirm"]


class PlannedTrial(NamedTuple):
    """A trial that does not depend on any result."""

    stage: Stage
    config: TrialConfig
    replicate: int
