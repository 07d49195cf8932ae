import pytest
import torch

from tests.trainables.conftest import text_config
from trainables.costs.epoch import run_epoch
from trainables.run.run import DistillationRun

pytestmark = pytest.mark.study


@pytest.mark.study
def test_a_student_of_text_learns(text):
    config = text_config(method="ce", student="bert_1_32", batch_size=32, epochs=6, student_learning_rate=2e-3)
    run = DistillationRun(config, text, None)
    while not run.finished:
        measures = run_epoch(run)
    assert measures["val/accuracy"] > 0.75  # nine in ten sentences contain a word of the class


def test_answers_come_in_the_splits_own_order_however_they_were_batched(text, text_teacher):
    run = DistillationRun(text_config(), text, text_teacher)
    split = text.validation
    alone = torch.cat([run.student.eval()(split.batch(torch.tensor([row]))) for row in range(len(split))])
    torch.testing.assert_close(run.predictor.of_student(split), alone.detach())
    said = run.predictor.of_frozen_teacher(run.teacher_outputs)
    torch.testing.assert_close(
        said.logits[:5], torch.cat([text_teacher(split.batch(torch.tensor([r]))).logits for r in range(5)])
    )


def test_every_sentence_is_seen_once_an_epoch_in_batches_of_one_order_for_all_trials(text):
    first, other = (DistillationRun(text_config(method="ce", seed=seed), text, None) for seed in (0, 1))
    orders = []
    for run in (first, other):
        batches = list(run.batches.of_epoch(1, None))
        assert len(batches) == len(run.batches) == 9
        assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(len(text.train)))
        assert all(batch.inputs.shape[1:] == (2, batch.inputs.shape[2]) for batch in batches)
        assert all(batch.inputs.shape[2] % 8 == 0 for batch in batches)
        orders.append([batch.indices for batch in batches])
    assert all(torch.equal(a, b) for a, b in zip(*orders, strict=True))


def test_stored_rows_do_not_depend_on_the_shard_that_they_were_filled_in(make_text_store):
    tables = make_text_store().tables
    table = tables.slot(0)
    assert torch.equal(tables.compute(table)[512:1024], tables.compute(table.rows(512, 1024)))
