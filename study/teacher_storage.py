"""Whether a study stores its teacher's outputs, what that takes, and what it saves; reckoned before any work."""

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pydantic import ByteSize

from trainables.data.registry import dataset_info
from trainables.methods import METHODS
from trainables.models.names import feature_dim
from trainables.uris import is_uri, redact

if TYPE_CHECKING:
    from study.plan import StudyPlan

OutputsMode = Literal["auto", "stored", "live"]
OutputsSource = Literal["stored", "live"]
OutputsDtype = Literal["float16", "bfloat16", "float32"]

DEFAULT_LIMIT: Final = ByteSize(20 * 2**30)
_ITEM_BYTES: Final[dict[str, int]] = {"float16": 2, "bfloat16": 2, "float32": 4}
# The widest last layer of torchvision's classifiers; which one a library's net has, only building it tells.
_WIDEST_FEATURE: Final = 4096


class TeacherStorage(NamedTuple):
    """What storing the teacher's outputs takes and saves.

    Args:
        source: where the study's trials get them from.
        why: in words, for a person.
        size: bytes on disk when every slot is filled; an upper bound for a teacher of a library.
        passes_stored: passes of the teacher over the train split with storage, at most: one for every slot.
        passes_live: the same without, if no trial is stopped early.
        live: methods whose teacher is live all the same, as it has to be; their passes are among `passes_stored`.
    """

    source: OutputsSource
    why: str
    size: ByteSize
    passes_stored: int
    passes_live: int
    live: tuple[str, ...] = ()

    @property
    def passes_saved(self) -> int:
        """What storage saves, if nothing is stored yet; a later study may find it all."""
        return self.passes_live - min(self.passes_live, self.passes_stored)


def reckon_teacher_storage(plan: "StudyPlan") -> TeacherStorage:
    """The plan's storage of teacher outputs, with its source decided where the plan leaves it open."""
    config = plan.example_config
    info = dataset_info(config.dataset)
    train, validation, _ = info.split_sizes
    slots = min(info.num_views if config.augmentation == "views" else 1, config.epochs)
    row = (feature_dim(config.teacher) or _WIDEST_FEATURE) * _ITEM_BYTES[plan.teacher_outputs_dtype]
    size = ByteSize((slots * train + validation) * row)
    trials = _taught_trials(plan)
    live = tuple(method for method in trials if METHODS.entry(method).needs_maps)
    apart = len(live) < len(trials) and bool(plan.compared)  # methods that are compared may differ in this
    source, why = _decide(plan, size, needed=bool(trials), live_only=() if apart else live)
    taught, own = sum(trials.values()), sum(trials[method] for method in live) if apart else 0
    passes_stored = (slots if taught else 0) + own * config.epochs
    apart_live = live if apart and source == "stored" else ()
    return TeacherStorage(source, why, size, passes_stored, taught * config.epochs, apart_live)


def describe_teacher_storage(plan: "StudyPlan") -> str:
    """Where the teacher's outputs come from and why, for a person."""
    storage = reckon_teacher_storage(plan)
    passes = f"{storage.passes_live} passes of the teacher over the train split"
    if storage.source == "live":
        return f"outputs live ({storage.why}): {passes} at most"
    copies = ", a copy on each node" if is_uri(plan.teacher_outputs_location) else ""
    return (
        f"outputs stored as {plan.teacher_outputs_dtype} ({storage.why}): at most {size_in_words(storage.size)} in "
        f"{redact(plan.teacher_outputs_location)}{copies}; {storage.passes_stored} passes of the teacher over the "
        f"train split instead of {storage.passes_live}, {storage.passes_saved} saved; " + _when_it_pays(storage)
    )


def _when_it_pays(storage: TeacherStorage) -> str:
    if not storage.live:
        return f"it pays once trials x epochs exceed {storage.passes_stored}"
    return f"live for {', '.join(storage.live)}, which cannot do without the maps of its stages, too large to store"


def size_in_words(size: ByteSize) -> str:
    """Bytes as a person reads them, such as 1.2GiB."""
    return size.human_readable()


def _taught_trials(plan: "StudyPlan") -> Counter[str]:
    """How many trials each method has that a teacher teaches."""
    trials: Counter[str] = Counter()
    for method in plan.compared:
        trials[str(method.fields["method"])] += plan.total_trials // len(plan.compared)
    if not plan.compared:
        trials[plan.base.method] += plan.trials + plan.replicates * min(plan.promising, plan.trials)
        for control in plan.controls:
            trials[control] += plan.replicates
    return Counter({method: count for method, count in trials.items() if METHODS.entry(method).needs_teacher})


def _decide(
    plan: "StudyPlan", size: ByteSize, *, needed: bool, live_only: tuple[str, ...]
) -> tuple[OutputsSource, str]:
    who = ", ".join(live_only)
    if plan.teacher_outputs == "stored" and live_only:
        raise ValueError(
            f"the maps of the nets' stages, which {who} cannot do without, are too large to store: leave out "
            "--teacher-outputs stored"
        )
    if plan.teacher_outputs != "auto":
        return plan.teacher_outputs, "as asked"
    limit = size_in_words(plan.teacher_outputs_limit)
    decision: tuple[OutputsSource, str] = ("stored", f"within the limit of {limit}")
    if not needed:
        decision = ("live", "no method of the study is taught by a teacher")
    elif live_only:
        decision = ("live", f"{who} cannot do without the maps of its stages, too large to store")
    elif size > plan.teacher_outputs_limit:
        decision = ("live", f"storing takes {size_in_words(size)}, over the limit of {limit}")
    used = plan.teacher_outputs_used
    return decision if used in (None, decision[0]) else (used, "as when the study was started")
