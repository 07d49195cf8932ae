"""Ended trials delivered together leave the same database as those delivered one by one."""

import math
import sqlite3
from unittest import mock

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from study.ledger.ledger import StudyLedger
from study.search.searcher import StudySearch
from study.tracking import bulk
from study.tracking.bulk import open_bulk_runs
from study.tracking.tracker import StudyTracker
from tests.study.factories import PretendedTune, make_plan
from trainables.spec.measures import ACCURACY

pytestmark = pytest.mark.study

OWN_TABLES = ("tags", "params", "metrics", "latest_metrics")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Store shared by the module, because creating the schema takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory, store):
    """Study with finished, pruned and failed trials, and a measure that is no number."""
    ledger = StudyLedger(make_plan(tmp_path_factory.mktemp("study"), tracking_uri=store, name="together"))
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    tune.run(4)
    tune_id, settings = tune.next()
    tune.report(settings, 1)
    tune.search.on_trial_complete(tune_id, {"finished": False})
    tune_id, settings = tune.next()
    ledger.record_epoch(settings["trial_id"], 1, {ACCURACY: 0.5, "val/loss": math.nan, "train/loss": math.inf})
    tune.search.on_trial_complete(tune_id, {"finished": False, ACCURACY: math.nan, "failed": "NonFiniteLossError: x"})
    tune.next()  # runs
    return ledger


def tracked(ledger, **replaced):
    plan = ledger.plan.model_copy(update=replaced)
    tracker = StudyTracker(plan, command="", versions={})
    tracker.abandon()  # deliveries are called here, without the thread
    return tracker


def contents(tracker, store):
    """Rows of all trials' runs by trial, without identifiers."""
    place = store.removeprefix("sqlite:///")
    found = {}
    with sqlite3.connect(place) as database:
        for trial_id, run in ((run.data.tags["trial_id"], run.info.run_id) for run in tracker._children()):
            rows = {
                table: sorted(database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run,)).fetchall(), key=str)
                for table in ("runs", *OWN_TABLES)
            }
            found[trial_id] = str(rows).replace(run, "RUN").replace(tracker.parent_id, "PARENT")
    return found


def test_the_database_is_the_same_as_after_single_deliveries(ledger, store):
    together, single = tracked(ledger, study_id="a" * 32), tracked(ledger, study_id="b" * 32)
    entries = list(ledger.entries.values())
    left = together._deliver_together(entries)
    assert [entry.status for entry in left] == [None]
    for entry in entries:
        single._deliver_entry(entry)
    for entry in left:
        together._deliver_entry(entry)
    one, other = contents(together, store), contents(single, store)
    assert one.keys() == ledger.entries.keys()
    assert {key: rows.replace("a" * 32, "b" * 32) for key, rows in one.items()} == other


def test_a_second_delivery_changes_nothing(ledger, store):
    tracker = tracked(ledger, study_id="c" * 32)
    entries = list(ledger.entries.values())
    tracker._deliver_together(entries)
    before = contents(tracker, store)
    assert tracker._deliver_together(entries) == entries  # all have a run, or have not ended
    for entry in entries[:-1]:
        tracker._deliver_entry(entry)
    assert contents(tracker, store) == before


def test_a_transaction_that_fails_leaves_nothing_and_the_trials_arrive_one_by_one(ledger, store):
    tracker = tracked(ledger, study_id="d" * 32)
    entries = list(ledger.entries.values())[:3]
    with mock.patch.object(bulk, "insert", side_effect=[bulk.insert(bulk.SqlRun.__table__), RuntimeError("lost")]):
        assert tracker._deliver_together(entries) == entries
    assert contents(tracker, store) == {}
    for entry in entries:
        tracker._deliver_entry(entry)
    assert contents(tracker, store).keys() == {entry.trial_id for entry in entries}


def test_trials_of_a_transaction_with_a_lost_answer_get_no_second_run(ledger, store):
    tracker = tracked(ledger, study_id="e" * 32)
    entries, write = list(ledger.entries.values())[:3], tracker._bulk.write

    def lost(runs):
        write(runs)
        raise MlflowException("the connection was lost after the commit")

    with mock.patch.object(tracker._bulk, "write", lost):
        assert tracker._deliver_together(entries) == entries
    for entry in entries:
        tracker._deliver_entry(entry)
    assert len(list(tracker._children())) == 3


def test_a_trial_that_mlflow_refuses_does_not_keep_the_others_out(ledger, store):
    tracker = tracked(ledger, study_id="f" * 32)
    entries = list(ledger.entries.values())[:2]
    with mock.patch("study.tracking.tracker.trial_params", return_value={"bad\tname": 1}):
        assert tracker._deliver_together(entries) == entries
    assert contents(tracker, store) == {}


def test_a_server_and_unknown_tables_are_left_to_the_client(store):
    assert open_bulk_runs(MlflowClient(store), "0") is not None
    assert open_bulk_runs(MlflowClient("http://127.0.0.1:9"), "0") is None
    with mock.patch.dict(bulk._KNOWN, {bulk.SqlTag: frozenset({"key", "value", "run_uuid", "newer"})}):
        assert open_bulk_runs(MlflowClient(store), "0") is None
