"""The tracker against a real store: SQLite, as the embedded default has it."""

import http.server
import math
import threading

import pytest
from mlflow import MlflowClient

from study.errors import StudyError
from study.ledger import StudyLedger
from study.search import StudySearch
from study.tracking import StudyTracker, check_tracking_uri, trial_params
from tests.study.factories import PretendedTune, make_plan
from trainables.measures import ACCURACY


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the module: making its schema takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def begin(folder, store, **values):
    plan = make_plan(folder, tracking_uri=store, **values)
    ledger = StudyLedger(plan)
    return ledger, PretendedTune(StudySearch(ledger, {}), ledger)


def track(ledger):
    return StudyTracker(ledger.plan, command="python -m study.launch", versions={"git.commit": "abc"})


def children(tracker):
    return {run.data.tags["trial_id"]: run for run in tracker._children()}


def test_every_trial_is_one_run_with_its_measures_at_their_epochs(tmp_path, store):
    ledger, tune = begin(tmp_path, store)
    tracker = track(ledger)
    tune.run()
    for entry in ledger.entries.values():
        tracker.deliver(entry)
    assert tracker.finish("FINISHED", result_note="| table |", metrics={"best/val_accuracy": 0.5}) is None
    runs = children(tracker)
    assert runs.keys() == ledger.entries.keys()
    client = MlflowClient(store)
    for entry in ledger.entries.values():
        run = runs[entry.trial_id]
        assert run.info.status == "FINISHED"
        assert run.info.run_name == entry.name
        assert run.data.tags["stage"] == entry.stage
        history = client.get_metric_history(run.info.run_id, ACCURACY)
        assert {m.step: m.value for m in history} == {e: m[ACCURACY] for e, m in entry.epochs.items()}
    parent = client.get_run(tracker.parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"best/val_accuracy": 0.5}
    note = parent.data.tags["mlflow.note.content"]
    assert ledger.plan.search_space.question in note
    assert "| table |" in note
    assert parent.data.tags["git.commit"] == "abc"


def test_what_a_trial_costs_by_what_it_is_is_logged_once_before_its_first_epoch(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="costs")
    tracker = track(ledger)
    _, settings = tune.next()
    entry = ledger.entries[settings["trial_id"]]
    ledger.record_facts(entry.trial_id, {"cost/step_flops": 33_960.0})
    delivered = {}
    for epoch in (1, 2):
        tune.report(settings, epoch)
        tracker._deliver(entry, delivered)
    assert tracker.finish("FINISHED") is None
    run = children(tracker)[entry.trial_id]
    history = MlflowClient(store).get_metric_history(run.info.run_id, "cost/step_flops")
    assert [(metric.step, metric.value) for metric in history] == [(0, 33_960.0)]


def test_what_varies_is_a_param_and_what_is_constant_is_a_tag(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="params")
    tracker = track(ledger)
    tune.run()
    tracker.catch_up(ledger)
    tracker.finish("FINISHED")
    for trial_id, run in children(tracker).items():
        entry = ledger.entries[trial_id]
        adapter = {"adapter_width", "adapter_learning_rate"} if entry.config.method == "pesf_kd" else set()
        assert set(run.data.params) == {"method", "replicate", "seed"} | adapter
        assert run.data.params == {k: str(v) for k, v in trial_params(ledger.plan, entry).items()}
        assert run.data.tags["temperature"] == "4.0"
        assert "adapter_width" not in run.data.tags


def test_a_study_killed_while_it_delivered_ends_with_one_finished_run_a_trial(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="killed")
    tracker = track(ledger)
    tune.run(3)
    _, running = tune.next()
    tune.report(running, 1)
    for entry in ledger.entries.values():
        tracker.deliver(entry)
    tracker.finish("KILLED")
    first_parent = tracker.parent_id
    # As a kill leaves it: a run that is RUNNING though its trial will go on in another process.
    tracker._client.update_run(children(tracker)[running["trial_id"]].info.run_id, status="RUNNING")

    ledger, tune = begin(tmp_path, store, name="killed", study_id=ledger.plan.study_id)
    tracker = track(ledger)
    assert tracker.parent_id == first_parent
    tune.run()
    tracker.catch_up(ledger)
    assert tracker.finish("FINISHED") is None
    runs = list(tracker._children())
    assert len(runs) == len(ledger.entries) == ledger.plan.total_trials
    assert {run.info.status for run in runs} == {"FINISHED"}
    client = MlflowClient(store)
    again = client.get_metric_history(children(tracker)[running["trial_id"]].info.run_id, ACCURACY)
    assert sorted(m.step for m in again) == [1, 2, 3, 4]


def test_pruned_and_failed_trials_are_told_apart(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="ends")
    tracker = track(ledger)
    tune_id, settings = tune.next()
    tune.report(settings, 1)
    tune.search.on_trial_complete(tune_id, {"finished": False})
    tune_id, settings = tune.next()
    tune.search.on_trial_complete(tune_id, {"finished": False, ACCURACY: math.nan, "failed": "NonFiniteLossError: x"})
    tracker.catch_up(ledger)
    tracker.finish("FINISHED")
    pruned, failed = (children(tracker)[e.trial_id] for e in ledger.entries.values())
    assert (pruned.info.status, pruned.data.tags["status"]) == ("FINISHED", "pruned")
    assert (failed.info.status, failed.data.tags["status"]) == ("FAILED", "failed")
    assert failed.data.tags["error"] == "NonFiniteLossError: x"


def test_a_run_that_nobody_knows_is_not_left_running(tmp_path, store):
    ledger, _ = begin(tmp_path, store, name="strays")
    tracker = track(ledger)
    stray = tracker._client.create_run(
        tracker._experiment_id, tags={"mlflow.parentRunId": tracker.parent_id, "trial_id": "stray"}
    )
    tracker.finish("FINISHED")
    assert MlflowClient(store).get_run(stray.info.run_id).info.status == "KILLED"


def test_more_measures_than_a_batch_holds_all_arrive(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="long", base={"epochs": 700}, trials=1)
    tracker = track(ledger)
    tune.run(1)
    tracker.catch_up(ledger)
    tracker.finish("FINISHED")
    (run,) = children(tracker).values()
    assert len(MlflowClient(store).get_metric_history(run.info.run_id, ACCURACY)) == 700


def test_a_store_that_cannot_be_opened_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a database, and long enough to be read as one" * 100)
    ledger, _ = begin(tmp_path, f"sqlite:///{tmp_path}/file")
    with pytest.raises(StudyError, match="store cannot be opened"):
        track(ledger)


def test_a_tracking_server_is_asked_before_any_work():
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    check_tracking_uri(uri)
    server.shutdown()
    server.server_close()
    with pytest.raises(StudyError, match="no MLflow tracking server answers"):
        check_tracking_uri(uri.replace("//", "//me:secret@"))


def test_an_error_about_a_server_does_not_repeat_its_password():
    with pytest.raises(StudyError) as error:
        check_tracking_uri("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(error.value)
