import copy
import warnings

import pytest
import threadpoolctl
import torch
from torch import Tensor, nn

from tests.trainables.conftest import small_config
from trainables.process.randomness import seeded
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.steps.adapter import KINDS, TeacherAdapter
from trainables.steps.adapter_formulas import AdapterFormulas, AdapterStep
from trainables.steps.closed_form import ClosedForm
from trainables.steps.numpy_step import NumpyAdapterStep, NumpyForm, fits_adapter, fits_form
from trainables.steps.sgd import Trainer
from trainables.steps.step import ClosedFormStep, formula_step
from trainables.teacher_outputs.store import StoredTeacherOutputs

pytestmark = pytest.mark.study

CPU = torch.device("cpu")
DTYPES = [(torch.float64, 1e-12), (torch.float32, 1e-5)]
NUMBERS = {"temperature": 3.0, "ce_weight": 0.3, "kd_weight": 0.9}
SGD = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": "constant", "epochs": 1}


def random_batch(batch: int, dtype: torch.dtype, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    student, target_logits = 3 * torch.randn(2, batch, classes, dtype=dtype)
    return student, target_logits, torch.randint(classes, (batch,))


def random_adapter(kind: str, dtype: torch.dtype) -> tuple[TeacherAdapter, nn.Linear]:
    head = nn.Linear(6, 4)
    return TeacherAdapter(6, 4, 5, kind=kind, init="default", head=head).to(dtype), head.to(dtype)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def in_torch(run: DistillationRun) -> DistillationRun:
    """Change a run that has not begun to take steps without NumPy."""
    run.step = formula_step(run.closed_form, run.trainers)
    return run


def is_in_numpy(run: DistillationRun) -> bool:
    assert isinstance(run.step, ClosedFormStep)
    adapter = run.adapter is None or isinstance(run.step.adapter, NumpyAdapterStep)
    return isinstance(run.step.gradients, NumpyForm) and adapter


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=str)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"adapter_ce_weight": 0.7},
        {"adapter_ce_weight": 0.0},
        {"adapter_ce_weight": 0.7, "detach_adapter_target": True},
    ],
    ids=str,
)
def test_gradients_and_losses_are_those_of_the_closed_form_for_batches_of_any_size(more, dtype, tolerance):
    form = ClosedForm(**NUMBERS, **more)
    ours = NumpyForm(form)
    with seeded(0):
        for batch in (7, 3, 7, 1):
            student, target_logits, labels = random_batch(batch, dtype)
            got, expected = ours(student.requires_grad_(), target_logits, labels), form(student, target_logits, labels)
            assert (got.target is None) == (expected.target is None) == (not more)
            for one, other in zip(got, expected, strict=True):
                if other is not None:
                    assert one.dtype == dtype
                    assert_close(one, other, tolerance)


def test_what_the_log_keeps_is_not_overwritten_by_the_next_batch():
    ours = NumpyForm(ClosedForm(**NUMBERS))
    with seeded(0):
        first, second = random_batch(5, torch.float32), random_batch(5, torch.float32)
    kept = ours(*first).log_p
    before = kept.clone()
    ours(*second)
    assert torch.equal(kept, before)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=str)
@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}, {"weight_decay": 0.0}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_learns_what_it_learns_in_torch(kind, changes, dtype, tolerance):
    with seeded(1):
        adapter, head = random_adapter(kind, dtype)
        other = copy.deepcopy(adapter)
        ours = NumpyAdapterStep(adapter, Trainer(adapter, **(SGD | changes)))
        theirs = AdapterStep(AdapterFormulas(other), Trainer(other, **(SGD | changes)))
        for batch in (7, 7, 2, 7):
            feature, gradient = torch.randn(batch, 6, dtype=dtype), torch.randn(batch, 4, dtype=dtype)
            logits = head(feature).detach()
            assert_close(ours.forward(feature, logits), theirs.forward(feature, logits), tolerance)
            ours.backward(gradient)
            theirs.backward(gradient)
    first, second = ours._trainer.state_tensors(), theirs._trainer.state_tensors()
    assert list(first) == list(second)
    assert any(name.startswith("momentum.") for name in first) == ("momentum" not in changes)
    for name in first:
        assert_close(first[name], second[name], tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_corrects_nothing_gives_the_teachers_logits_to_the_bit(kind):
    with seeded(2):
        head = nn.Linear(6, 4)
        adapter = TeacherAdapter(6, 4, 5, kind=kind, head=head)
        feature = torch.randn(3, 6)
    logits = head(feature).detach()
    assert torch.equal(NumpyAdapterStep(adapter, Trainer(adapter, **SGD)).forward(feature, logits), logits)


def test_an_adapter_that_others_moved_or_loaded_goes_on_where_it_then_is():
    with seeded(3):
        adapter, head = random_adapter("serial", torch.float64)
        feature, gradient = torch.randn(7, 6, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    trainer = Trainer(adapter, **SGD)
    step = NumpyAdapterStep(adapter, trainer)

    def take_step() -> dict[str, Tensor]:
        step.forward(feature, head(feature).detach())
        step.backward(gradient)
        return {name: tensor.clone() for name, tensor in trainer.state_tensors().items()}

    start = {name: tensor.clone() for name, tensor in trainer.state_tensors().items()}
    first = take_step()
    second = take_step()
    assert not torch.equal(first["momentum.w3.bias"], second["momentum.w3.bias"])
    trainer.load_state_tensors(first)
    assert all(torch.equal(second[name], tensor) for name, tensor in take_step().items())
    trainer.load_state_tensors(start)  # before the first step, so without momenta
    assert all(torch.equal(first[name], tensor) for name, tensor in take_step().items())
    trainer.leave()
    trainer.align()
    assert all(torch.equal(second[name], tensor) for name, tensor in take_step().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "kd"},
        {"detach_adapter_target": True},
        {"adapter_kind": "parallel", "adapter_momentum": 0.0},
        {"adapter_kind": "logit", "adapter_weight_decay": 0.0},
        {"adapter_kind": "feature", "adapter_init": "default"},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_a_trial_of_small_batches_runs_in_numpy_and_is_what_it_is_in_torch(changes, digits, teacher):
    ours = DistillationRun(small_config(**changes), digits, teacher)
    theirs = in_torch(DistillationRun(small_config(**changes), digits, teacher))
    assert is_in_numpy(ours)
    assert not is_in_numpy(theirs)
    batches = list(ours.batches.of_epoch(0, None))
    batches = [*batches[:3], batches[-1]]  # the last one is smaller
    assert len(batches[-1].labels) < len(batches[0].labels)
    logs = []
    for run in (ours, theirs):
        logs.append([])
        for trainer in run.trainers.values():
            trainer.module.train()
            trainer.begin_epoch(0)
        for batch in batches:
            run.train_batch(batch, _Kept(logs[-1]))
    for (one, _), (other, _) in zip(*logs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-2 if ours.config.precision == "bf16" else 1e-4)
    for (name, one), other in zip(
        ours.state_dict()["tensors"].items(), theirs.state_dict()["tensors"].values(), strict=True
    ):
        tolerance = 1e-2 if ours.config.precision == "bf16" else 1e-4
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)


class _Kept:
    """Keeps the arguments of `LossLog.add_later`."""

    def __init__(self, heard: list[tuple[Tensor, Tensor]]) -> None:
        self._heard = heard

    def add_later(self, log_p: Tensor, labels: Tensor) -> None:
        self._heard.append((log_p, labels))


def test_a_trial_goes_on_in_numpy_from_a_checkpoint_of_a_trial_in_torch(digits, teacher, tmp_path):
    theirs = in_torch(DistillationRun(small_config(), digits, teacher))
    theirs.train_epoch()
    save_checkpoint(theirs, tmp_path)
    ours = DistillationRun(small_config(), digits, teacher)
    ours.train_epoch()
    assert list(ours.state_dict()["tensors"]) == list(theirs.state_dict()["tensors"])
    load_checkpoint(ours, tmp_path)
    for name, tensor in theirs.state_dict()["tensors"].items():
        assert torch.equal(ours.state_dict()["tensors"][name], tensor), name
    assert ours.train_epoch()["train/loss"] == pytest.approx(theirs.train_epoch()["train/loss"], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_resumed_in_its_middle_has_the_bits_of_one_never_stopped(kind, digits, teacher, make_store, tmp_path):
    def start() -> DistillationRun:
        outputs = StoredTeacherOutputs(make_store())
        config = small_config(adapter_kind=kind, adapter_init="default")
        return DistillationRun(config, digits, teacher, teacher_outputs=outputs)

    whole, resumed = start(), start()
    whole.train_epoch()
    save_checkpoint(whole, tmp_path)
    load_checkpoint(resumed, tmp_path)
    assert whole.train_epoch() == resumed.train_epoch()
    for name, tensor in whole.state_dict()["tensors"].items():
        assert torch.equal(resumed.state_dict()["tensors"][name], tensor), name


@pytest.mark.parametrize("changes", [{}, {"adapter_kind": "feature"}, {"adapter_width": 1}], ids=str)
def test_how_many_threads_there_are_changes_no_bit(changes, digits, teacher):
    states = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            torch.set_num_threads(1)  # threads of the student's step
            run = DistillationRun(small_config(**changes), digits, teacher)
            assert is_in_numpy(run)
            run.train_epoch()
            states.append(run.state_dict()["tensors"])
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name


def test_logits_that_are_not_finite_give_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        form = NumpyForm(ClosedForm(**NUMBERS, adapter_ce_weight=1.0))
        student, target_logits, labels = random_batch(3, torch.float32)
        spoilt = form(student, target_logits * float("inf"), labels)
        assert spoilt.log_p[1].isnan().any()
        assert form(student, target_logits, labels).student.isfinite().all()


def test_larger_problems_and_other_devices_stay_in_torch():
    head = nn.Linear(2048, 1000)
    small, large = (TeacherAdapter(*sizes, 16, head=head) for sizes in ((256, 10), (2048, 1000)))
    assert fits_form(CPU, 64, 10)
    assert fits_adapter(small, CPU, 64)
    assert not fits_form(CPU, 64, 1000)
    assert not fits_adapter(large, CPU, 64)
    assert not fits_adapter(small, CPU, 4096)
    assert not fits_form(torch.device("cuda"), 64, 10)
    assert not fits_adapter(small, torch.device("cuda"), 64)
    assert not fits_adapter(TeacherAdapter(2048, 10, 16), CPU, 1)  # a matrix-vector product, which uses several threads
    assert not fits_adapter(TeacherAdapter(256, 10, 1, kind="parallel"), CPU, 64)
    assert not fits_adapter(TeacherAdapter(2048, 1000, 1, kind="feature", head=head), CPU, 1)
