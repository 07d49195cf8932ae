"""Number of trials and epochs in a plan."""

from typing import Final

from study.plan.confirmation import BESIDE
from study.plan.control_tuning import tuning_trials
from study.plan.plan import StudyPlan

_WINNER_AND_PUBLISHED: Final = 2


def most_configs(plan: StudyPlan) -> int:
    """Return the maximum number of configs a confirmation can choose, not counting the controls."""
    if plan.compared:
        return sum(method.name not in BESIDE for method in plan.compared)
    return plan.trials


def check_request(plan: StudyPlan) -> None:
    """Check that the study can provide as many configs as the confirmation requests.

    Raises:
        ValueError: the confirmation requests too many configs.
    """
    request, most = plan.confirmation, most_configs(plan)
    if request is None or request.configs <= most:
        return
    if plan.compared:
        there = f"{most} method(s) beside ce and kd, so --confirm is at most {most}" if most else "ce and kd alone"
        raise ValueError(f"the study compares {there}{'' if most else ', which leaves nothing to choose'}")
    raise ValueError(f"the search proposes {most} configs, so --confirm is at most {most}; or raise --trials")


def expected_size(plan: StudyPlan) -> int:
    """Return an upper bound on the number of confirmation trials, before configs are chosen.

    The bound may be too high because the search winner or a control may be among the chosen configs.
    """
    if plan.confirmation is None:
        return 0
    beside = len(plan.controls) + _WINNER_AND_PUBLISHED
    if plan.compared:
        beside = sum(method.name in BESIDE for method in plan.compared)
    return plan.confirmation.seeds * (plan.confirmation.configs + beside)


def confirm_trials(plan: StudyPlan) -> int:
    """Return an upper bound on the number of trials for the confirmation and for tuning the control `kd`."""
    return expected_size(plan) + sum(1 for _ in tuning_trials(plan))


def epochs_total(plan: StudyPlan) -> int:
    """Return the number of training epochs in all trials, if no trial is stopped early."""
    return (plan.total_trials + confirm_trials(plan)) * plan.base.epochs
