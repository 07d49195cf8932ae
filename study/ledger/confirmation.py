"""A confirmation as the journal holds it: the configs that were chosen, and why."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from study.plan.confirmation import ConfirmationRequest
from study.plan.stages import PlannedTrial
from trainables.spec.trial import TrialConfig


class Choice(BaseModel):
    """A config that is confirmed, and why.

    Args:
        label: what tables call it.
        config: the config, with the seeds of whatever trial it was found in.
        rank: its place by the bound, from 1; None for what is there beside the chosen ones.
        control: the control that it is, if it is one.
        winner: whether its one score was the best of the search.
        search_score: the validation accuracy that it had when the choice was made.
        bound: what the choice was made by: `value`, `low`, `n` and `method`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    config: TrialConfig
    rank: int | None = None
    control: str | None = None
    winner: bool = False
    search_score: float | None = None
    bound: dict[str, Any] | None = None

    def as_row(self) -> dict[str, Any]:
        """What `analysis.questions.confirmation.summarise_confirmation` wants to know."""
        return {**self.model_dump(exclude={"config"}), "config_id": self.config.config_id}


class Confirmation(BaseModel):
    """What is confirmed, as the journal holds it from before the first trial on.

    Args:
        request: what was asked for.
        first_replicate: number of the first seed; no trial before had it or a later one.
        choices: the configs, each once.
        chosen_at: seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: ConfirmationRequest
    first_replicate: int
    choices: tuple[Choice, ...]
    chosen_at: float

    @property
    def size(self) -> int:
        """How many trials it has."""
        return self.request.seeds * len(self.choices)

    def is_first_choice(self, config: TrialConfig) -> bool:
        """Whether a config is the best of the choices."""
        return any(choice.rank == 1 and choice.config.config_id == config.config_id for choice in self.choices)

    def trials(self, study_seed: int) -> Iterator[PlannedTrial]:
        """All of them, seed by seed, so that one that is stopped has complete pairs."""
        for replicate in range(self.first_replicate, self.first_replicate + self.request.seeds):
            for choice in self.choices:
                yield PlannedTrial("confirm", choice.config.with_seeds(study_seed, replicate), replicate)
