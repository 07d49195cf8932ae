"""How many trials and epochs a plan comes to."""

from typing import Final

from study.plan.confirmation import BESIDE
from study.plan.control_tuning import tuning_trials
from study.plan.plan import StudyPlan

_WINNER_AND_PUBLISHED: Final = 2


def most_configs(plan: StudyPlan) -> int:
    """How many configs a confirmation of that study can have at most, beside the controls."""
    if plan.compared:
        return sum(method.name not in BESIDE for method in plan.compared)
    return plan.trials


def check_request(plan: StudyPlan) -> None:
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


def expected_size(plan: StudyPlan) -> int:
    """Trials of the plan's confirmation before anything was chosen: at most so many.

    The winner of the search may be among the chosen ones, and a control may be one of them.
    """
    if plan.confirmation is None:
        return 0
    beside = len(plan.controls) + _WINNER_AND_PUBLISHED
    if plan.compared:
        beside = sum(method.name in BESIDE for method in plan.compared)
    return plan.confirmation.seeds * (plan.confirmation.configs + beside)


def confirm_trials(plan: StudyPlan) -> int:
    """Trials of the confirmation, if one is asked for, and of the tuning of its control.

    At most so many, as it is not known which they are.
    """
    return expected_size(plan) + sum(1 for _ in tuning_trials(plan))


def epochs_total(plan: StudyPlan) -> int:
    """Passes over the training split if no trial is stopped early."""
    return (plan.total_trials + confirm_trials(plan)) * plan.base.epochs
