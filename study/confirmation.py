"""The last stage of a study: the best configs and the controls again, on fresh seeds, with the test split read once.

What is confirmed is chosen when everything before has ended, by a lower bound of what a config reaches on average
(`study.choosing`), and entered into the journal before the first of its trials begins. From then on
the choice stands: another one would be made by somebody who may know the test split, which would then be one more
validation split.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from study.comparison import BASELINE
from study.errors import StudyError, UsageError
from study.promising import promising_configs
from trainables.trial import TrialConfig

if TYPE_CHECKING:
    from study.ledger import StudyLedger, TrialEntry
    from study.plan import PlannedTrial, StudyPlan

DEFAULT_CONFIGS: Final = 3
DEFAULT_SEEDS: Final = 10
_MOST_SEEDS: Final = 10_000
_MOST_CONFIGS: Final = 1_000_000
PUBLISHED: Final = "pesf_kd as published"
BESIDE: Final = ("ce", BASELINE)  # of a comparison, confirmed whatever they reached
_WINNER_AND_PUBLISHED: Final = 2


class ConfirmationRequest(BaseModel):
    """What is asked of a confirmation.

    Args:
        configs: how many of the best; of a study that compares methods, how many methods beside `ce` and `kd`.
        seeds: fresh ones for each config. With one there is no interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    configs: int = Field(ge=1, le=_MOST_CONFIGS)
    seeds: int = Field(ge=2, le=_MOST_SEEDS)


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
        """What `analysis.confirmation.summarise_confirmation` wants to know."""
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

    def is_complete(self, ledger: "StudyLedger") -> bool:
        """Whether all of its trials have ended."""
        return sum(entry.status is not None for entry in ledger.in_stage("confirm")) >= self.size

    @property
    def size(self) -> int:
        """How many trials it has."""
        return self.request.seeds * len(self.choices)

    def is_first_choice(self, config: TrialConfig) -> bool:
        """Whether a config is the best of the choices."""
        return any(choice.rank == 1 and choice.config.config_id == config.config_id for choice in self.choices)

    def trials(self, study_seed: int) -> "Iterator[PlannedTrial]":
        """All of them, seed by seed, so that one that is stopped has complete pairs."""
        from study.plan import PlannedTrial

        for replicate in range(self.first_replicate, self.first_replicate + self.request.seeds):
            for choice in self.choices:
                yield PlannedTrial("confirm", choice.config.with_seeds(study_seed, replicate), replicate)


def student_path(plan: "StudyPlan", trial_id: str) -> Path:
    """Where the student of a confirmed trial is kept."""
    return plan.directory / "students" / f"{trial_id}.safetensors"


def first_confirmed(ledger: "StudyLedger") -> "TrialEntry | None":
    """The trial whose student a confirmation hands on: of its first choice, the first seed that finished.

    Not the seed that did best on the test split, which would make a choice of that reading. A student that could not be
    kept gives way to the next seed's.

    Returns:
        None where no trial of the first choice finished.
    """
    chosen = ledger.confirmation
    if chosen is None:
        return None
    own = [entry for entry in ledger.in_stage("confirm") if chosen.is_first_choice(entry.config)]
    finished = sorted((entry for entry in own if entry.status == "finished"), key=lambda entry: entry.replicate)
    kept = (entry for entry in finished if student_path(ledger.plan, entry.trial_id).is_file())
    return next(kept, finished[0] if finished else None)


def most_configs(plan: "StudyPlan") -> int:
    """How many configs a confirmation of that study can have at most, beside the controls."""
    if plan.compared:
        return sum(method.name not in BESIDE for method in plan.compared)
    return plan.trials


def check_request(plan: "StudyPlan") -> None:
    """Check that a plan's study can find what its confirmation asks for.

    Raises:
        ValueError: it asks for more configs than there will be.
    """
    request, most = plan.confirmation, most_configs(plan)
    if request is None or request.configs <= most:
        return
    if plan.compared:
        there = f"{most} method(s) beside ce and kd, so --confirm is at most {most}" if most else "ce and kd alone"
        raise ValueError(f"the study compares {there}{'' if most else ', which leaves nothing to choose'}")
    raise ValueError(f"the search proposes {most} configs, so --confirm is at most {most}; or raise --trials")


def expected_size(plan: "StudyPlan") -> int:
    """Trials of the plan's confirmation before anything was chosen: at most so many.

    The winner of the search may be among the chosen ones, and a control may be one of them.
    """
    if plan.confirmation is None:
        return 0
    beside = len(plan.controls) + _WINNER_AND_PUBLISHED
    if plan.compared:
        beside = sum(method.name in BESIDE for method in plan.compared)
    return plan.confirmation.seeds * (plan.confirmation.configs + beside)


def what_is_left(ledger: "StudyLedger") -> str | None:
    """What of the study, its confirmation aside, has not run yet, in words; None if all of it has."""
    plan = ledger.plan
    begun = [len(ledger.in_stage(stage)) for stage in ("search", "control", "replicate")]
    controls = sum(1 for _ in plan.control_trials())
    due = [plan.searched, controls, plan.replicates * len(promising_configs(ledger))]
    before = [entry for entry in ledger.entries.values() if entry.stage not in ("tune", "confirm")]
    all_ended = all(entry.status is not None for entry in before)
    if all_ended and all(count >= needed for count, needed in zip(begun, due, strict=True)):
        return None
    ended = sum(entry.status is not None for entry in before)
    return f"{ended} of {plan.total_trials} trials have ended"


def check_journal(ledger: "StudyLedger") -> None:
    """Check that the choice is known if any of its trials is.

    Raises:
        StudyError: the line with the choice is damaged.
    """
    if ledger.confirmation is None and ledger.in_stage("confirm"):
        raise StudyError(
            f"the line of {ledger.plan.directory / 'journal.jsonl'} that says what is confirmed is damaged, and the "
            "test split has been read for it: restore the file from a copy"
        )


def request_of(configs: int, seeds: int) -> ConfirmationRequest:
    """The request with these counts, which the command line gave.

    Raises:
        UsageError: naming the option that is out of its bounds.
    """
    if not 1 <= configs <= _MOST_CONFIGS:
        raise UsageError(
            f"--confirm {configs}: confirm at least one config (at most {_MOST_CONFIGS:,}), or leave it out for none"
        )
    if not 2 <= seeds <= _MOST_SEEDS:
        why = "one seed has no interval and no test; " if seeds == 1 else ""
        raise UsageError(f"--seeds {seeds}: {why}give a number from 2 to {_MOST_SEEDS:,}, such as {DEFAULT_SEEDS}")
    return ConfirmationRequest(configs=configs, seeds=seeds)


def asked_again(plan: "StudyPlan", recorded: Confirmation, configs: int | None, seeds: int | None) -> None:
    """Check that a confirmation that was chosen already is not asked for with another choice.

    Raises:
        UsageError: it is.
    """
    old = recorded.request
    if (configs is None or configs == old.configs) and (seeds is None or seeds == old.seeds):
        return
    raise UsageError(
        f"study {plan.name!r} has its confirmation already: {old.configs} config(s) over {old.seeds} seeds, asked for "
        f"{old.configs if configs is None else configs} over {old.seeds if seeds is None else seeds}. The test split "
        "is read for one choice only: read for another one, made by somebody who may know the first result, it would "
        "be a second validation split. Leave out --confirm and --seeds to go on with it or to see it again, or start "
        "a new study (with another --seed)."
    )


def asked_confirmation(ledger: "StudyLedger", configs: int | None, seeds: int | None) -> ConfirmationRequest:
    """What a confirmation of a finished study is to be, checked against what the study has.

    Args:
        ledger: of the study.
        configs: as asked for; None for what the plan says, else for `DEFAULT_CONFIGS`, or all methods.
        seeds: the same.

    Raises:
        UsageError: the study has not finished, has fewer configs, or was confirmed with another choice.
    """
    from study.choosing import count_candidates

    plan, planned = ledger.plan, ledger.plan.confirmation
    if ledger.confirmation is not None:
        asked_again(plan, ledger.confirmation, configs, seeds)
        return ledger.confirmation.request
    left = what_is_left(ledger)
    if left is not None:
        raise UsageError(
            f"study {plan.name!r} has not finished: {left}, and what is confirmed is chosen from all of them. Go on "
            "with it first (python -m study.launch --resume), which confirms right afterwards with --confirm"
        )
    there = count_candidates(ledger)
    if not there:
        raise UsageError(f"study {plan.name!r} has no config that finished on all of its seeds: nothing to confirm")
    if configs is None:
        usual = there if plan.compared else DEFAULT_CONFIGS
        configs = min(there, planned.configs if planned is not None else usual)
    if seeds is None:
        seeds = planned.seeds if planned is not None else DEFAULT_SEEDS
    request = request_of(configs, seeds)
    if configs > there:
        what = "methods beside ce and kd" if plan.compared else "configs"
        raise UsageError(
            f"--confirm {configs}: of study {plan.name!r} {there} {what} finished on all of their seeds, so at most "
            f"{there} can be confirmed"
        )
    return request
