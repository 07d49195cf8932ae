"""Distances between classes: from which samples, of which outputs, and in which trials."""

import numpy as np
import pytest
import torch

from tests.trainables.conftest import small_config, text_config
from tests.trainables.losses.references import linear_cka_by_centring
from tests.trainables.run.together import run_together
from trainables.costs.epoch import run_epoch
from trainables.run.class_distances import FEWEST_SAMPLES, measure_class_distances
from trainables.run.run import DistillationRun
from trainables.teacher_outputs.store import StoredTeacherOutputs


def random_logits(count: int, classes: int) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(0))


def test_each_class_has_the_first_samples_of_its_own_and_all_equally_many():
    labels = torch.tensor([2, 0, 1] * 9 + [0, 2, 2])  # 10, 9 and 11 samples
    logits, asked = random_logits(len(labels), 3), []
    found = measure_class_distances(labels, 3, lambda rows: (asked.extend(rows.tolist()), logits[rows])[1])
    groups = [[row for row, label in enumerate(labels.tolist()) if label == each][:9] for each in range(3)]
    assert sorted(asked) == sorted(row for rows in groups for row in rows)
    for i in range(3):
        for j in range(3):
            expected = 1 - linear_cka_by_centring(*(logits[groups[each]].double().numpy() for each in (i, j)))
            assert found[i, j].item() == pytest.approx(expected if i != j else 0, abs=1e-5)
    assert 0.05 < found[0, 1] < 1


def test_a_class_with_few_samples_is_unrelated_to_all_others():
    counts = [20, FEWEST_SAMPLES - 1, 20, 0]
    labels = torch.arange(4).repeat_interleave(torch.tensor(counts))
    logits = random_logits(len(labels), 4)
    found = measure_class_distances(labels, 4, lambda rows: logits[rows])
    for few in (1, 3):
        assert found[few].tolist() == found[:, few].tolist() == [float(each != few) for each in range(4)]
    assert 0.05 < found[0, 2] < 1
    nobody = measure_class_distances(labels[:3], 4, lambda rows: pytest.fail("nobody has enough samples"))
    assert torch.equal(nobody, 1 - torch.eye(4))


def test_the_kernels_of_many_samples_fit_into_memory(monkeypatch):
    monkeypatch.setattr("trainables.run.class_distances._MOST_NUMBERS", 2 * 15**2 + 1)
    labels, logits, asked = torch.arange(400) % 2, random_logits(400, 2), []
    measure_class_distances(labels, 2, lambda rows: (asked.extend(rows.tolist()), logits[rows])[1])
    assert len(asked) == 2 * 15


def test_a_trial_measures_them_on_its_teacher_and_the_digits_of_slot_0(digits, teacher, make_store):
    live = DistillationRun(small_config(method="wkd_l"), digits, teacher)
    rows = torch.arange(len(digits.train))
    logits = teacher(live.batches.batch(rows, 0).inputs).logits.double().numpy()
    labels = digits.train.labels.numpy()
    fewest = np.bincount(labels).min()
    zero, one = (logits[labels == each][:fewest] for each in (0, 1))
    assert live.class_distances[0, 1].item() == pytest.approx(1 - linear_cka_by_centring(zero, one), abs=1e-4)
    assert torch.equal(live.class_distances, live.class_distances.t())
    assert live.take_forwards() == 10 * fewest
    outputs = StoredTeacherOutputs(make_store())
    stored = DistillationRun(small_config(method="wkd_l"), digits, teacher, teacher_outputs=outputs)
    torch.testing.assert_close(stored.class_distances, live.class_distances, rtol=0, atol=1e-4)
    assert DistillationRun(small_config(method="kd"), digits, teacher).class_distances is None


@pytest.mark.conformance
@pytest.mark.parametrize("method", ["nkd", "pld", "rld", "mlkd", "wkd_l"])
def test_recent_methods_learn_from_sentences_too(method, text, text_teacher):
    run = DistillationRun(text_config(method=method, epochs=1), text, text_teacher)
    assert run_epoch(run)["train/loss_kd"] > 0
    assert (run.class_distances is not None) == (method == "wkd_l")


@pytest.mark.study
def test_workers_share_a_batch_and_not_the_distances(digits, teacher, make_store):
    config = small_config(method="wkd_l", epochs=1)
    outputs = StoredTeacherOutputs(make_store())
    alone = DistillationRun(config, digits, teacher, teacher_outputs=outputs)
    expected = run_epoch(alone)
    make = lambda workers: DistillationRun(  # noqa: E731
        config, digits, teacher, teacher_outputs=StoredTeacherOutputs(make_store()), workers=workers
    )
    for run, measures in run_together(make, 2, 1):
        assert torch.equal(run.class_distances, alone.class_distances)
        assert measures[0]["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-3)
