"""Subject of a check: a method in a small trial, on a bench of dataset, teacher and stored outputs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from trainables.data.dataset import Dataset
from trainables.methods.registry import METHODS
from trainables.run.run import DistillationRun
from trainables.spec.measures import ENERGY_MEASURES
from trainables.spec.methods import MethodSpec, is_own, method_spec
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import LossLog
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import TeacherOutputsStore

MakeStore = Callable[[], TeacherOutputsStore]

# Smaller than the default teacher, to train in half a second.
SMALL: Final[dict[str, object]] = {"teacher": "cnn_8_16", "epochs": 3, "batch_size": 128}
TEXT: Final[dict[str, object]] = {
    "dataset": "glue:sst2", "teacher": "bert_2_32", "student": "bert_2_32", "teacher_epochs": 1, "epochs": 3,
    "batch_size": 128,
}  # fmt: skip
# Settings for fast trials of a method. With the defaults, a trial would take seconds.
QUICK: Final[dict[str, object]] = {"crd_negatives": 100}
# With these settings, only a gradient changes parameters, and visibly.
BARE: Final[dict[str, object]] = {
    "adapter_init": "default",
    "student_weight_decay": 0.0,
    "adapter_weight_decay": 0.0,
    "student_learning_rate": 0.5,
    "adapter_learning_rate": 0.5,
}
# Measures allowed to differ between two trials with equal configs.
TIMED: Final = (
    "cost/seconds", "cost/seconds_per_step", "cost/examples_per_second", "cost/peak_memory_bytes", *ENERGY_MEASURES,
    "cost/teacher_forwards",
)  # fmt: skip
# Methods without teacher logits in their losses share the code for an adapter. The methods below represent them.
_WITH_ADAPTER_TERM: Final = ("crd", "at")


def small_config(**changes: object) -> TrialConfig:
    """Return the config of a small trial on images."""
    return TrialConfig.model_validate(SMALL | changes)


def without_costs(measures: Mapping[str, float]) -> dict[str, float]:
    """Return an epoch's measures, restricted to those equal for equal trials."""
    return {name: value for name, value in measures.items() if name not in TIMED}


class Case(NamedTuple):
    """A method, with or without an optional adapter, and settings to select another variant.

    Args:
        method: method name.
        adapter: whether an optional adapter is trained.
        choices: config fields and their values.
        on_text: whether the dataset is text.
        dataset: name of an image dataset.
    """

    method: str
    adapter: bool = False
    choices: tuple[tuple[str, object], ...] = ()
    on_text: bool = False
    dataset: str = "digits"

    @property
    def entry(self) -> MethodSpec:
        """The method's specification."""
        return method_spec(self.method, adapter=self.adapter)

    @property
    def learners(self) -> set[str]:
        """Trained module names."""
        own = {"method"} if METHODS[self.method].parts is not None else set()
        own |= {"peer"} if self.entry.peer else set()
        return {"student"} | own | self.adapts

    @property
    def adapts(self) -> set[str]:
        """Modules adapting the teacher's outputs: an adapter, or the teacher itself."""
        return ({"adapter"} if self.entry.has_adapter else set()) | (
            {"teacher"} if self.entry.trains_teacher else set()
        )

    def __str__(self) -> str:
        words = [self.method, *["adapter"] * self.adapter, *(str(value) for _, value in self.choices)]
        return "+".join([*words, *["text"] * self.on_text])

    @property
    def data(self) -> dict[str, object]:
        """Fields for selecting the dataset."""
        return TEXT if self.on_text else {"dataset": self.dataset}

    def config(self, **changes: object) -> TrialConfig:
        """Return the config of a small trial."""
        own = QUICK | dict(self.choices) | changes
        if self.on_text:
            return TrialConfig.model_validate({"method": self.method, "adapter": self.adapter, **TEXT, **own})
        return small_config(method=self.method, adapter=self.adapter, dataset=self.dataset, **own)


class Bench(NamedTuple):
    """Dataset, teacher, store and folder for running a trial."""

    data: Dataset
    teacher: FrozenTeacher
    make_store: MakeStore
    folder: Path

    def start(self, case: Case, **changes: object) -> DistillationRun:
        """Begin a trial."""
        return DistillationRun(case.config(**changes), self.data, self.teacher)

    @property
    def size_that_leaves_one(self) -> int:
        """Batch size with a single sample left over."""
        return (len(self.data.train) - 1) // 4


def cases_of(methods: Iterable[str], dataset: str = "digits") -> list[Case]:
    """Return the cases of methods: each alone, and with an adapter if it takes one."""
    methods = list(methods)
    adapters = [each for each in methods if method_spec(each).takes_adapter]
    adapters = [
        each for each in adapters if not method_spec(each).adapter_term or each in _WITH_ADAPTER_TERM or is_own(each)
    ]
    return [
        Case(name, adapter, on_text=method_spec(name).modality == "text", dataset=dataset)
        for adapter, names in ((False, methods), (True, adapters))
        for name in names
    ]


def state_of(run: DistillationRun) -> dict[str, torch.Tensor]:
    """Return copies of all tensors in a trial."""
    return {name: tensor.clone() for name, tensor in run.state_dict()["tensors"].items()}


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the names of tensors or numbers that differ between two trials or are missing in one."""
    found = []
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name), theirs.get(name)
        same = torch.equal(one, other) if torch.is_tensor(one) and torch.is_tensor(other) else one == other
        found += [] if same else [name]
    return found


def changed_learners(run: DistillationRun) -> dict[str, set[str]]:
    """Return the names of the parameters changed by one step, by trainer.

    Weight decay must be 0, so only a gradient changes parameters.
    """
    before = {who: {n: p.detach().clone() for n, p in t.parameters.items()} for who, t in run.trainers.items()}
    run.student.train()
    # Some methods start with another objective. Their later objective then determines which modules are trained.
    later = {run.config.model_dump()["pea_epochs"]} if "pea_epochs" in run.method.loss_fields else set()
    for epoch in {0} | later:
        run.epoch = epoch
        for trainer in run.trainers.values():
            trainer.begin_epoch(epoch)
        run.begin_drawing()
        batch = run.batches.batch(torch.arange(64), 0)
        run.train_batch(batch, LossLog(run.method.gradients(run.config.model_dump())))
    moved = {
        who: {name for name, parameter in trainer.parameters.items() if not torch.equal(parameter, before[who][name])}
        for who, trainer in run.trainers.items()
    }
    return {who: names for who, names in moved.items() if names}
