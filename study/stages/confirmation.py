"""Last study stage: train the best configs and the controls on fresh seeds, and read the test split once.

The configs are chosen after all other trials have ended, by a lower bound on a config's mean score
(`study.stages.choosing`). The choice is written to the journal before the first confirmation trial, and never changes
afterwards. A second choice could be influenced by test results. The test split would become another validation split.

A confirmation with `--seeds auto` adds seeds to the same configs until each comparison is decided. The stopping rule is
recorded before the first trial and accounts for all looks at the test split (`study.ledger.sequential`).
"""

from typing import TYPE_CHECKING, Final

from study.ledger.budget import searched_in_all
from study.ledger.confirmation import Confirmation
from study.ledger.promising import promising_configs
from study.plan.confirmation import (
    DEFAULT_CONFIGS,
    DEFAULT_SEEDS,
    NOT_GIVEN,
    ConfirmationRequest,
    Factors,
    SeedsAsked,
    request_of,
)
from trainables.display.numbers import counted
from trainables.process.errors import UsageError

if TYPE_CHECKING:
    from study.ledger.ledger import StudyLedger
    from study.plan.plan import StudyPlan


_LEAVE_OUT: Final = (
    "Leave out --confirm, --seeds and --confirm-epochs to continue this confirmation or show it again, or start a new "
    "study (with another --seed)."
)


def describe_unfinished(ledger: "StudyLedger") -> str | None:
    """Describe the unfinished trials before the confirmation. Return None if all have ended."""
    plan = ledger.plan
    begun = [len(ledger.in_stage(stage)) for stage in ("search", "control", "replicate")]
    controls = sum(1 for _ in plan.control_trials())
    repeated = plan.replicates * len(promising_configs(ledger)) if plan.replicates_detect is None else 0
    due = [searched_in_all(plan, ledger.in_stage("search")), controls, repeated]
    before = [entry for entry in ledger.entries.values() if entry.stage not in ("tune", "confirm")]
    all_ended = all(entry.status is not None for entry in before)
    if plan.replicates_detect is not None:
        all_ended = all_ended and (progress := ledger.repetition_progress) is not None and progress.complete
    if all_ended and all(count >= needed for count, needed in zip(begun, due, strict=True)):
        return None
    ended = sum(entry.status is not None for entry in before)
    return f"{ended} of {plan.total_trials} trials have ended"


def check_same_request(
    plan: "StudyPlan",
    recorded: Confirmation,
    configs: int | None,
    seeds: SeedsAsked | None,
    epochs: int | None = None,
    factors: Factors = NOT_GIVEN,
) -> None:
    """Check that the requested counts match an already chosen confirmation.

    Raises:
        UsageError: the counts differ.
    """
    old = recorded.request
    known = plan.base.epochs if old.epochs is None else old.epochs
    same = (configs is None or configs == old.configs) and (seeds is None or seeds == old.asked)
    same_epochs = epochs is None or epochs == known
    asked = factors.or_else(old.factors)
    if same and same_epochs and asked == old.factors:
        return
    if same and not same_epochs:
        raise UsageError(
            f"study {plan.name!r} already has a confirmation, of trials of {known} epochs, but --confirm-epochs is "
            f"{epochs}. The test split is read for one choice only, on one schedule: {_LEAVE_OUT}"
        )
    if same:
        raise UsageError(
            f"study {plan.name!r} already has a confirmation with {_in_words(old.factors)}, but "
            f"{_in_words(asked)} were requested, and its trials are planned for those. Leave out --teachers and "
            "--splits to continue this confirmation or show it again, or start a new study (with another --seed)."
        )
    raise UsageError(
        f"study {plan.name!r} already has a confirmation: {old.configs} config(s) on {old.asked} seeds, but "
        f"{old.configs if configs is None else configs} on {old.asked if seeds is None else seeds} were requested. The "
        "test split is read for one choice only: a second choice could depend on the first result, which would make "
        f"the test split a second validation split. {_LEAVE_OUT}"
    )


def _in_words(factors: Factors) -> str:
    return f"{counted(factors.teachers or 1, 'teacher')} and {counted(factors.splits or 1, 'split')}"


def confirmation_request(
    ledger: "StudyLedger",
    configs: int | None,
    seeds: SeedsAsked | None,
    epochs: int | None = None,
    factors: Factors = NOT_GIVEN,
) -> ConfirmationRequest:
    """Return the confirmation request for a finished study, checked against the available configs.

    Args:
        ledger: study ledger.
        configs: requested number of configs. None for the plan's number. Without one, `DEFAULT_CONFIGS`, or all
            compared methods.
        seeds: requested number of seeds. None for the plan's number. Without one, `DEFAULT_SEEDS`.
        epochs: requested number of epochs per trial. None for the plan's number.
        factors: requested numbers of teachers and splits. None for the plan's number. Without one, 1.

    Raises:
        UsageError: the study has not finished, has too few configs, or was confirmed with other counts.
    """
    from study.stages.choosing import count_candidates

    plan, planned = ledger.plan, ledger.plan.confirmation
    if ledger.confirmation is not None:
        check_same_request(plan, ledger.confirmation, configs, seeds, epochs, factors)
        return ledger.confirmation.request
    left = describe_unfinished(ledger)
    if left is not None:
        raise UsageError(
            f"study {plan.name!r} has not finished: {left}, and the configs to confirm are chosen from all of them. "
            "Resume it first (python -m study.launch --resume), with --confirm to confirm right afterwards"
        )
    available = count_candidates(ledger)
    if not available:
        raise UsageError(f"study {plan.name!r} has no config that finished on all its seeds: nothing to confirm")
    if configs is None:
        usual = available if plan.compared or plan.objectives else DEFAULT_CONFIGS  # the whole front
        configs = min(available, planned.configs if planned is not None else usual)
    if seeds is None:
        seeds = planned.asked if planned is not None else SeedsAsked(DEFAULT_SEEDS)
    if planned is not None:
        epochs = planned.epochs if epochs is None else epochs
        factors = factors.or_else(planned.factors)
    request = request_of(configs, seeds, epochs, factors)
    if configs > available:
        what = "methods in addition to ce and kd" if plan.compared else "configs"
        what += " on the front or within the limits" * bool(plan.objectives or plan.limits)
        raise UsageError(
            f"--confirm {configs}: only {available} {what} of study {plan.name!r} finished on all their seeds; give a "
            f"number up to {available}"
        )
    return request
