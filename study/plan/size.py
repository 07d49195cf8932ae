"""Number of trials and epochs in a plan."""

from typing import Final

from study.plan.confirmation import ALWAYS_CONFIRMED
from study.plan.control_tuning import tuning_trials
from study.plan.plan import StudyPlan

_WINNER_AND_PUBLISHED: Final = 2


def most_configs(plan: StudyPlan) -> int:
    """Return the maximum number of configs a confirmation can choose, not counting the controls."""
    if plan.compared:
        return sum(method.name not in ALWAYS_CONFIRMED for method in plan.compared)
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
        if not most:
            raise ValueError("the study compares only ce and kd, so --confirm has nothing to choose: leave it out")
        raise ValueError(
            f"the study compares {most} method(s) in addition to ce and kd: lower --confirm to {most} or less"
        )
    raise ValueError(f"the search proposes {most} configs: lower --confirm to {most} or less, or raise --trials")


def expected_size(plan: StudyPlan) -> int:
    """Return an upper bound on the number of confirmation trials, before configs are chosen.

    The bound may be too high because the search winner or a control may be among the chosen configs, and because
    several searches of a method may find the same config.
    """
    if plan.confirmation is None:
        return 0
    additional = len(plan.controls) + _WINNER_AND_PUBLISHED
    if plan.compared:
        additional = sum(method.name in ALWAYS_CONFIRMED for method in plan.compared)
    configs_of_each = plan.searches_per_method if plan.compared and plan.searches else 1
    return plan.confirmation.seeds * (plan.confirmation.configs + additional) * configs_of_each


def confirm_trials(plan: StudyPlan) -> int:
    """Return an upper bound on the number of trials for the confirmation and for tuning the control `kd`."""
    return expected_size(plan) + sum(1 for _ in tuning_trials(plan))


def epochs_total(plan: StudyPlan) -> int:
    """Return the number of training epochs in all trials, if no trial is stopped early."""
    return (plan.total_trials + confirm_trials(plan)) * plan.base.epochs
