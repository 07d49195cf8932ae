"""A confirmation as stored in the journal: the chosen configs and the reason for each choice."""

from collections.abc import Callable, Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from study.plan.confirmation import ConfirmationRequest
from study.plan.stages import PlannedTrial
from trainables.spec.trial import TrialConfig


class Choice(BaseModel):
    """One confirmed config and the reason for choosing it.

    Args:
        label: config name in tables.
        config: chosen config, with the seeds of the trial in which it was found. The number of epochs is the
            confirmation's, which may differ from the number of epochs behind `search_score` and `bound`.
        rank: rank by lower bound, from 1. None for controls and other additional configs.
        control: control name, if the config is a control.
        winner: whether the config had the best single score in the search.
        search_score: validation accuracy at the time of choice.
        bound: estimate used for the ranking, with the keys `value`, `low`, `n` and `method`.
        config_id: config identifier for records and results. Empty in journals from earlier versions.
        method: row name of the method, if each method was searched several times; else empty.
        searches: numbers of the method's searches, from 1, with this config as their best. Empty for one search per
            method, and in journals from earlier versions, which confirmed only the best config of all searches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    config: TrialConfig
    rank: int | None = None
    control: str | None = None
    winner: bool = False
    search_score: float | None = None
    bound: dict[str, Any] | None = None
    config_id: str = ""
    method: str = ""
    searches: tuple[int, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """Return the choice as a row for `analysis.questions.confirmation.summarise_confirmation`."""
        return self.model_dump(exclude={"config"})

    def trained_for(self, epochs: int) -> Self:
        """Return the choice with another number of training epochs, and thus another config identifier."""
        if epochs == self.config.epochs:
            return self
        return self.model_copy(update={"config": TrialConfig(**{**self.config.model_dump(), "epochs": epochs})})


class Confirmation(BaseModel):
    """A confirmation, written to the journal before the first confirmation trial starts.

    Args:
        request: number of configs and seeds requested.
        first_replicate: replicate number of the first seed. All earlier trials in the study have lower numbers.
        choices: chosen configs, without duplicates.
        chosen_at: time of the choice in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: ConfirmationRequest
    first_replicate: int
    choices: tuple[Choice, ...]
    chosen_at: float

    def with_ids(self, id_of: Callable[[TrialConfig], str]) -> Self:
        """Return a copy in which every choice has an identifier.

        Args:
            id_of: function from a config to an identifier.
        """
        named = (
            choice if choice.config_id else choice.model_copy(update={"config_id": id_of(choice.config)})
            for choice in self.choices
        )
        return self.model_copy(update={"choices": tuple(named)})

    @property
    def size(self) -> int:
        """Number of trials in the confirmation."""
        return self.request.seeds * len(self.choices)

    def trials(self, study_seed: int) -> Iterator[PlannedTrial]:
        """Yield all trials, one seed after another, so an interrupted confirmation still has complete pairs.

        Teachers and splits take turns, and a seed has the same ones in every config.
        """
        for place in range(self.request.seeds):
            replicate, (teacher, split) = self.first_replicate + place, self.request.cell_of(place)
            for choice in self.choices:
                config = choice.config.with_seeds(study_seed, replicate).with_numbers(teacher=teacher, split=split)
                yield PlannedTrial("confirm", config, replicate)
