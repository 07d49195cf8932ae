"""Whether a study's networks take its data and go with its methods, tried before any work.

torch is imported inside the function: a plan is resolved without it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import UsageError
from trainables.data.registry import dataset_info
from trainables.modality import is_text
from trainables.models.names import is_pretrained_text_name
from trainables.trial import TrialConfig

if TYPE_CHECKING:
    from study.plan import StudyPlan


def check_networks(plan: "StudyPlan", *, fetched_later: bool = False) -> None:
    """Check that student and teacher take the dataset's samples, and that each method can make a step with them.

    Args:
        plan: the study.
        fetched_later: whether models of the Hub may be missing, as in a dry run of a study that will fetch them.

    Raises:
        UsageError: naming the flag, the reason and a network that fits.
    """
    from trainables.shape_check import ShapeError
    from trainables.threads import one_thread

    try:
        with one_thread():  # two samples on several threads took ten times as long on a busy machine
            if is_text(plan.base.dataset):
                _check_text(plan, fetched_later=fetched_later)
            else:
                _check_images(plan)
    except ShapeError as error:
        raise UsageError(str(error)) from None


def _configs(plan: "StudyPlan") -> list[TrialConfig]:
    """A trial of each method of the study."""
    if plan.compared:
        return [plan.configure(method.fields) for method in plan.compared]
    others = [plan.control_config(method) for method in plan.controls if method != plan.base.method]
    return [plan.example_config, *others]


def _check_images(plan: "StudyPlan") -> None:
    from trainables.shape_check import Wanted, check_method, check_network, check_samples

    configs, base = _configs(plan), plan.base
    info, batch_size = dataset_info(base.dataset), configs[0].batch_size
    several = plan.workers_per_trial > 1
    check_samples(info, batch_size)
    check_network(base.student, Wanted(info, batch_size, shares_norms=several), flag="--student")
    learns = any(each.method_entry.companion == "teacher" for each in configs)
    if plan.teachers or learns:
        given = bool(base.teacher_digest)
        wanted = Wanted(info, batch_size if learns else 2, trains=learns or not given, shares_norms=learns and several)
        check_network(base.teacher, wanted, flag="--teacher", given=given)
    for config in configs:
        check_method(config, info, flag="--methods" if plan.compared else "--method")


def _check_text(plan: "StudyPlan", *, fetched_later: bool) -> None:
    from trainables.shape_check import check_samples, check_text_method, check_text_network

    configs, base = _configs(plan), plan.base
    info = dataset_info(base.dataset)
    check_samples(info, configs[0].batch_size)
    names = {"--student": base.student} | ({"--teacher": base.teacher} if plan.teachers else {})
    if fetched_later and any(map(is_pretrained_text_name, names.values())):
        return
    # A teacher that was given was checked when it was read, and its folder may be gone since.
    if base.teacher_digest and is_pretrained_text_name(base.teacher) and not Path(base.teacher).is_dir():
        return
    for flag, name in names.items():
        check_text_network(name, base.teacher, info, layers=base.student_layers, flag=flag)
    for config in configs:
        check_text_method(config, info, flag="--methods" if plan.compared else "--method")
