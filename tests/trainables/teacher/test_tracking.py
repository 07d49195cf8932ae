"""Tracker with a real store: SQLite, as in the default."""

import pytest
from mlflow import MlflowClient

from trainables.storage.mlflow_store import TrackingError
from trainables.teacher.tracking import EXPERIMENT, TeacherTracker

pytestmark = pytest.mark.study


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def track(store, folder, teacher_id):
    return TeacherTracker(
        store, artifacts=folder / "artifacts", teacher_id=teacher_id, name="small",
        params={"model": "cnn_3_4", "epochs": 3}, tags={"kind": "teacher"},
    )  # fmt: skip


def history(epochs):
    return [{"val/accuracy": 0.1 * epoch, "train/loss": 1 / epoch} for epoch in range(1, epochs + 1)]


def test_a_training_is_one_run_with_its_params_tags_epochs_and_end(store, tmp_path):
    tracker = track(store, tmp_path, "one")
    for epochs in (1, 2, 3):
        tracker.deliver(history(epochs))
    card = tmp_path / "README.md"
    card.write_text("# card")
    tracker.finish("FINISHED", metrics={"test_accuracy": 0.7}, note="# card", artifacts=[card])
    client = MlflowClient(store)
    run = client.get_run(tracker.run_id)
    assert client.get_experiment(run.info.experiment_id).name == EXPERIMENT
    assert (run.info.status, run.info.run_name) == ("FINISHED", "small")
    assert run.data.params == {"model": "cnn_3_4", "epochs": "3"}
    assert run.data.tags["kind"] == "teacher"
    assert run.data.tags["mlflow.note.content"] == "# card"
    assert run.data.metrics["test_accuracy"] == 0.7
    steps = {metric.step: metric.value for metric in client.get_metric_history(tracker.run_id, "val/accuracy")}
    assert steps == {1: 0.1, 2: 0.2, 3: pytest.approx(0.3)}
    assert [each.path for each in client.list_artifacts(tracker.run_id)] == ["README.md"]
    assert tracker.ended


def test_a_training_that_goes_on_is_the_same_run_and_every_epoch_is_there_once(store, tmp_path):
    first = track(store, tmp_path, "two")
    first.deliver(history(2))
    first.finish("KILLED")
    second = track(store, tmp_path, "two")
    assert second.run_id == first.run_id
    client = MlflowClient(store)
    assert client.get_run(second.run_id).info.status == "RUNNING"
    second.deliver(history(5))
    assert [metric.step for metric in client.get_metric_history(second.run_id, "train/loss")] == [1, 2, 3, 4, 5]
    assert not second.ended


def test_a_store_that_cannot_be_opened_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a database, and long enough to be read as one" * 100)
    with pytest.raises(TrackingError, match="store cannot be opened"):
        track(f"sqlite:///{tmp_path}/file", tmp_path, "three")


def test_what_a_store_does_not_take_is_said_and_can_be_delivered_later(store, tmp_path):
    tracker = track(store, tmp_path, "four")
    client, run_id = MlflowClient(store), tracker.run_id
    client.delete_run(run_id)
    with pytest.raises(TrackingError, match="did not accept epoch 1"):
        tracker.deliver(history(2))
    client.restore_run(run_id)
    tracker.deliver(history(2))
    assert len(client.get_metric_history(run_id, "train/loss")) == 2
