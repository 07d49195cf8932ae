"""Adapters that are not trained with the student, and the average of several adapters."""

import copy

import pytest
import torch

from tests.trainables.conftest import small_config, without_costs
from trainables.conformance.case import state_of
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.learners import build_adapter
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig, derive_seed
from trainables.steps.adapter import AdapterAverage


def weights(run: DistillationRun) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.adapter.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_frozen_adapter_keeps_its_random_weights_and_changes_the_target(digits, teacher):
    run = DistillationRun(small_config(adapter_training="frozen", adapter_init="default"), digits, teacher)
    began = weights(run)
    measures = run_epoch(run)
    assert equal(weights(run), began)
    assert measures["train/adapter_shift"] == 0.0
    assert measures["val/sharpness_adapted"] != measures["val/sharpness_teacher"]
    # Only the student is trained, and the ledger counts no backward pass of the adapter.
    assert measures["cost/trainable_parameters"] == sum(p.numel() for p in run.student.parameters())
    ledger = count_costs(run)
    assert ledger.flops["adapter"].forward > 0 == ledger.flops["adapter"].backward
    joint = DistillationRun(small_config(adapter_init="default"), digits, teacher)
    assert equal(weights(joint), began)
    assert ledger.flops["adapter"].forward == count_costs(joint).flops["adapter"].forward


def test_an_adapter_trained_first_is_that_of_a_whole_trial_with_another_student(digits, teacher, tmp_path):
    config = small_config(adapter_training="first", seed=5, adapter_learning_rate=0.05)
    run = DistillationRun(config, digits, teacher)
    before = weights(run)
    measures = [without_costs(run_epoch(run))]
    save_checkpoint(run, tmp_path)
    taken = weights(run)
    assert not equal(taken, before)
    assert measures[0]["train/adapter_shift"] > 0.05
    other = {"adapter_training": "joint", "seed": derive_seed("adapted first", 5)}
    first = DistillationRun(TrialConfig(**{**config.model_dump(), **other}), digits, teacher)
    while not first.finished:
        run_epoch(first)
    assert equal(weights(first), taken)
    joint = DistillationRun(small_config(seed=5), digits, teacher)
    fresh = DistillationRun(config, digits, teacher)
    assert equal(joint.student.state_dict(), fresh.student.state_dict())
    assert not equal(fresh.student.state_dict(), first.student.state_dict())

    resumed = DistillationRun(config, digits, teacher)
    load_checkpoint(resumed, tmp_path)
    while not run.finished:
        assert without_costs(run_epoch(run)) == without_costs(run_epoch(resumed))
    assert equal(weights(run), taken)
    assert equal(state_of(run), state_of(resumed))


def test_the_logits_of_several_adapters_are_averaged_and_each_learns(digits, teacher):
    config = small_config(adapter_count=3, adapter_init="default", adapter_learning_rate=0.05)
    run = DistillationRun(config, digits, teacher)
    assert isinstance(run.adapter, AdapterAverage)
    assert run.closed_form is None
    alone = build_adapter(small_config(adapter_init="default"), teacher.head, torch.device("cpu"))
    assert equal(alone.state_dict(), run.adapter.members[0].state_dict())
    outputs = run.predictor.of_frozen_teacher(run.teacher_outputs)
    with torch.no_grad():
        parts = [member(outputs.feature, outputs.logits).double() for member in run.adapter.members]
        together = run.adapter(outputs.feature, outputs.logits).double()
    assert not torch.allclose(parts[0], parts[1])
    torch.testing.assert_close(together, sum(parts) / 3, rtol=1e-5, atol=1e-5)
    before = [copy.deepcopy(member.state_dict()) for member in run.adapter.members]
    run.train_epoch()
    assert not any(equal(old, member.state_dict()) for old, member in zip(before, run.adapter.members, strict=True))


def test_a_frozen_adapter_that_changes_nothing_is_refused():
    with pytest.raises(ValueError, match="frozen at a zero init changes no logit: set adapter_init=default"):
        TrialConfig(adapter_training="frozen")
    with pytest.raises(ValueError, match="a gap is imposed by training the adapter"):
        TrialConfig(adapter_training="frozen", adapter_init="default", gap_control="centred")
    assert TrialConfig(method="kd", adapter_training="frozen").method == "kd"
