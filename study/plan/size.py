"""Number of trials and epochs in a plan."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from study.plan.confirmation import ALWAYS_CONFIRMED, ConfirmationRequest
from study.plan.control_tuning import tuning_trials
from study.plan.plan import StudyPlan
from trainables.data.image_folder import list_image_folder
from trainables.data.own.opened import own_info
from trainables.spec.bounds import SEEDS
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.own_data import is_own_data

_PUBLISHED: Final = 1
_WINNER: Final = 1


def most_configs(plan: StudyPlan) -> int:
    """Return the maximum number of configs in a confirmation, not counting the controls."""
    if plan.compared:
        return sum(method.name not in ALWAYS_CONFIRMED for method in plan.compared)
    return plan.trials


def check_request(plan: StudyPlan) -> None:
    """Check that the study can provide as many configs as the confirmation requests.

    Raises:
        ValueError: the confirmation requests too many configs, or several teachers or splits where several are
            impossible.
    """
    request, most = plan.confirmation, most_configs(plan)
    if request is None:
        return
    if request.splits > 1:
        _check_splits(plan, request)
    if request.teachers > 1:
        _check_teachers(plan, request.teachers)
    if request.configs <= most:
        return
    if plan.compared:
        if not most:
            raise ValueError("the study compares only ce and kd, so --confirm has nothing to choose: leave it out")
        raise ValueError(
            f"the study compares {most} method(s) in addition to ce and kd: lower --confirm to {most} or less"
        )
    raise ValueError(f"the search proposes {most} configs: lower --confirm to {most} or less, or raise --trials")


def _check_teachers(plan: StudyPlan, teachers: int) -> None:
    if plan.base.teacher_digest:
        raise ValueError(
            f"--teachers {teachers} trains teachers from several seeds, but the study's teacher is one given "
            "checkpoint: leave out --teachers, or start a study without --teacher-checkpoint, whose teachers are "
            "trained by --teacher-recipe"
        )
    if not plan.teachers:
        raise ValueError(f"--teachers {teachers}: no method of the study uses a trained teacher, so leave it out")
    first = plan.example_config.teacher_seed
    if first + teachers > SEEDS:
        raise ValueError(f"--teachers {teachers}: teacher_seed {first} is too large to count on from")


def _check_splits(plan: StudyPlan, request: ConfirmationRequest) -> None:
    name, flag = plan.base.dataset, f"--splits {request.splits}"
    if plan.base.teacher_digest:
        raise ValueError(
            f"{flag}: a given checkpoint may have been trained on samples that another split validates with, so leave "
            "out --splits, or start a study without --teacher-checkpoint, whose teachers are trained on each split"
        )
    folder = Path(name.removeprefix(FOLDER_PREFIX))
    # The images may be gone when a plan is read again.
    has_validation = name.startswith(FOLDER_PREFIX) and folder.is_dir() and bool(list_image_folder(folder).validation)
    if is_own_data(name):
        with suppress(ValueError):
            has_validation = "validation" in own_info(name).sizes
    if has_validation:
        raise ValueError(f"{flag}: {name} has a validation part, so no split is drawn that could change: leave it out")


def expected_size(plan: StudyPlan) -> int:
    """Return an upper bound on the number of confirmation trials, before configs are chosen.

    The bound may be too high because the search winner or a control may be among the chosen configs, and because
    several searches for one method may find the same config.
    """
    if plan.confirmation is None:
        return 0
    students = min(len(plan.students), plan.confirmation.configs + _WINNER)  # students of the chosen configs
    additional = (len(plan.controls) + _PUBLISHED) * students + _WINNER
    if plan.compared:
        additional = sum(method.name in ALWAYS_CONFIRMED for method in plan.compared)
    configs_of_each = plan.searches_per_method if plan.compared and plan.searches else 1
    return plan.confirmation.seeds * (plan.confirmation.configs + additional) * configs_of_each


def confirm_trials(plan: StudyPlan) -> int:
    """Return an upper bound on the number of trials for the confirmation and for tuning the control `kd`."""
    return expected_size(plan) + sum(1 for _ in tuning_trials(plan))


def epochs_total(plan: StudyPlan) -> int:
    """Return the number of training epochs in all trials, if no trial is stopped early."""
    short = plan.total_trials + sum(1 for _ in tuning_trials(plan))
    return short * plan.base.epochs + expected_size(plan) * plan.confirm_epochs
