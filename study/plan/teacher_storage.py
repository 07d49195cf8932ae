"""Decision on storing teacher outputs, with the disk space needed and the teacher passes saved.

All numbers are computed before any work starts.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from pydantic import ByteSize

from study.plan.confirmation import ALWAYS_CONFIRMED
from study.plan.control_tuning import tuning_trials
from study.plan.methods import BASELINE
from study.plan.outputs import OutputsSource
from study.plan.plan import StudyPlan
from trainables.data.registry import dataset_info
from trainables.spec.architectures import ensemble_members, feature_dim
from trainables.spec.datasets import DatasetInfo
from trainables.spec.methods import method_spec
from trainables.user_code.reference import is_canonical

_ITEM_BYTES: Final[dict[str, int]] = {"float16": 2, "bfloat16": 2, "float32": 4}
# Width of the widest last layer in torchvision's classifiers. The width of a library model is unknown until the model
# is built.
_WIDEST_FEATURE: Final = 4096


class TeacherStorage(NamedTuple):
    """Cost and benefit of storing teacher outputs.

    Args:
        source: source of teacher outputs for the trials.
        why: reason for the source, in words.
        size: bytes on disk with every slot filled. An upper bound for a library teacher.
        passes_stored: maximum number of teacher passes over the train split with storage: one per slot and teacher.
        passes_live: number of teacher passes without storage, if no trial is stopped early.
        live: methods that need a live teacher even with storage, and the reason. `passes_stored` includes their passes.
    """

    source: OutputsSource
    why: str
    size: ByteSize
    passes_stored: int
    passes_live: int
    live: dict[str, str]

    @property
    def passes_saved(self) -> int:
        """Number of teacher passes saved by storage, if nothing is stored yet. A later study may save all passes."""
        return self.passes_live - min(self.passes_live, self.passes_stored)


def reckon_teacher_storage(plan: StudyPlan) -> TeacherStorage:
    """Return the storage decision for a plan. With `teacher_outputs="auto"`, choose the source here."""
    config = plan.example_config
    info = dataset_info(config.dataset)
    train, validation, _ = info.split_sizes
    longest = max(config.epochs, plan.confirm_epochs)
    slots = sum(min(info.num_views if each == "views" else 1, longest) for each in plan.augmentations)
    row = bytes_per_sample(plan)
    teachers = len(plan.teachers) * (1 + len(plan.further_teachers))
    size = ByteSize((slots * train + validation * len(plan.augmentations)) * row * max(1, teachers))
    epochs = _epochs_with_teacher(plan)
    live = {method: why for method in epochs if (why := _why_not_stored(method)) is not None}
    mixed = bool(plan.compared) and len(live) < len(epochs)  # compared methods may differ here
    source, why = _decide(plan, size, needed=bool(epochs), live={} if mixed else live)
    passes_live = sum(epochs.values())
    if not mixed:
        return TeacherStorage(source, why, size, slots * teachers, passes_live, {})
    own = sum(epochs[method] for method in live)
    return TeacherStorage(source, why, size, slots * teachers + own, passes_live, live if source == "stored" else {})


def bytes_per_sample(plan: StudyPlan) -> int:
    """Return the bytes of stored outputs per sample. An upper bound for a library teacher."""
    config = plan.example_config
    info = dataset_info(config.dataset)
    # For an ensemble, the logits of all members are stored.
    members = len(ensemble_members(config.teacher)) if info.task is None else 0
    numbers = members * info.num_classes or feature_dim(config.teacher) or _own_feature_dim(config.teacher, info)
    return (numbers or _WIDEST_FEATURE) * _ITEM_BYTES[plan.teacher_outputs_dtype]


def bytes_on_device(plan: StudyPlan) -> int:
    """Return the maximum bytes of stored outputs held by a trial: two slots, while one replaces the other."""
    if plan.teacher_outputs_used == "live" or not plan.teachers:
        return 0
    train, validation, _ = dataset_info(plan.base.dataset).split_sizes
    return (2 * train + validation) * bytes_per_sample(plan)


def _own_feature_dim(teacher: str, info: DatasetInfo) -> int | None:
    """Return the feature width of a user network.

    None for other names, and for a network that cannot be built. `study.plan.network_checks` reports why it cannot.
    """
    if not is_canonical(teacher):
        return None
    try:
        return _built_feature_dim(teacher, info.num_classes, info.channels)
    except ValueError:  # not cached, because lost sources may be restored
        return None


@cache
def _built_feature_dim(teacher: str, num_classes: int, channels: int) -> int:
    from trainables.models import build_model  # imports torch, also needed for the check of the network
    from trainables.process.randomness import seeded

    with seeded(0):
        return build_model(teacher, num_classes=num_classes, in_channels=channels).head.in_features


def check_teacher_storage(plan: StudyPlan) -> TeacherStorage:
    """Return the storage decision for a plan, checked against the plan's limit.

    Raises:
        ValueError: the outputs exceed the limit or cannot be stored.
    """
    storage = reckon_teacher_storage(plan)
    if storage.source == "stored" and storage.size > plan.teacher_outputs_limit:
        raise ValueError(
            f"storing the teacher's outputs needs {size_in_words(storage.size)}, more than the limit of "
            f"{size_in_words(plan.teacher_outputs_limit)}: raise --teacher-outputs-limit, "
            "or start a study with --teacher-outputs live"
        )
    return storage


def size_in_words(size: ByteSize) -> str:
    """Format a number of bytes, for example 1.2GiB."""
    return size.human_readable()


def _epochs_with_teacher(plan: StudyPlan) -> Counter[str]:
    """Count the training epochs for each method with a teacher."""
    trials: Counter[str] = Counter()
    confirmed: Counter[str] = Counter()
    for compared in plan.compared:
        trials[str(compared.fields["method"])] += plan.total_trials // len(plan.compared)
    if plan.compared and plan.confirmation is not None:
        configs_of_each = plan.searches_per_method if plan.searches else 1
        for name in _confirmed_at_most(plan, plan.confirmation.configs):
            confirmed[name] += plan.confirmation.seeds * configs_of_each
    if not plan.compared:
        trials[plan.base.method] += plan.trials + plan.replicates * min(plan.promising, plan.trials)
        for control in plan.controls:
            trials[control] += plan.replicates * len(plan.students)
        if plan.confirmation is not None:
            students = min(len(plan.students), plan.confirmation.configs + 1)
            controls = (*plan.controls, "pesf_kd") * students
            for method in (*[plan.base.method] * (plan.confirmation.configs + 1), *controls):
                confirmed[method] += plan.confirmation.seeds
            trials[BASELINE] += sum(1 for _ in tuning_trials(plan))
    return Counter(
        {
            method: trials[method] * plan.base.epochs + confirmed[method] * plan.confirm_epochs
            for method in {**trials, **confirmed}
            if method_spec(method).needs_teacher
        }
    )


def _confirmed_at_most(plan: StudyPlan, configs: int) -> list[str]:
    """Return a comparison's confirmed methods, assuming those with the most teacher passes are the best."""

    def passes(method: str) -> tuple[bool, bool]:
        return _why_not_stored(method) is not None, method_spec(method).needs_teacher

    always = [str(each.fields["method"]) for each in plan.compared if each.name in ALWAYS_CONFIRMED]
    others = [str(each.fields["method"]) for each in plan.compared if each.name not in ALWAYS_CONFIRMED]
    return always + sorted(others, key=passes, reverse=True)[:configs]


def _why_not_stored(method: str) -> str | None:
    """Return why a method cannot use stored outputs, or None if it can."""
    entry = method_spec(method)
    if entry.trains_teacher:
        return "trains the teacher, so its outputs change"
    if entry.needs_maps:
        return "cannot run without feature maps of the teacher, which are too large to store"
    return None


def methods_in_words(live: Mapping[str, str]) -> str:
    """Format methods with the reason for a live teacher, grouped by reason."""
    reasons = dict.fromkeys(live.values())
    return "; ".join(f"{', '.join(name for name in live if live[name] == reason)} {reason}" for reason in reasons)


def _decide(plan: StudyPlan, size: ByteSize, *, needed: bool, live: Mapping[str, str]) -> tuple[OutputsSource, str]:
    why_not = methods_in_words(live)
    if plan.teacher_outputs == "stored" and live:
        raise ValueError(
            f"the teacher's outputs cannot be stored, because {why_not}: leave out --teacher-outputs stored"
        )
    if plan.teacher_outputs != "auto":
        return plan.teacher_outputs, "as requested"
    limit = size_in_words(plan.teacher_outputs_limit)
    decision: tuple[OutputsSource, str] = ("stored", f"within the limit of {limit}")
    if not needed:
        decision = ("live", "no method of the study uses a teacher")
    elif live:
        decision = ("live", why_not)
    elif size > plan.teacher_outputs_limit:
        decision = ("live", f"storing needs {size_in_words(size)}, more than the limit of {limit}")
    used = plan.teacher_outputs_used
    return decision if used in (None, decision[0]) else (used, "as decided when the study started")
