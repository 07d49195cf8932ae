"""Whether a study stores its teacher's outputs, what that takes, and what it saves; reckoned before any work."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import ByteSize

from study.plan.outputs import OutputsSource
from study.plan.plan import StudyPlan
from trainables.data.registry import dataset_info
from trainables.spec.architectures import feature_dim
from trainables.spec.methods import method_spec

_ITEM_BYTES: Final[dict[str, int]] = {"float16": 2, "bfloat16": 2, "float32": 4}
# The widest last layer of torchvision's classifiers; which one a library's net has, only building it tells.
_WIDEST_FEATURE: Final = 4096


class TeacherStorage(NamedTuple):
    """What storing the teacher's outputs takes and saves.

    Args:
        source: where the study's trials get them from.
        why: in words, for a person.
        size: bytes on disk when every slot is filled; an upper bound for a teacher of a library.
        passes_stored: passes of the teacher over the train split with storage, at most: one for every slot, of each
            of the study's teachers.
        passes_live: the same without, if no trial is stopped early.
        live: methods whose teacher is live all the same, and why; their passes are among `passes_stored`.
    """

    source: OutputsSource
    why: str
    size: ByteSize
    passes_stored: int
    passes_live: int
    live: dict[str, str]

    @property
    def passes_saved(self) -> int:
        """What storage saves, if nothing is stored yet; a later study may find it all."""
        return self.passes_live - min(self.passes_live, self.passes_stored)


def reckon_teacher_storage(plan: StudyPlan) -> TeacherStorage:
    """The plan's storage of teacher outputs, with its source decided where the plan leaves it open."""
    config = plan.example_config
    info = dataset_info(config.dataset)
    train, validation, _ = info.split_sizes
    slots = min(info.num_views if config.augmentation == "views" else 1, config.epochs)
    row = (feature_dim(config.teacher) or _WIDEST_FEATURE) * _ITEM_BYTES[plan.teacher_outputs_dtype]
    teachers = len(plan.teachers)
    size = ByteSize((slots * train + validation) * row * max(1, teachers))
    trials = _taught_trials(plan)
    live = {method: why for method in trials if (why := _why_not_stored(method)) is not None}
    apart = bool(plan.compared) and len(live) < len(trials)  # methods that are compared may differ in this
    source, why = _decide(plan, size, needed=bool(trials), live={} if apart else live)
    passes_live = sum(trials.values()) * config.epochs
    if not apart:
        return TeacherStorage(source, why, size, slots * teachers, passes_live, {})
    own = sum(trials[method] for method in live) * config.epochs
    return TeacherStorage(source, why, size, slots * teachers + own, passes_live, live if source == "stored" else {})


def check_teacher_storage(plan: StudyPlan) -> TeacherStorage:
    """The plan's storage of teacher outputs, checked against its limit.

    Raises:
        ValueError: they take more bytes, or they cannot be stored.
    """
    storage = reckon_teacher_storage(plan)
    if storage.source == "stored" and storage.size > plan.teacher_outputs_limit:
        raise ValueError(
            f"storing the teacher's outputs takes {size_in_words(storage.size)}, over the limit of "
            f"{size_in_words(plan.teacher_outputs_limit)}: raise --teacher-outputs-limit, "
            "or start a study with --teacher-outputs live"
        )
    return storage


def size_in_words(size: ByteSize) -> str:
    """Bytes as a person reads them, such as 1.2GiB."""
    return size.human_readable()


def _taught_trials(plan: StudyPlan) -> Counter[str]:
    """How many trials each method has that a teacher teaches."""
    trials: Counter[str] = Counter()
    for method in plan.compared:
        trials[str(method.fields["method"])] += plan.total_trials // len(plan.compared)
    if not plan.compared:
        trials[plan.base.method] += plan.trials + plan.replicates * min(plan.promising, plan.trials)
        for control in plan.controls:
            trials[control] += plan.replicates
        if plan.confirmation is not None:
            for confirmed in (*[plan.base.method] * (plan.confirmation.configs + 1), *plan.controls, "pesf_kd"):
                trials[confirmed] += plan.confirmation.seeds
    return Counter({method: count for method, count in trials.items() if method_spec(method).needs_teacher})


def _why_not_stored(method: str) -> str | None:
    """Why a method cannot do with stored outputs, in words; None if it can."""
    entry = method_spec(method)
    if entry.trains_teacher:
        return "trains the teacher itself, which never says the same again"
    if entry.needs_maps:
        return "cannot do without the maps of its stages, too large to store"
    return None


def methods_in_words(live: Mapping[str, str]) -> str:
    """Methods and why their teacher is live, those with one reason together."""
    reasons = dict.fromkeys(live.values())
    return "; ".join(f"{', '.join(name for name in live if live[name] == reason)} {reason}" for reason in reasons)


def _decide(plan: StudyPlan, size: ByteSize, *, needed: bool, live: Mapping[str, str]) -> tuple[OutputsSource, str]:
    why_not = methods_in_words(live)
    if plan.teacher_outputs == "stored" and live:
        raise ValueError(f"the teacher's outputs cannot be stored, as {why_not}: leave out --teacher-outputs stored")
    if plan.teacher_outputs != "auto":
        return plan.teacher_outputs, "as asked"
    limit = size_in_words(plan.teacher_outputs_limit)
    decision: tuple[OutputsSource, str] = ("stored", f"within the limit of {limit}")
    if not needed:
        decision = ("live", "no method of the study is taught by a teacher")
    elif live:
        decision = ("live", why_not)
    elif size > plan.teacher_outputs_limit:
        decision = ("live", f"storing takes {size_in_words(size)}, over the limit of {limit}")
    used = plan.teacher_outputs_used
    return decision if used in (None, decision[0]) else (used, "as when the study was started")
