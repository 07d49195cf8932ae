"""Trials trained by several workers: threads with a real process group, each with a separate run."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainables.conftest import small_config
from tests.trainables.packing.runs import (
    assert_same_measures,
    assert_same_state,
    in_float64,
    random_dataset,
)
from tests.trainables.run.together import run_together, shared, together
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.run.workers import Workers, share_norms
from trainables.steps.loss_log import LossLog
from trainables.steps.step import AutogradStep
from trainables.teacher_outputs.store import StoredTeacherOutputs

pytestmark = pytest.mark.study

# One method of each kind: loss per sample, adapter, relations within the batch, random draws, trained parts with
# memory, feature maps, peer, trained teacher.
METHODS = ("ce", "kd", "pesf_kd", "dist", "rkd", "pkt", "crd", "ctkd", "fitnet", "sp", "dml", "full_teacher")


def without_norms(run: DistillationRun) -> DistillationRun:
    """Replace the batch norms of the student by identities."""
    for name, module in list(run.student.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(run.student.get_submodule(parent), child, nn.Identity())
    return run


def gradients(run: DistillationRun) -> dict[str, torch.Tensor]:
    """Return copies of all gradients of a run by name."""
    return {
        f"{who}.{name}": parameter.grad.clone()
        for who, trainer in run.trainers.items()
        for name, parameter in trainer.parameters.items()
        if parameter.grad is not None
    }


def first_step(run: DistillationRun) -> dict[str, torch.Tensor]:
    """Return the gradients of the first batch by autograd, even if a run without workers would use a closed form."""
    if run.workers is None:
        run.step = AutogradStep(list(run.trainers.values()))
    run.begin_drawing()
    run.student.train()
    batch = next(iter(run._batches_of_epoch()))
    run.train_batch(batch, LossLog(None))
    return gradients(run)


@pytest.mark.parametrize("norms", [False, True], ids=["without_norms", "with_norms"])
@pytest.mark.parametrize("method", ["pesf_kd", "dist", "rkd"])
def test_the_gradient_of_two_workers_is_that_of_one(norms, method, digits, teacher):
    config = small_config(method=method, adapter_init="default")
    change = (lambda run: run) if norms else without_norms
    alone = first_step(change(in_float64(DistillationRun(config, digits, copy.deepcopy(teacher)))))
    assert any(name.startswith("student.") for name in alone)
    assert (method == "pesf_kd") == any(name.startswith("adapter.") for name in alone)
    # Built one after the other, because all threads share the generator of the initial weights.
    runs: dict[int, DistillationRun] = {}

    def work(workers: Workers) -> dict[str, torch.Tensor]:
        runs[workers.rank].workers.group = workers.group
        return first_step(runs[workers.rank])

    for rank in (0, 1):
        runs[rank] = change(shared(config, digits, teacher, Workers(rank, 2, None)))
    for found in together(2, work):
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            scale = float(gradient.abs().max()) or 1.0
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12 * max(1.0, scale), msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_of_two_workers_is_the_trial_of_one(method, digits, teacher):
    config = small_config(method=method, epochs=2, crd_negatives=64)
    alone = in_float64(DistillationRun(config, digits, copy.deepcopy(teacher)))
    expected = [run_epoch(alone) for _ in range(2)]
    found = run_together(lambda workers: shared(config, digits, teacher, workers), 2, 2)
    for run, measures in found:
        assert_same_state(run, alone, 1e-11)
        for ours, theirs in zip(measures, expected, strict=True):
            assert ours["cost/workers"] == 2
            assert_same_measures({**ours, "cost/workers": 1.0}, theirs, 1e-9)
            assert ours["cost/teacher_forwards"] == theirs["cost/teacher_forwards"]
    first, second = (run.state_dict()["tensors"] for run, _ in found)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items()), "the workers have drifted apart"


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_workers_clip_the_gradient_of_the_whole_batch(optimiser, digits, teacher):
    config = small_config(method="pesf_kd", epochs=1, optimiser=optimiser, clip_norm=0.01)
    alone = in_float64(DistillationRun(config, digits, copy.deepcopy(teacher)))
    free = in_float64(DistillationRun(config.model_copy(update={"clip_norm": 0.0}), digits, copy.deepcopy(teacher)))
    run_epoch(alone)
    run_epoch(free)
    for run, _ in run_together(lambda workers: shared(config, digits, teacher, workers), 2, 1):
        assert_same_state(run, alone, 1e-11)
    ours, theirs = alone.student.head.weight, free.student.head.weight
    assert (ours - theirs).abs().max() > 1e-6, "no gradient was longer than the limit"


@pytest.mark.parametrize(("size", "samples"), [(2, 41), (3, 41), (3, 42)])
def test_a_last_batch_that_leaves_a_worker_nothing_is_no_trouble(size, samples, teacher):
    dataset = random_dataset(8, 1, samples)
    config = small_config(epochs=1, batch_size=20)
    alone = in_float64(DistillationRun(config, dataset, copy.deepcopy(teacher)))
    expected = run_epoch(alone)
    for run, measures in run_together(lambda workers: shared(config, dataset, teacher, workers), size, 1):
        assert_same_state(run, alone, 1e-11)
        assert_same_measures({**measures[0], "cost/workers": 1.0}, expected, 1e-9)


def test_stored_outputs_of_the_teacher_serve_workers_too(digits, teacher, make_store):
    config = small_config(epochs=1)
    alone = DistillationRun(config, digits, teacher, teacher_outputs=StoredTeacherOutputs(make_store()))
    expected = run_epoch(alone)
    make = lambda workers: DistillationRun(  # noqa: E731
        config, digits, teacher, workers=workers, teacher_outputs=StoredTeacherOutputs(make_store())
    )
    for _, (measures,) in run_together(make, 2, 1):
        assert measures["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5)
        assert measures["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-3)


def test_a_trial_goes_on_with_another_number_of_workers(digits, teacher, tmp_path):
    config = small_config(epochs=3)
    alone = in_float64(DistillationRun(config, digits, copy.deepcopy(teacher)))
    for _ in range(3):
        expected = run_epoch(alone)
    (two, _), _ = run_together(lambda workers: shared(config, digits, teacher, workers), 2, 1)
    save_checkpoint(two, tmp_path / "two")

    def resumed(workers: Workers) -> DistillationRun:
        run = shared(config, digits, teacher, workers)
        load_checkpoint(run, tmp_path / "two")
        return run

    (three, _), _, _ = run_together(resumed, 3, 1)
    assert three.epoch == 2
    save_checkpoint(three, tmp_path / "three")
    one = in_float64(DistillationRun(config, digits, copy.deepcopy(teacher)))
    load_checkpoint(one, tmp_path / "three")
    measures = run_epoch(one)
    assert_same_state(one, alone, 1e-11)
    assert measures["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-9)


def test_a_copy_of_a_shared_network_computes_alone(digits, teacher):
    run = DistillationRun(small_config(), digits, copy.deepcopy(teacher), workers=Workers(0, 2, None))
    alone = DistillationRun(small_config(), digits, copy.deepcopy(teacher))
    assert copy.deepcopy(run.student).train()(torch.zeros(4, 1, 8, 8)).shape == (4, 10)
    assert count_costs(run).facts == count_costs(alone).facts
    assert run.state_dict()["tensors"].keys() == alone.state_dict()["tensors"].keys()


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_shared_norm_is_the_norm_of_all_rows_with_its_gradient(kind, momentum):
    generator = torch.Generator().manual_seed(0)
    shape = (7, 3) if kind is nn.BatchNorm1d else (7, 3, 2, 5)
    images = 3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    pull = torch.randn(shape, generator=generator, dtype=torch.float64)
    norm = kind(3, momentum=momentum).double()
    norm.weight.data.uniform_(0.5, 2, generator=generator)
    given = images.clone().requires_grad_()
    expected = norm(norm(given))  # applied twice, because a network has several
    expected.backward(pull)
    copies = []
    for _ in range(3):
        copies.append(kind(3, momentum=momentum).double())
        copies[-1].weight.data.copy_(norm.weight.data)

    def work(workers: Workers) -> tuple[Any, ...]:
        own, rows = copies[workers.rank], workers.rows(7)
        share_norms(own, workers)
        part = images[rows].clone().requires_grad_()
        result = own(own(part))
        result.backward(pull[rows])
        return result.detach(), part.grad, own.weight.grad, own

    found = together(3, work)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(torch.cat([each[0] for each in found]), expected.detach(), **close)
    torch.testing.assert_close(torch.cat([each[1] for each in found]), given.grad, **close)
    torch.testing.assert_close(sum(each[2] for each in found), norm.weight.grad, **close)
    for each in found:
        torch.testing.assert_close(each[3].state_dict(), norm.state_dict(), **close)
