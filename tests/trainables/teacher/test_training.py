from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch

from tests.trainables.conftest import IMAGE_METHODS, small_config
from trainables.costs.epoch import run_epoch
from trainables.data.dataset import Dataset
from trainables.data.views import batch_order
from trainables.models import build_model
from trainables.run.run import DistillationRun
from trainables.spec.measures import (
    CALIBRATION,
    COST_MEASURES,
    ENERGY_MEASURES,
    TASK_MEASURES,
    TEACHER_GAPS,
    TEST_MEASURES,
    TRAINING_MEASURES,
    VALIDATION_MEASURES,
)
from trainables.spec.measures import MEASURES as ALL_MEASURES
from trainables.steps.loss_log import LossLog, NonFiniteLossError
from trainables.steps.sgd import schedule_factor
from trainables.teacher_outputs.frozen import FrozenTeacher

pytestmark = pytest.mark.study

# Energy measures depend on the machine. Some measures belong to other tasks or to ensembles.
MEASURES = tuple(name for name in ALL_MEASURES if name not in (*ENERGY_MEASURES, *TASK_MEASURES, *TEACHER_GAPS))
# Measures of a peer, and of an imposed gap.
ELSEWHERE = {"val/accuracy_peer", "train/loss_peer", "train/loss_gap"}
TIMED = ("cost/seconds", "cost/examples_per_second", "cost/peak_memory_bytes")


def test_pesf_kd_reports_every_measure_but_the_test_splits_and_a_peers(digits, teacher):
    measures = run_epoch(DistillationRun(small_config(), digits, teacher))
    assert set(measures) - set(ENERGY_MEASURES) == set(MEASURES) - set(TEST_MEASURES) - ELSEWHERE - {
        "train/loss_adapter_kd"
    }
    assert all(np.isfinite(value) for value in measures.values())


def test_a_method_leaves_out_what_it_does_not_have(digits, teacher):
    kd = run_epoch(DistillationRun(small_config(method="kd"), digits, teacher))
    ce = run_epoch(DistillationRun(small_config(method="ce"), digits, teacher))
    adapted = {"val/accuracy_adapted", "val/sharpness_adapted", "val/entropy_adapted", "val/ece_adapted"}
    everything = set(VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES) - ELSEWHERE - adapted
    everything -= set(ENERGY_MEASURES) - set(kd)
    everything -= {"train/loss_adapter", "train/loss_adapter_kd", "train/adapter_shift"}
    assert set(kd) == everything
    assert set(ce) == everything - {"train/loss_kd", "cost/teacher_training_seconds"}
    assert kd["cost/adapter_parameters"] == ce["cost/adapter_parameters"] == 0


def test_the_teacher_never_touches_a_student_that_learns_by_cross_entropy(digits, teacher):
    with_teacher = DistillationRun(small_config(method="ce"), digits, teacher)
    alone = DistillationRun(small_config(method="ce"), digits, None)
    first, second = run_epoch(with_teacher), run_epoch(alone)
    assert first["val/accuracy"] == second["val/accuracy"]
    assert first["train/loss"] == second["train/loss"]
    assert "val/sharpness_gap" in first
    assert "val/sharpness_gap" not in second
    assert second["cost/teacher_forwards"] == 0


def test_neither_training_nor_evaluation_reads_the_test_split(digits, teacher, monkeypatch):
    def refuse(self: Dataset) -> None:
        pytest.fail("the test split was read")

    monkeypatch.setattr(Dataset, "test", property(refuse))
    monkeypatch.setattr(digits, "_read_test", lambda: refuse(digits))
    for method in IMAGE_METHODS:
        run = DistillationRun(small_config(method=method, epochs=1), digits, teacher)
        run_epoch(run)
    with pytest.raises(pytest.fail.Exception, match="was read"):
        run.evaluate_test()


def test_the_test_accuracy_is_of_the_test_split(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    run.train_epoch()
    run.student.eval()
    images = (digits.test.images / 255 - digits.mean[0]) / digits.std[0]
    with torch.no_grad():
        expected = (run.student(images).argmax(dim=1) == digits.test.labels).double().mean().item()
    assert run.evaluate_test() == {"test/accuracy": pytest.approx(expected, abs=1.5 / 360)}


def test_a_trial_that_confirms_reads_the_test_split_at_its_last_epoch_and_else_does_what_it_always_does(
    digits, teacher
):
    plain, confirming = (
        DistillationRun(small_config(epochs=2), digits, teacher, reads_test=reads_test) for reads_test in (False, True)
    )
    assert "test/accuracy" not in run_epoch(confirming)
    run_epoch(plain)
    last = run_epoch(confirming)
    assert last["test/accuracy"] == confirming.evaluate_test()["test/accuracy"]
    expected = run_epoch(plain)
    assert {name: last[name] for name in expected if not name.startswith("cost/")} == {
        name: value for name, value in expected.items() if not name.startswith("cost/")
    }


def test_calibration_is_told_after_the_last_epoch_of_every_network_and_of_no_other_epoch(digits, teacher):
    run = DistillationRun(small_config(epochs=2), digits, teacher, reads_test=True)
    run_epoch(run)
    assert run.calibration == {}
    measures = run_epoch(run)
    assert tuple(run.calibration) == CALIBRATION
    for split, network in (("val", "student"), ("val", "teacher"), ("val", "adapted"), ("test", "student")):
        sums = run.calibration[f"calibration/{split}_{network}"]
        images = len(digits.validation if split == "val" else digits.test)
        assert sum(sums["count"]) == images
        accuracy = (
            {"student": "val/accuracy"}.get(network, f"val/accuracy_{network}") if split == "val" else "test/accuracy"
        )
        assert sum(sums["correct"]) / images == pytest.approx(measures[accuracy])
        if split == "val":
            apart = sum(abs(x - y) for x, y in zip(sums["correct"], sums["confidence"], strict=True))
            assert apart / images == pytest.approx(measures[f"val/ece_{network}"])


def test_a_trial_without_an_adapter_and_one_without_a_teacher_tell_of_the_networks_that_they_have(digits, teacher):
    kd, ce = (
        DistillationRun(small_config(method=method, epochs=1), digits, given)
        for method, given in (("kd", teacher), ("ce", None))
    )
    for run in (kd, ce):
        run_epoch(run)
    assert tuple(kd.calibration) == CALIBRATION[:2]
    assert tuple(ce.calibration) == CALIBRATION[:1]


def test_each_seed_draws_its_own_things(digits, teacher):
    def start(**changes: object) -> DistillationRun:
        return DistillationRun(small_config(adapter_init="default", **changes), digits, teacher)

    plain, reseeded, reordered = start(), start(seed=1), start(data_seed=1)
    assert not torch.equal(plain.student.head.weight, reseeded.student.head.weight)
    assert not torch.equal(plain.adapter.w3.weight, reseeded.adapter.w3.weight)
    assert torch.equal(plain.student.head.weight, reordered.student.head.weight)
    assert plain.train_epoch()["train/loss_ce"] != reordered.train_epoch()["train/loss_ce"]


def test_methods_with_the_same_seed_start_from_the_same_student(digits, teacher):
    starts = [DistillationRun(small_config(method=m), digits, teacher).student.state_dict() for m in IMAGE_METHODS]
    for other in starts[1:]:
        assert all(torch.equal(starts[0][name], other[name]) for name in starts[0])


def test_layers_that_draw_random_numbers_draw_from_seed_and_epoch(digits, teacher):
    def noisy(seed: int) -> DistillationRun:
        run = DistillationRun(small_config(method="ce", seed=seed), digits, None)
        run.drawn = []

        def draw(module, inputs):
            if run.student.training:
                run.drawn.append(torch.rand(1).item())

        run.student.head.register_forward_pre_hook(draw)
        return run

    torch.manual_seed(1)
    first = noisy(0)
    first.train_epoch()
    first.train_epoch()
    torch.manual_seed(2)
    second = noisy(0)
    second.load_state_dict({**second.state_dict(), "epoch": 1})
    second.train_epoch()
    assert len(first.drawn) == 2 * len(second.drawn)
    assert first.drawn[len(second.drawn) :] == second.drawn
    assert len(set(first.drawn)) == len(first.drawn)


def test_with_a_zero_adapter_that_does_not_move_pesf_kd_is_kd(digits, teacher):
    still = small_config(adapter_learning_rate=1e-30, adapter_momentum=0.0, adapter_weight_decay=0.0)
    pesf_kd = DistillationRun(still, digits, teacher)
    kd = DistillationRun(small_config(method="kd"), digits, teacher)
    ours, theirs = run_epoch(pesf_kd), run_epoch(kd)
    assert ours["train/loss_kd"] == theirs["train/loss_kd"]
    assert ours["val/sharpness_gap"] == theirs["val/sharpness_gap"]
    for name, tensor in kd.student.state_dict().items():
        assert torch.equal(pesf_kd.student.state_dict()[name], tensor), name


@pytest.mark.parametrize("kind", ["serial", "parallel", "logit", "feature"])
def test_every_kind_of_adapter_is_trained(kind, digits, teacher):
    run = DistillationRun(small_config(adapter_kind=kind), digits, teacher)
    before = [parameter.detach().clone() for parameter in run.adapter.parameters()]
    measures = run_epoch(run)
    assert all(not torch.equal(old, new) for old, new in zip(before, run.adapter.parameters(), strict=True))
    counts = {"serial": 64 * 10 + 10 + 10 * 16 + 16, "parallel": 64 * 10 + 10 + 64 * 16 + 16}
    counts |= {"logit": 10 * 16 + 16, "feature": 64 * 16 + 16}
    last = 16 * 64 + 64 if kind == "feature" else 16 * 10 + 10
    assert measures["cost/adapter_parameters"] == counts[kind] + last
    student = sum(parameter.numel() for parameter in run.student.parameters())
    assert measures["cost/trainable_parameters"] == student + counts[kind] + last


def test_the_teacher_does_not_change_and_no_optimiser_knows_it(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    run_epoch(run)
    run_epoch(run)
    assert FrozenTeacher(teacher.model).digest == run.identity["teacher"]
    frozen = {id(parameter) for parameter in teacher.parameters()}
    for trainer in run.trainers.values():
        known = {id(parameter) for parameter in trainer.parameters.values()}
        assert not frozen & known


def test_a_teacher_put_into_train_mode_changes_no_bit(digits, teacher):
    first = run_epoch(DistillationRun(small_config(), digits, teacher))
    teacher.train()
    second = run_epoch(DistillationRun(small_config(), digits, teacher))
    assert first["train/loss"] == second["train/loss"]


@pytest.mark.parametrize(("student", "adapter"), [("cosine", "constant"), ("step", "cosine"), ("constant", "step")])
def test_the_schedules_of_student_and_adapter_are_apart(student, adapter, digits, teacher):
    config = small_config(
        student_schedule=student,
        adapter_schedule=adapter,
        student_learning_rate=0.02,
        adapter_learning_rate=0.003,
        epochs=8,
    )
    run = DistillationRun(config, digits, teacher)
    for epoch in range(8):
        run.train_epoch()
        assert run.student_trainer.rate == pytest.approx(0.02 * schedule_factor(student, epoch, 8))
        assert run.adapter_trainer.rate == pytest.approx(0.003 * schedule_factor(adapter, epoch, 8))


def test_each_optimiser_has_its_own_settings_and_its_own_parameters(digits, teacher):
    config = small_config(
        student_momentum=0.1, student_weight_decay=0.2, adapter_momentum=0.3, adapter_weight_decay=0.4
    )
    run = DistillationRun(config, digits, teacher)
    student, adapter = run.student_trainer, run.adapter_trainer
    assert (student.momentum, student.weight_decay) == (0.1, 0.2)
    assert (adapter.momentum, adapter.weight_decay) == (0.3, 0.4)
    assert [id(p) for p in student.parameters.values()] == [id(p) for p in run.student.parameters()]
    assert [id(p) for p in adapter.parameters.values()] == [id(p) for p in run.adapter.parameters()]


def test_every_sample_is_seen_once_an_epoch_the_left_over_ones_too(digits, teacher):
    run = DistillationRun(small_config(method="ce", batch_size=500), digits, None)
    seen = [batch.indices for batch in run.batches.of_epoch(0, None)]
    assert [len(indices) for indices in seen] == [500, 500, 77]
    assert torch.equal(torch.cat(seen), batch_order(1077, data_seed=0, epoch=0))


def test_without_augmentation_images_stay_as_they_are(digits, teacher):
    run = DistillationRun(small_config(augmentation="none"), digits, teacher)
    indices = torch.arange(5)
    expected = (digits.train.images[:5] / 255 - digits.mean[0]) / digits.std[0]
    torch.testing.assert_close(run.batches.batch(indices, 0).inputs, expected)
    assert {batch.slot for epoch in range(3) for batch in run.batches.of_epoch(epoch, None)} == {0}


def test_the_loss_of_an_epoch_is_the_mean_over_samples_not_over_batches(digits, teacher):
    # At a rate of nearly zero, the weights do not change, so the loss of each batch can be computed separately.
    config = small_config(method="kd", batch_size=1000, student_learning_rate=1e-30, augmentation="none")
    run = DistillationRun(config, digits, teacher)
    measures = run.train_epoch()
    totals, ces = [], []
    order = batch_order(1077, data_seed=0, epoch=0)
    for indices in (order[:1000], order[1000:]):
        images = (digits.train.images[indices] / 255 - digits.mean[0]) / digits.std[0]
        run.student.train()
        with torch.no_grad():
            student, taught = run.student(images).double().numpy(), teacher(images).logits.double().numpy()
        labels = digits.train.labels[indices].numpy()
        ce = -scipy.special.log_softmax(student, axis=1)[np.arange(len(labels)), labels].sum()
        p, q = scipy.special.log_softmax(taught / 4, axis=1), scipy.special.log_softmax(student / 4, axis=1)
        kd = 16 * (np.exp(p) * (p - q)).sum()
        ces.append(ce)
        totals.append(config.ce_weight * ce + config.kd_weight * kd)
    assert measures["train/loss_ce"] == pytest.approx(sum(ces) / 1077, rel=1e-5)
    assert measures["train/loss"] == pytest.approx(sum(totals) / 1077, rel=1e-5)


def test_teacher_forwards_count_training_each_epoch_and_validation_once(digits, teacher):
    pesf_kd = DistillationRun(small_config(), digits, teacher)
    counts = [run_epoch(pesf_kd)["cost/teacher_forwards"] for _ in range(3)]
    assert counts == [1077 + 360, 1077, 1077]
    ce = DistillationRun(small_config(method="ce"), digits, teacher)
    assert [run_epoch(ce)["cost/teacher_forwards"] for _ in range(2)] == [360, 0]


def test_every_validation_measure_agrees_with_numpy(digits, teacher):
    run = DistillationRun(small_config(temperature=3.0), digits, teacher)
    run_epoch(run)
    measures = run_epoch(run)
    images = (digits.validation.images / 255 - digits.mean[0]) / digits.std[0]
    run.student.eval()
    with torch.no_grad():
        feature, teacher_logits, _ = teacher(images)
        adapted = run.adapter(feature, teacher_logits).double().numpy()
        student = run.student(images).double().numpy()
    frozen, labels = teacher_logits.double().numpy(), digits.validation.labels.numpy()

    def accuracy(logits):
        return (logits.argmax(axis=1) == labels).mean()

    def sharp(logits, temperature=1.0):
        return scipy.special.logsumexp(logits / temperature, axis=1).mean()

    def centred(logits):
        return sharp(logits - logits.mean(axis=1, keepdims=True))

    def entropy(logits):
        return scipy.special.entr(scipy.special.softmax(logits, axis=1)).sum(axis=1).mean()

    def calibration(logits):
        confidence, right = scipy.special.softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1) == labels
        bins = np.ceil(confidence * 15)
        return sum(abs((right[bins == b] - confidence[bins == b]).sum()) for b in range(1, 16)) / len(labels)

    expected = {
        "val/accuracy": accuracy(student),
        "val/loss": -scipy.special.log_softmax(student, axis=1)[np.arange(360), labels].mean(),
        "val/accuracy_teacher": accuracy(frozen),
        "val/accuracy_adapted": accuracy(adapted),
        "val/sharpness_student": sharp(student),
        "val/sharpness_teacher": sharp(frozen),
        "val/sharpness_adapted": sharp(adapted),
        "val/sharpness_gap": sharp(adapted) - sharp(student),
        "val/sharpness_gap_frozen": sharp(frozen) - sharp(student),
        "val/sharpness_gap_tempered": sharp(adapted, 3.0) - sharp(student, 3.0),
        "val/sharpness_gap_centred": centred(adapted) - centred(student),
        "val/entropy_student": entropy(student),
        "val/entropy_adapted": entropy(adapted),
        "val/ece_student": calibration(student),
        "val/ece_teacher": calibration(frozen),
        "val/ece_adapted": calibration(adapted),
        "val/agreement": (adapted.argmax(axis=1) == student.argmax(axis=1)).mean(),
    }
    assert set(expected) == set(VALIDATION_MEASURES) - ELSEWHERE
    for name, value in expected.items():
        assert measures[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def test_costs_are_plausible(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    measures = run_epoch(run)
    assert 0 < run.training_seconds < measures["cost/seconds"] < 60
    assert measures["cost/examples_per_second"] == pytest.approx(1077 / run.training_seconds)
    assert 10e6 < measures["cost/peak_memory_bytes"] < 100e9


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system cannot forget a process's peak")
def test_the_peak_of_memory_is_the_trials_own_and_not_of_what_the_process_did_before(digits, teacher):
    held = torch.ones(100_000_000)  # 400 MB
    large = run_epoch(DistillationRun(small_config(), digits, teacher))["cost/peak_memory_bytes"]
    del held
    small = run_epoch(DistillationRun(small_config(), digits, teacher))["cost/peak_memory_bytes"]
    assert large - small == pytest.approx(400e6, rel=0.25)


def test_a_loss_that_is_not_finite_names_epoch_batch_and_every_part(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    run.train_epoch()
    third_batch = batch_order(1077, data_seed=0, epoch=1).split(128)[2]
    live = run.teacher_outputs.train_batch

    def broken(indices, slot, images):
        outputs = live(indices, slot, images)
        if torch.equal(indices, third_batch):
            outputs.logits.fill_(float("nan"))
        return outputs

    run.teacher_outputs.train_batch = broken
    with pytest.raises(NonFiniteLossError, match=r"epoch 2 of 3, batch 3 of 9: ") as caught:
        run.train_epoch()
    for part in (r"total nan", r"kd nan", r"adapter nan"):
        assert part in str(caught.value)
    assert "ce nan" not in str(caught.value)  # the student was still finite in that batch


def test_a_rate_that_blows_up_ends_in_a_non_finite_loss(digits, teacher):
    run = DistillationRun(small_config(method="ce", student_learning_rate=1e38, epochs=5), digits, teacher)
    with pytest.raises(NonFiniteLossError, match=r"epoch 1 of 5.*lower learning rate"):
        run_epoch(run)


def test_weights_spoilt_by_the_last_step_are_found_by_the_evaluation(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    run.train_epoch()
    with torch.no_grad():
        run.student.head.bias[3] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"after epoch 1 of 3: .*val/sharpness_student inf"):
        run.evaluate()


def test_an_epoch_never_waits_for_a_value(digits, teacher, monkeypatch):
    run = DistillationRun(small_config(), digits, teacher)
    batches = list(run.batches.of_epoch(0, None))

    def refuse(*args):
        pytest.fail("a batch waited for the device")

    run.student.train()
    # `numpy` is not listed: it never waits, because tensors on a GPU refuse it.
    for name in ("item", "tolist", "__bool__", "__float__", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    log = LossLog(run.method.gradients(run.config.model_dump()))
    for batch in batches[:3]:
        run.train_batch(batch, log)


def test_a_method_that_is_taught_needs_a_teacher(digits):
    with pytest.raises(ValueError, match="'kd' needs a teacher"):
        DistillationRun(small_config(method="kd"), digits, None)


def test_a_dataset_that_was_split_by_another_seed_is_refused(digits, teacher):
    with pytest.raises(ValueError, match="split_seed 1, the dataset was split by 0"):
        DistillationRun(small_config(split_seed=1), digits, teacher)


def test_a_teacher_of_other_classes_is_refused(digits):
    other = FrozenTeacher(build_model("cnn_3_4", num_classes=7, in_channels=1))
    with pytest.raises(ValueError, match="knows 7 classes, dataset 'digits' has 10"):
        DistillationRun(small_config(), digits, other)


def test_a_finished_trial_says_so(digits, teacher):
    run = DistillationRun(small_config(epochs=1), digits, teacher)
    assert not run.finished
    run_epoch(run)
    assert run.finished
    with pytest.raises(AssertionError, match="all 1 epochs are done"):
        run.train_epoch()


def test_losses_hear_which_epoch_and_which_samples_it_is_and_draw_anew_in_every_epoch(digits, teacher):
    def listening(heard: list[tuple[int, float, torch.Tensor]]) -> DistillationRun:
        run = DistillationRun(small_config(method="ttm"), digits, teacher)
        losses = run.objective

        def listen(outputs, labels):
            heard.append((outputs.epoch, torch.rand(1, generator=outputs.generator).item(), outputs.indices))
            return losses(outputs, labels)

        run.objective = listen
        return run

    heard, again = [], []
    run = listening(heard)
    run.train_epoch()
    state = run.state_dict()
    run.train_epoch()
    assert [epoch for epoch, _, _ in heard] == [0] * 9 + [1] * 9
    assert len({drawn for _, drawn, _ in heard}) == 18
    for epoch in (0, 1):
        rows = torch.cat([rows for at, _, rows in heard if at == epoch])
        assert torch.equal(rows, batch_order(1077, data_seed=0, epoch=epoch))
    resumed = listening(again)
    resumed.load_state_dict({**state, "epoch": 1})
    resumed.train_epoch()
    assert [drawn for _, drawn, _ in again] == [drawn for _, drawn, _ in heard[9:]]
