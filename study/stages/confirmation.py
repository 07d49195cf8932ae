"""The last stage of a study: the best configs and the controls again, on fresh seeds, with the test split read once.

What is confirmed is chosen when everything before has ended, by a lower bound of what a config reaches on average
(`study.stages.choosing`), and entered into the journal before the first of its trials begins. From then on
the choice stands: another one would be made by somebody who may know the test split, which would then be one more
validation split.
"""

from typing import TYPE_CHECKING

from study.ledger.confirmation import Confirmation
from study.plan.confirmation import DEFAULT_CONFIGS, DEFAULT_SEEDS, ConfirmationRequest, request_of
from study.stages.promising import promising_configs
from trainables.process.errors import UsageError

if TYPE_CHECKING:
    from study.ledger.ledger import StudyLedger
    from study.plan.plan import StudyPlan


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
    from study.stages.choosing import count_candidates

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
