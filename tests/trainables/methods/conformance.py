"""Properties that every method must have. Each function is a check and takes the method as a `Case`."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.trainables.conftest import TEXT, MakeStore, small_config, without_costs
from trainables.costs import ledger as cost_ledger
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import FlopCounter, count_costs
from trainables.data.dataset import Dataset
from trainables.methods.registry import METHODS
from trainables.run.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.spec.methods import METHOD_SPECS, AdapterSettings, MethodSpec, method_spec
from trainables.spec.methods.settings import AdapterTrainingSettings
from trainables.spec.trial import TrialConfig, config_fields
from trainables.steps.loss_log import LossLog, NonFiniteLossError
from trainables.steps.step import AutogradStep
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.live import LiveTeacherOutputs
from trainables.teacher_outputs.store import StoredTeacherOutputs

# Settings that make a method fast here. At the defaults, it would take seconds.
QUICK: dict[str, object] = {"crd_negatives": 100}
BATCHES = 9
_ADAPTER, _ADAPTER_TRAINING = set(AdapterSettings.model_fields), set(AdapterTrainingSettings.model_fields)


class Case(NamedTuple):
    """A method, with or without an optional adapter, and settings that select another variant of it."""

    method: str
    adapter: bool = False
    choices: tuple[tuple[str, object], ...] = ()
    on_text: bool = False

    @property
    def entry(self) -> MethodSpec:
        return method_spec(self.method, adapter=self.adapter)

    @property
    def learners(self) -> set[str]:
        own = {"method"} if METHODS[self.method].parts is not None else set()
        own |= {"peer"} if self.entry.peer else set()
        return {"student"} | own | self.adapts

    @property
    def adapts(self) -> set[str]:
        """Modules that adapt the teacher's outputs: an adapter, or the teacher itself."""
        return ({"adapter"} if self.entry.has_adapter else set()) | (
            {"teacher"} if self.entry.trains_teacher else set()
        )

    def __str__(self) -> str:
        words = [self.method, *["adapter"] * self.adapter, *(str(value) for _, value in self.choices)]
        return "+".join([*words, *["text"] * self.on_text])

    @property
    def data(self) -> dict[str, object]:
        """Fields that select a dataset of text. Empty for images."""
        return TEXT if self.on_text else {}

    def config(self, **changes: object) -> TrialConfig:
        own = QUICK | dict(self.choices) | changes
        if self.on_text:
            return TrialConfig.model_validate({"method": self.method, "adapter": self.adapter, **TEXT, **own})
        return small_config(method=self.method, adapter=self.adapter, **own)


class Bench(NamedTuple):
    """Dataset, teacher, store and folder for running a trial."""

    data: Dataset
    teacher: FrozenTeacher
    make_store: MakeStore
    folder: Path

    def start(self, case: Case, **changes: object) -> DistillationRun:
        return DistillationRun(case.config(**changes), self.data, self.teacher)


def cases_of(methods: Iterable[str]) -> list[Case]:
    methods = list(methods)
    # For losses without teacher logits, the code for an adapter is the same in every method. Two methods represent
    # them.
    adapters = [each for each in methods if method_spec(each).takes_adapter]
    adapters = [each for each in adapters if not method_spec(each).adapter_term or each in ("crd", "at")]
    return [
        Case(name, adapter, on_text=method_spec(name).modality == "text")
        for adapter, names in ((False, methods), (True, adapters))
        for name in names
    ]


def state_of(run: DistillationRun) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.state_dict()["tensors"].items()}


def changed_learners(run: DistillationRun) -> dict[str, set[str]]:
    """Return the names of the parameters that one step changes, by trainer.

    Weight decay is 0, so only a gradient changes parameters.
    """
    before = {who: {n: p.detach().clone() for n, p in t.parameters.items()} for who, t in run.trainers.items()}
    run.student.train()
    # Some methods start with another objective. Their later objective then determines which modules are trained.
    later = {run.config.pea_epochs} if "pea_epochs" in run.method.loss_fields else set()
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


BARE = {
    "adapter_init": "default",
    "student_weight_decay": 0.0,
    "adapter_weight_decay": 0.0,
    "student_learning_rate": 0.5,
    "adapter_learning_rate": 0.5,
}


def its_specification_is_one_that_can_be_run(case: Case, bench: Bench) -> None:
    method = METHODS[case.method]
    spec = method.spec
    assert spec is METHOD_SPECS[case.method]
    assert method.name == case.method
    has_adapter = spec.has_adapter or spec.takes_adapter
    assert spec.needs_teacher or not (has_adapter or method.parts or spec.needs_maps)
    assert not (spec.trains_teacher and (not spec.needs_teacher or has_adapter))
    assert not (method.closed_form and (spec.needs_maps or spec.peer or spec.trains_teacher))
    assert not (method.closed_form and method.parts)
    own = method.teacher_method
    of_teacher = (own.loss_fields | own.parts_fields) - {"teacher"} if own is not None else frozenset()
    assert of_teacher == spec.teacher_fields
    assert (method.loss_fields | method.parts_fields | of_teacher) - _ADAPTER == spec.fields - _ADAPTER
    assert case.entry.fields & _ADAPTER == (
        _ADAPTER if case.entry.has_adapter else _ADAPTER_TRAINING if spec.trains_teacher else set()
    )
    assert spec.fields <= set(config_fields())


def its_published_values_are_a_valid_trial(case: Case, bench: Bench) -> None:
    published = {**case.entry.published, **(case.entry.published_adapter if case.adapter else {})}
    assert set(published) <= case.entry.fields
    config = TrialConfig(**{**case.data, "method": case.method, "adapter": case.adapter, **published})
    assert {name: getattr(config, name) for name in published} == published


def its_losses_are_finite_and_named(case: Case, bench: Bench) -> None:
    run = bench.start(case)
    for _ in range(2):
        measures = run_epoch(run)
        assert all(math.isfinite(value) for value in measures.values())
        parts = {name for name in measures if name.startswith("train/loss")}
        expected = {"train/loss", "train/loss_ce"} | ({"train/loss_kd"} if "kd_weight" in case.entry.fields else set())
        expected |= {"train/loss_peer"} if case.entry.peer else set()
        expected |= {"train/loss_adapter_kd"} if case.adapter and case.entry.adapter_term else set()
        expected |= {"train/loss_gap"} if run.config.gap_control in ("paper", "centred") else set()
        assert parts == expected | ({"train/loss_adapter"} if case.adapts else set())
    everyone = sum(p.numel() for trainer in run.trainers.values() for p in trainer.parameters.values())
    assert measures["cost/trainable_parameters"] == everyone
    adapters = sum(p.numel() for p in run.adapter.parameters()) if run.adapter is not None else 0
    assert measures["cost/adapter_parameters"] == adapters


def its_losses_are_finite_in_bfloat16_too(case: Case, bench: Bench) -> None:
    measures = run_epoch(bench.start(case, precision="bf16"))
    assert all(math.isfinite(value) for value in measures.values())


def a_single_sample_that_is_left_over_joins_the_batch_before_it(case: Case, bench: Bench) -> None:
    run = bench.start(case, batch_size=269)
    sizes = [len(batch.indices) for batch in run.batches.of_epoch(0, None)]
    assert sum(sizes) % 269 == 1
    assert sizes.count(270) == 1
    assert 1 not in sizes
    assert all(math.isfinite(value) for value in run_epoch(run).values())


def deterministic_algorithms_suffice(case: Case, bench: Bench) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        run_epoch(bench.start(case))
    finally:
        torch.use_deterministic_algorithms(before)


def gradient_reaches_who_learns_and_nobody_else(case: Case, bench: Bench) -> None:
    run = bench.start(case, **BARE)
    assert set(run.trainers) == case.learners
    moved = changed_learners(run)
    assert set(moved) == case.learners
    for who in case.learners:
        assert moved[who] == set(run.trainers[who].parameters)
    assert FrozenTeacher(bench.teacher.model).digest == run.identity["teacher"]
    assert all(p.grad is None and not p.requires_grad for p in bench.teacher.parameters())
    known = [id(p) for trainer in run.trainers.values() for p in trainer.parameters.values()]
    assert len(known) == len(set(known))
    assert not set(known) & {id(p) for p in bench.teacher.parameters()}


def its_own_loss_reaches_whom_it_should(case: Case, bench: Bench) -> None:
    if "kd_weight" not in case.entry.fields:
        assert not case.entry.needs_teacher
        return
    alone = BARE | {"ce_weight": 0.0, "adapter_ce_weight": 0.0, "gap_weight": 0.0}
    off = {"kd_weight": 0.0, "pkd_weight": 0.0, "adapter_kd_weight": 0.0}
    assert set(changed_learners(bench.start(case, **alone))) == case.learners
    assert changed_learners(bench.start(case, **alone, **off)) == {}
    if case.adapts:
        detached = changed_learners(bench.start(case, **alone, detach_adapter_target=True))
        assert set(detached) == case.learners - case.adapts


def nobody_else_changes_the_students_first_weights(case: Case, bench: Bench) -> None:
    ours, alone = bench.start(case), bench.start(Case("ce", on_text=case.on_text))
    weights = alone.student.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.student.state_dict().items())
    if ours.companion is None:
        return
    theirs, first = ours.companion.model.state_dict(), bench.teacher.model.state_dict()
    begins_trained = set(theirs) == set(first) and all(torch.equal(theirs[name], first[name]) for name in theirs)
    assert begins_trained == case.entry.trains_teacher
    if case.entry.peer == "student":
        assert not torch.equal(ours.companion.model.head.weight, ours.student.head.weight)


def the_networks_beside_the_student_keep_their_own_statistics(case: Case, bench: Bench) -> None:
    run = bench.start(case)
    if run.companion is None:
        return
    before = {name: buffer.clone() for name, buffer in run.companion.model.named_buffers()}
    run.train_epoch()
    trained = {name: buffer.clone() for name, buffer in run.companion.model.named_buffers()}
    assert all(not torch.equal(trained[name], before[name]) for name in before)
    counts = [buffer for name, buffer in trained.items() if name.endswith("num_batches_tracked")]
    began = [before[name] for name in before if name.endswith("num_batches_tracked")]
    assert all(int(count - start) == BATCHES for count, start in zip(counts, began, strict=True))
    run.evaluate()
    after = dict(run.companion.model.named_buffers())
    assert all(torch.equal(trained[name], after[name]) for name in trained)


def the_same_seed_gives_the_same_bits_and_another_others(case: Case, bench: Bench) -> None:
    first, second, other = bench.start(case), bench.start(case), bench.start(case, seed=1)
    for _ in range(2):
        torch.rand(1)  # the global generator changes between both epochs
        ours, theirs = run_epoch(first), run_epoch(second)
        assert without_costs(ours) == without_costs(theirs)
        assert ours["train/loss"] != run_epoch(other)["train/loss"]
    ours, theirs = state_of(first), state_of(second)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def a_resumed_trial_equals_one_never_stopped(case: Case, bench: Bench) -> None:
    changes = {} if case.on_text else {"student_schedule": "step", "adapter_schedule": "step"}
    straight = bench.start(case, **changes)
    save_checkpoint(straight, bench.folder / "0")
    measures = []
    for epoch in range(1, 4):
        measures.append(without_costs(run_epoch(straight)))
        save_checkpoint(straight, bench.folder / str(epoch))
    for stopped_after in range(4):
        torch.manual_seed(stopped_after)  # earlier draws in the process must not matter
        resumed = bench.start(case, **changes)
        load_checkpoint(resumed, bench.folder / str(stopped_after))
        for epoch in range(stopped_after, 3):
            assert without_costs(run_epoch(resumed)) == measures[epoch]
        ours, theirs = state_of(resumed), state_of(straight)
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def everything_that_learns_is_in_the_checkpoint(case: Case, bench: Bench) -> None:
    run = bench.start(case)
    run.train_epoch()
    path = save_checkpoint(run, bench.folder)
    tensors, metadata = read_tensors(path)
    modules = {who: trainer.module for who, trainer in run.trainers.items()}
    weights = {f"{who}.module.{n}" for who, module in modules.items() for n in module.state_dict()}
    slots = ("momentum", "variance", "steps") if run.config.optimiser == "adamw" else ("momentum",)
    names = {who: [name for name, _ in module.named_parameters()] for who, module in modules.items()}
    momenta = {f"{who}.{slot}.{name}" for who in names for slot in slots for name in names[who]}
    assert set(tensors) == weights | momenta
    for who in modules:
        lost = next(name for name in tensors if name.startswith(f"{who}.module."))
        write_tensors(path, {name: tensor for name, tensor in tensors.items() if name != lost}, metadata)
        with pytest.raises(CheckpointError, match=lost.removeprefix(f"{who}.module.")):
            load_checkpoint(bench.start(case), bench.folder)


def a_student_that_is_not_a_number_is_named(case: Case, bench: Bench) -> None:
    run = bench.start(case)
    run.train_epoch()
    with torch.no_grad():
        run.student.head.bias[1] = float("nan")
    with pytest.raises(NonFiniteLossError, match=rf"epoch 2 of 3, batch 1 of {BATCHES}: total nan, ce nan"):
        run.train_epoch()


def a_peer_that_is_not_a_number_is_named(case: Case, bench: Bench) -> None:
    if case.entry.peer is None:
        return
    run = bench.start(case)
    with torch.no_grad():
        run.companion.model.head.bias[1] = float("nan")
    with pytest.raises(NonFiniteLossError, match=rf"epoch 1 of 3, batch 1 of {BATCHES}: total nan.* peer nan"):
        run.train_epoch()


def a_teacher_that_is_not_a_number_is_named(case: Case, bench: Bench) -> None:
    if not case.entry.needs_teacher:
        return
    run = bench.start(case)
    if case.entry.trains_teacher:
        with torch.no_grad():
            run.companion.model.head.bias[1] = float("nan")
        with pytest.raises(NonFiniteLossError, match=rf"epoch 1 of 3, batch 1 of {BATCHES}: total nan.* adapter nan"):
            run.train_epoch()
        return
    third_batch = list(run.batches.of_epoch(0, None))[2].indices
    live = run.teacher_outputs.train_batch

    def broken(indices, slot, images):
        outputs = live(indices, slot, images)
        if torch.equal(indices, third_batch):
            for tensor in (outputs.logits, outputs.feature, *(outputs.maps or ())):
                tensor.fill_(float("nan"))
        return outputs

    run.teacher_outputs.train_batch = broken
    with pytest.raises(NonFiniteLossError, match=rf"epoch 1 of 3, batch 3 of {BATCHES}: total nan.* kd nan"):
        run.train_epoch()


def its_losses_see_the_maps_of_both_nets_if_it_needs_them(case: Case, bench: Bench) -> None:
    run = bench.start(case, precision="bf16")
    objective, seen = run.objective, []

    def watch(outputs, labels):
        seen.append(outputs)
        return objective(outputs, labels)

    run.objective = watch
    run_epoch(run)
    assert len(seen) == (0 if METHODS[case.method].gradients(run.config.model_dump()) else BATCHES)
    for outputs in seen:
        assert (outputs.student_maps is not None) == (outputs.teacher_maps is not None) == case.entry.needs_maps
        for maps in (outputs.student_maps or ()), (outputs.teacher_maps or ()):
            assert {each.dtype for each in maps} <= {torch.float32}
            assert {len(each) for each in maps} <= {len(outputs.student_logits)}
        assert not any(each.requires_grad for each in outputs.teacher_maps or ())


def stored_teacher_outputs_give_what_live_ones_give(case: Case, bench: Bench) -> None:
    live = run_epoch(bench.start(case))
    stored_outputs = StoredTeacherOutputs(bench.make_store())
    if case.entry.needs_maps:
        for outputs in (stored_outputs, LiveTeacherOutputs(bench.teacher)):
            with pytest.raises(ValueError, match=f"'{case.method}' matches maps of both nets"):
                DistillationRun(case.config(), bench.data, bench.teacher, teacher_outputs=outputs)
        return
    stored = DistillationRun(case.config(), bench.data, bench.teacher, teacher_outputs=stored_outputs)
    measures = run_epoch(stored)
    # Kernels may round differently for other batch sizes, and nine steps amplify the difference.
    assert measures["train/loss"] == pytest.approx(live["train/loss"], rel=2e-3)
    again = DistillationRun(
        case.config(), bench.data, bench.teacher, teacher_outputs=StoredTeacherOutputs(bench.make_store())
    )
    second = run_epoch(again)
    assert without_costs(second) == without_costs(measures)
    own = len(bench.data.train) + len(bench.data.validation) if case.entry.trains_teacher else 0
    assert second["cost/teacher_forwards"] == own


def no_batch_waits_for_a_value(case: Case, bench: Bench) -> None:
    run = bench.start(case)
    batches = list(run.batches.of_epoch(0, None))[:3]
    log = LossLog(run.method.gradients(run.config.model_dump()))
    for trainer in run.trainers.values():
        trainer.module.train()
    run.begin_drawing()

    def refuse(*args):
        pytest.fail("a batch waited for the device")

    with pytest.MonkeyPatch.context() as patch:
        # `numpy` is not listed: it never waits, because tensors on a GPU refuse it.
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "nonzero"):
            patch.setattr(torch.Tensor, name, refuse)
        for batch in batches:
            run.train_batch(batch, log)


def its_ledger_says_what_a_step_takes(case: Case, bench: Bench) -> None:
    cost_ledger._known.clear()
    for stored, precision in ((False, "fp32"), (False, "bf16"), (not case.entry.needs_maps, "fp32")):
        outputs = StoredTeacherOutputs(bench.make_store()) if stored else None
        config = case.config(precision=precision)
        run = DistillationRun(config, bench.data, bench.teacher, teacher_outputs=outputs)
        ledger = count_costs(run)
        batch = next(run.batches.of_epoch(0, None))
        # Sentences with the average length assumed by the ledger.
        batch = batch._replace(inputs=run.batches.example(len(batch.labels))) if case.on_text else batch
        if run.stored_outputs is not None:
            run.stored_outputs.validation(torch.arange(1), batch.inputs)  # storing outputs is not part of a step
            run.stored_outputs.train_batch(batch.indices, batch.slot, batch.inputs)
        run.step = AutogradStep(list(run.trainers.values()))  # closed forms would do in NumPy what autograd does
        run.epoch = config.epochs - 1  # a different objective of the first epochs is not the cost of a step
        for trainer in run.trainers.values():
            trainer.module.train()
            trainer.begin_epoch(0)
        run.begin_drawing()
        with sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
            run.train_batch(batch, LossLog(None))
        assert ledger.step_flops * len(batch.labels) == counter.flops
        assert all(min(part) >= 0 for part in ledger.flops.values())
        assert sum(ledger.parameters.values()) == sum(
            p.numel() for trainer in run.trainers.values() for p in trainer.parameters.values()
        )
        assert set(ledger.parameters) == case.learners


def looking_at_its_cost_changes_no_bit(case: Case, bench: Bench) -> None:
    plain, looked_at = bench.start(case), bench.start(case)
    cost_ledger._known.clear()
    began = state_of(looked_at)
    _ = count_costs(looked_at)
    assert all(torch.equal(tensor, began[name]) for name, tensor in state_of(looked_at).items())
    expected = without_costs(run_epoch(plain))
    assert without_costs(run_epoch(looked_at)) == expected
    cost_ledger._known.clear()
    _ = count_costs(looked_at)
    run_epoch(plain)
    run_epoch(looked_at)
    ours, theirs = state_of(looked_at), state_of(plain)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


CHECKS: list[Callable[[Case, Bench], None]] = [
    its_specification_is_one_that_can_be_run,
    its_published_values_are_a_valid_trial,
    its_losses_are_finite_and_named,
    its_losses_are_finite_in_bfloat16_too,
    a_single_sample_that_is_left_over_joins_the_batch_before_it,
    deterministic_algorithms_suffice,
    gradient_reaches_who_learns_and_nobody_else,
    its_own_loss_reaches_whom_it_should,
    nobody_else_changes_the_students_first_weights,
    the_networks_beside_the_student_keep_their_own_statistics,
    the_same_seed_gives_the_same_bits_and_another_others,
    a_resumed_trial_equals_one_never_stopped,
    everything_that_learns_is_in_the_checkpoint,
    a_student_that_is_not_a_number_is_named,
    a_teacher_that_is_not_a_number_is_named,
    a_peer_that_is_not_a_number_is_named,
    its_losses_see_the_maps_of_both_nets_if_it_needs_them,
    stored_teacher_outputs_give_what_live_ones_give,
    no_batch_waits_for_a_value,
    its_ledger_says_what_a_step_takes,
    looking_at_its_cost_changes_no_bit,
]
