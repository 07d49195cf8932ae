"""The three implementations of a training step, and the choice of one of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.trainables.conftest import small_config
from tests.trainables.packing.runs import assert_same_state, in_float64
from trainables.losses.parts import LossParts
from trainables.packing.step import PackedStep
from trainables.run.run import DistillationRun
from trainables.run.workers import Workers
from trainables.steps.adapter_formulas import AdapterStep
from trainables.steps.closed_form import ClosedForm
from trainables.steps.loss_log import LossLog
from trainables.steps.numpy_step import NumpyAdapterStep, NumpyForm
from trainables.steps.sgd import Trainer
from trainables.steps.step import AutogradStep, BatchLosses, ClosedFormStep, formula_step

FORMULAS = (
    {"method": "kd"},
    {"method": "kd", "student_momentum": 0.0},
    {"adapter_kind": "serial", "adapter_init": "default"},
    {"adapter_kind": "parallel", "adapter_weight_decay": 0.0},
    {"adapter_kind": "logit", "adapter_momentum": 0.0},
    {"adapter_kind": "feature", "adapter_init": "default", "detach_adapter_target": True},
    {"student_schedule": "one_cycle", "adapter_schedule": "one_cycle"},
)


def in_numpy(run: DistillationRun) -> None:
    assert isinstance(run.step, ClosedFormStep)
    assert isinstance(run.step.gradients, NumpyForm)
    assert run.adapter is None or isinstance(run.step.adapter, NumpyAdapterStep)


def in_torch(run: DistillationRun) -> None:
    run.step = formula_step(run.closed_form, run.trainers)


def by_autograd(run: DistillationRun) -> None:
    run.step = AutogradStep(list(run.trainers.values()))


@pytest.mark.parametrize("changes", FORMULAS, ids=str)
def test_autograd_formulas_and_numpy_take_the_same_steps(changes, digits, teacher):
    def trained(implementation: Callable[[DistillationRun], None]) -> tuple[DistillationRun, dict[str, float]]:
        run = in_float64(DistillationRun(small_config(**changes), digits, teacher))
        implementation(run)
        if "student_schedule" in changes:
            run.train_epoch()  # the next epoch has other rates
        return run, run.train_epoch()

    (expected, losses), *others = (trained(each) for each in (by_autograd, in_torch, in_numpy))
    for run, found in others:
        assert_same_state(run, expected, 1e-12)
        assert found == pytest.approx(losses, rel=1e-12)


def test_a_step_is_in_numpy_for_small_batches_in_torch_for_large_ones_and_by_autograd_without_formulas(digits, teacher):
    def step_of(**changes: object) -> AutogradStep | ClosedFormStep:
        return DistillationRun(small_config(**changes), digits, teacher).step

    small, wide, large = step_of(), step_of(adapter_width=256), step_of(batch_size=1000, adapter_width=256)
    assert [type(each.gradients) for each in (small, wide, large)] == [NumpyForm, NumpyForm, ClosedForm]
    assert [type(each.adapter) for each in (small, wide, large)] == [NumpyAdapterStep, AdapterStep, AdapterStep]
    # NumPy implements only plain SGD.
    for changes in ({"clip_norm": 1.0}, {"adapter_schedule": "linear"}, {"optimiser": "adamw"}):
        step = step_of(**changes)
        assert (type(step.gradients), type(step.adapter)) == (NumpyForm, AdapterStep), changes
    for changes in ({"method": "dkd"}, {"gap_control": "paper"}, {"distance": "mse"}, {"method": "dml"}):
        assert isinstance(step_of(**changes), AutogradStep), changes


def test_workers_and_packs_choose_from_the_same_implementations(digits, teacher):
    shared = DistillationRun(small_config(), digits, teacher, workers=Workers(0, 2, None))
    assert isinstance(shared.step, AutogradStep)  # a closed form needs the whole batch
    for method, kind in (("pesf_kd", ClosedFormStep), ("kd", ClosedFormStep), ("dkd", AutogradStep)):
        runs = [DistillationRun(small_config(method=method, seed=seed), digits, teacher) for seed in (0, 1)]
        assert isinstance(PackedStep(runs).step, kind)


class _Trials:
    """Trials with one parameter each and its square as loss. Two trials have a leading axis."""

    def __init__(self, numbers: nn.Parameter) -> None:
        self._numbers = numbers

    def batch_losses(self, batch: Tensor) -> BatchLosses:
        squares = (self._numbers * batch).square()
        return BatchLosses(LossParts(squares, ce=squares), 4)


@pytest.mark.parametrize("numbers", [3.0, [3.0, 5.0]], ids=["one_trial", "two_trials"])
def test_autograd_takes_the_gradient_of_the_sum_of_all_trials_and_logs_the_losses_before_the_update(numbers):
    module = nn.Module()
    module.numbers = nn.Parameter(torch.tensor(numbers))
    trainer = Trainer(module, learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", epochs=1)
    before, log = module.numbers.detach().clone(), LossLog()
    reduced = []

    def all_reduce() -> None:
        reduced.append(module.numbers.grad.clone())
        module.numbers.grad *= 2  # another worker with the same gradient

    step = AutogradStep([trainer], all_reduce=all_reduce)
    module.numbers.grad = torch.full_like(before, 7.0)  # left by an earlier backward pass, and ignored
    step.train_batch(_Trials(module.numbers), torch.tensor(2.0), log)
    torch.testing.assert_close(reduced[0], 8 * before)
    torch.testing.assert_close(module.numbers.detach(), before - 0.1 * 16 * before)
    torch.testing.assert_close(log.read().values[0, ..., 0], (4 * before.square()).double())
