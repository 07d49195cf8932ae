"""A single left-over sample joins the batch before it, in the same way everywhere."""

import copy

import pytest
import torch
from torch import nn

from tests.text_tasks import small_text_dataset
from tests.trainables.conftest import small_config, text_config
from tests.trainables.packing.runs import (
    assert_same_measures,
    assert_same_state,
    in_float64,
    random_dataset,
    random_teacher,
)
from tests.trainables.run.together import run_together, shared
from trainables.costs.epoch import run_epoch
from trainables.packing.pack import Pack
from trainables.packing.probe import best_count
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.spec.batch_sizes import batch_sizes, count_batches, largest_batch
from trainables.teacher.training import TeacherTraining
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

pytestmark = pytest.mark.study

# At 4 pixels, the last maps of resnet8 have one position, so BatchNorm refuses a batch of one sample.
SHRINKING = {"student": "resnet8", "teacher": "resnet8", "batch_size": 64, "epochs": 3}


@pytest.fixture(scope="module")
def one_left_over():
    """65 images for batches of 64."""
    return random_dataset(4, 1, 65)


@pytest.fixture
def own_teacher(one_left_over):
    return random_teacher(one_left_over, "resnet8")


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [
        (128, 64, [64, 64]), (130, 64, [64, 64, 2]), (129, 64, [64, 65]), (65, 64, [65]), (64, 64, [64]), (2, 64, [2]),
        (3, 2, [3]), (5, 2, [2, 3]), (4, 3, [4]), (3, 1, [1, 1, 1]), (2, 1, [1, 1]),
    ],
)  # fmt: skip
def test_a_batch_of_one_is_made_only_where_it_is_asked_for(samples, batch_size, sizes):
    assert batch_sizes(samples, batch_size) == sizes
    assert count_batches(samples, batch_size) == len(sizes)
    assert largest_batch(samples, batch_size) == max(batch_size, *sizes)


def test_sizes_cover_every_sample_for_every_remainder():
    for samples in range(2, 40):
        for batch_size in range(1, 45):
            sizes = batch_sizes(samples, batch_size)
            assert sum(sizes) == samples
            assert count_batches(samples, batch_size) == len(sizes)
            assert batch_size == 1 or min(sizes) > 1
            assert set(sizes[:-1]) <= {batch_size}


@pytest.mark.parametrize("samples", [0, 1])
def test_a_train_split_of_one_sample_is_refused_in_words(samples):
    with pytest.raises(ValueError, match=f"has {samples} sample.*needs 2 or more.*Add training data"):
        DistillationRun(small_config(method="ce"), random_dataset(8, 1, samples), None)


def test_a_trial_whose_last_batch_would_be_one_sample_trains_on_it_in_a_batch_of_one_more(one_left_over):
    run = DistillationRun(small_config(**SHRINKING, method="ce", student_schedule="linear"), one_left_over, None)
    batches = list(run.batches.of_epoch(0, None))
    assert [len(batch.labels) for batch in batches] == [65]
    assert len(run.batches) == 1
    assert run.student_trainer._steps == 1
    measures = run_epoch(run)
    assert measures["cost/seconds_per_step"] == pytest.approx(run.training_seconds)
    # PyTorch's error for a batch as it was in earlier versions.
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run.student.train()(batches[0].inputs[:1])


def test_batches_are_what_they_were_where_no_single_sample_is_left_over(digits):
    run = DistillationRun(small_config(method="ce", batch_size=100), digits, None)
    gathered = list(run.batches.of_epoch(2, None))
    assert [len(batch.labels) for batch in gathered] == [100] * 10 + [77]
    from trainables.data.views import batch_order

    expected = batch_order(len(digits.train), data_seed=run.config.data_seed, epoch=2).split(100)
    assert all(torch.equal(batch.indices, rows) for batch, rows in zip(gathered, expected, strict=True))


@pytest.mark.parametrize("samples", [65, 129, 193])
def test_batches_that_are_gathered_together_and_batches_of_a_worker_have_the_same_sizes(samples, monkeypatch):
    dataset = random_dataset(8, 1, samples)
    run = DistillationRun(small_config(method="ce", batch_size=64), dataset, None)
    whole = [batch.indices for batch in run.batches.of_epoch(1, None)]
    monkeypatch.setattr("trainables.batches.images._GATHERED_BYTES", 1)  # one batch at a time
    assert all(torch.equal(a.indices, b) for a, b in zip(run.batches.of_epoch(1, None), whole, strict=True))
    for rank in range(2):
        shares = list(run.batches.shares_of_epoch(1, None, lambda count, rank=rank: slice(rank, count, 2)))
        assert all(torch.equal(own.whole[0], rows) for own, rows in zip(shares, whole, strict=True))
        assert all(torch.equal(own.indices, rows[rank::2]) for own, rows in zip(shares, whole, strict=True))


@pytest.mark.study
@pytest.mark.parametrize("method", ["ce", "pesf_kd", "dist", "crd"])
def test_a_resumed_trial_equals_one_that_never_stopped_to_the_bit(method, one_left_over, own_teacher, tmp_path):
    config = small_config(**SHRINKING, method=method, crd_negatives=16)
    make = lambda: DistillationRun(config, one_left_over, copy.deepcopy(own_teacher))  # noqa: E731
    whole, stopped = make(), make()
    for _ in range(3):
        run_epoch(whole)
    run_epoch(stopped)
    save_checkpoint(stopped, tmp_path)
    resumed = make()
    load_checkpoint(resumed, tmp_path)
    run_epoch(resumed)
    run_epoch(resumed)
    assert_same_state(resumed, whole, 0.0)


@pytest.mark.study
@pytest.mark.parametrize("method", ["ce", "pesf_kd", "dist"])
def test_packed_trials_equal_lone_ones(method, one_left_over, own_teacher):
    def runs() -> dict[str, DistillationRun]:
        changes = ({"seed": 1, "data_seed": 1}, {"seed": 2, "student_learning_rate": 0.02})
        configs = [small_config(**SHRINKING, method=method, **each) for each in changes]
        return {
            str(k): in_float64(DistillationRun(config, one_left_over, copy.deepcopy(own_teacher)))
            for k, config in enumerate(configs)
        }

    together, alone = runs(), runs()
    pack = Pack(together)
    for _ in range(2):
        found = pack.run_epoch().measures
        for name, run in alone.items():
            assert_same_measures(found[name], run_epoch(run))
    for name, run in alone.items():
        assert_same_state(together[name], run)


@pytest.mark.study
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("method", ["ce", "pesf_kd", "dist"])
def test_workers_equal_one_process(method, size, one_left_over, own_teacher):
    config = small_config(**SHRINKING, method=method)
    alone = in_float64(DistillationRun(config, one_left_over, copy.deepcopy(own_teacher)))
    expected = [run_epoch(alone) for _ in range(2)]
    make = lambda workers: shared(config, one_left_over, own_teacher, workers)  # noqa: E731
    for run, measures in run_together(make, size, 2):
        for ours, theirs in zip(measures, expected, strict=True):
            assert_same_measures({**ours, "cost/workers": 1.0}, theirs)
        assert_same_state(run, alone)


@pytest.mark.study
@pytest.mark.parametrize(("samples", "size"), [(66, 3), (67, 2), (66, 2), (3, 4)])
def test_workers_that_get_one_sample_of_a_batch_or_none_equal_one_process(samples, size):
    """The last batch has 2 samples for three workers, so one worker gets none. The feature maps have one position."""
    dataset = random_dataset(4, 1, samples)
    config = small_config(**SHRINKING | {"batch_size": 64}, method="ce")
    alone = in_float64(DistillationRun(config, dataset, None))
    expected = run_epoch(alone)
    for run, measures in run_together(lambda workers: shared(config, dataset, None, workers), size, 1):
        assert_same_measures({**measures[0], "cost/workers": 1.0}, expected)
        assert_same_state(run, alone, 1e-11)  # norms of two values amplify rounding errors of sums


def test_stored_outputs_of_the_teacher_come_along_with_the_sample_that_joined(one_left_over, own_teacher, tmp_path):
    config = small_config(**SHRINKING)
    store = TeacherOutputsStore(
        folder=tmp_path, teacher=own_teacher, dataset=one_left_over, architecture="resnet8", augmentation="views",
        dtype="float32",
    )  # fmt: skip
    run = DistillationRun(config, one_left_over, own_teacher, teacher_outputs=StoredTeacherOutputs(store))
    (batch,) = run.batches.of_epoch(0, run.stored_outputs)
    live = own_teacher(batch.inputs)
    assert batch.teacher.logits.shape == (65, 10)
    torch.testing.assert_close(batch.teacher.logits, live.logits)
    live_run = DistillationRun(config, one_left_over, copy.deepcopy(own_teacher))
    assert run_epoch(run)["train/loss"] == pytest.approx(run_epoch(live_run)["train/loss"], rel=1e-5)


@pytest.mark.study
def test_a_teacher_is_trained_where_one_sample_is_left_over_and_so_are_probed_packs(one_left_over, tmp_path):
    config = small_config(**SHRINKING | {"epochs": 1}, method="ce")
    training = TeacherTraining(config, one_left_over, tmp_path)
    assert [measures["cost/seconds"] > 0 for measures in training.epochs()] == [True]
    assert best_count(config, one_left_over, None, stored=False, counts=(2,)).packed in (1, 2)


def test_batches_of_one_that_were_asked_for_stay_batches_of_one(one_left_over):
    """One position per channel has no variance to normalise by. The shape check rejects this before any work."""
    config = small_config(**SHRINKING | {"batch_size": 1}, method="ce")
    run = DistillationRun(config, one_left_over, None)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run.train_epoch()


@pytest.mark.parametrize(("samples", "sizes"), [(9, [9]), (10, [2, 8])])
def test_sentences_are_trained_on_alike_alone_and_by_workers(samples, sizes):
    """A last batch of 2 leaves one of three workers without a sentence."""
    text = small_text_dataset(train=samples, validation=8, test=4)
    config = text_config(batch_size=8, epochs=2, method="ce")
    alone = DistillationRun(config, text, None)
    assert len(alone.batches) == len(sizes)
    assert sorted(len(batch.labels) for batch in alone.batches.of_epoch(0, None)) == sizes
    # Each worker draws separate dropout masks. Without dropout, the trials are equal.
    without = lambda run: (  # noqa: E731
        [setattr(each, "p", 0.0) for each in run.student.modules() if isinstance(each, nn.Dropout)],
        run,
    )[1]
    alone = without(alone)
    expected = alone.train_epoch()
    for _, (measures,) in _train_together(
        lambda workers: without(DistillationRun(config, text, None, workers=workers)), 3
    ):
        assert measures["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5)


def _train_together(make, size):
    return run_together(make, size, 1, epoch=DistillationRun.train_epoch)
