"""Mirror of a search, read by Optuna and by the real optuna-dashboard over HTTP."""

import json
import math
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from study.ledger.ledger import StudyLedger
from study.plan.checks import check_optuna_storage
from study.records import read_trials
from study.search.optuna_mirror import StudyMirror, mirrored
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from tests.study.inspection import read_journal
from tests.study.processes import kill, start, wait_in_study
from trainables.process.errors import UsageError
from trainables.spec.measures import ACCURACY

pytestmark = pytest.mark.study


def begin(folder, **values):
    """Return the ledger of a simulated study with a mirror, and the simulated Tune."""
    plan = make_plan(folder, optuna_storage=folder / "studies.journal", **values)
    ledger = StudyLedger(plan)
    return ledger, PretendedTune(StudySearch(ledger, {}), ledger)


def write(ledger, warnings=None):
    """Mirror all trials of a ledger, as a run of the study does."""
    with mirrored(ledger.plan, (warnings if warnings is not None else []).append) as mirror:
        for entry in ledger.entries.values():
            mirror(entry)


def read(path, name="planned"):
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


def trials_of_every_status(tune):
    """Make four trials: finished, stopped after an epoch, failed, and running. Return the running one."""
    tune.run(1)
    tune_id, settings = tune.next()
    tune.report(settings, 1, 0.25)
    tune.search.on_trial_complete(tune_id, {"finished": False})
    tune_id, settings = tune.next()
    tune.search.on_trial_complete(tune_id, {"finished": False, ACCURACY: math.nan, "failed": "the loss is nan"})
    running = tune.next()
    tune.report(running[1], 1, 0.125)
    return running


@pytest.mark.parametrize("sampler", ["tpe", "gp"])  # gp gets a stopped trial as COMPLETE
def test_every_trial_of_the_search_is_there_as_it_ended(tmp_path, sampler):
    ledger, tune = begin(tmp_path, sampler=sampler)
    trials_of_every_status(tune)
    warnings = []
    write(ledger, warnings)
    assert warnings == []
    study = read(ledger.plan.optuna_storage)
    finished, pruned, failed, running = study.trials
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in study.trials] == states
    entries = ledger.in_stage("search")
    assert finished.value == entries[0].score
    assert finished.intermediate_values == {epoch: m[ACCURACY] for epoch, m in entries[0].epochs.items()}
    assert (pruned.value, pruned.intermediate_values) == (0.25, {1: 0.25})
    assert failed.values is None
    assert failed.user_attrs["error"] == "the loss is nan"
    assert (running.values, running.intermediate_values) == (None, {1: 0.125})
    for trial, entry in zip(study.trials, entries, strict=True):
        assert trial.params == entry.optuna["params"]
        assert trial.user_attrs["trial_id"] == entry.trial_id
        assert trial.datetime_start.timestamp() == pytest.approx(entry.started, abs=1e-3)
    assert study.user_attrs["question"] == ledger.plan.search_space.question
    assert study.metric_names == [ACCURACY]
    assert study.best_trial.number == 0


def test_a_trial_is_there_while_it_runs_and_ends_where_it_is(tmp_path):
    ledger, tune = begin(tmp_path)
    with mirrored(ledger.plan, print) as mirror:
        tune_id, settings = tune.next()
        entry = ledger.entries[settings["trial_id"]]
        mirror(entry)
        path, deadline = ledger.plan.optuna_storage, time.monotonic() + 30
        while not (path.exists() and b'"trial_id"' in path.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (trial,) = read(path).trials
        assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {})
        tune.finish(tune_id, settings)
        mirror(entry)
    (trial,) = read(path).trials
    assert (trial.state, trial.value, len(trial.intermediate_values)) == (TrialState.COMPLETE, entry.score, 4)


def test_a_resumed_study_goes_on_in_the_same_file_and_repeats_no_trial(tmp_path):
    ledger, tune = begin(tmp_path)
    trials_of_every_status(tune)
    write(ledger)
    again = StudyLedger(ledger.plan)
    tune = PretendedTune(StudySearch(again, {}), again)
    tune.run()
    write(again)
    write(again)  # for example when a confirmation begins later
    study = read(ledger.plan.optuna_storage)
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == [e.trial_id for e in again.in_stage("search")]
    assert len(study.trials) == again.plan.trials
    ended = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.state for trial in study.trials] == ended
    went_on = study.trials[3]
    assert went_on.intermediate_values == {e: m[ACCURACY] for e, m in again.in_stage("search")[3].epochs.items()}
    assert len(went_on.intermediate_values) == 4


def test_only_the_search_is_mirrored(tmp_path):
    ledger, tune = begin(tmp_path)
    tune.run()
    write(ledger)
    assert len(read(ledger.plan.optuna_storage).trials) == 5 < len(ledger.entries)


def test_a_file_holds_many_studies_and_one_of_the_same_name_is_another_one(tmp_path):
    for name, study_id in (("first", "1" * 32), ("second", "2" * 32), ("first", "3" * 32)):
        ledger, tune = begin(tmp_path, name=name, study_id=study_id)
        if not ledger.entries:
            tune.run(1)
        write(ledger)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "studies.journal")))
    assert [study.study_name for study in storage.get_all_studies()] == ["first", "second", "first 33333333"]


def test_every_method_that_is_tuned_has_a_study_of_its_own(tmp_path):
    ledger, tune = begin(
        tmp_path, space="method_tuned", trials=2, promising=1, controls=(),
        compared=[{"name": name, "fields": {"method": name, "adapter": False}} for name in ("kd", "dkd")],
    )  # fmt: skip
    for _ in range(4):
        tune_id, settings = tune.next()
        tune.report(settings, 1, 0.5)
        tune.search.on_trial_complete(tune_id, {"finished": True})
    write(ledger)
    for name in ("planned kd", "planned dkd"):
        assert len(read(ledger.plan.optuna_storage, name).trials) == 2


def test_what_a_sampler_keeps_with_its_trials_stays_out_of_the_file(tmp_path):
    ledger, tune = begin(tmp_path, sampler="cmaes", trials=5)
    tune.run(5)
    assert any("cma" in key for entry in ledger.in_stage("search") for key in entry.optuna["system_attrs"])
    write(ledger)
    assert b"cma:" not in ledger.plan.optuna_storage.read_bytes()


def test_a_file_that_cannot_be_made_is_a_warning_and_nothing_else(tmp_path):
    (tmp_path / "file").touch()
    plan = make_plan(tmp_path, optuna_storage=tmp_path / "file" / "studies.journal")
    ledger = StudyLedger(plan)
    PretendedTune(StudySearch(ledger, {}), ledger).run(2)
    warnings = []
    write(ledger, warnings)
    (warning,) = warnings
    assert "Not a directory" in warning or "File exists" in warning
    assert "The study continues without it" in warning


def test_a_disk_that_is_full_meanwhile_is_told_of_once_and_a_later_run_writes_what_is_missing(tmp_path, monkeypatch):
    ledger, tune = begin(tmp_path)
    tune.run(2)
    write(ledger)

    def full_disk(backend, logs):
        raise OSError(28, "No space left on device")

    tune.run(2)
    warnings = []
    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", full_disk)
        write(ledger, warnings)
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
    assert len(read(ledger.plan.optuna_storage).trials) == 2
    write(ledger, warnings)
    assert len(warnings) == 1
    assert len(read(ledger.plan.optuna_storage).trials) == 4


def test_a_disk_that_hangs_holds_neither_a_trial_nor_the_end_of_the_study_up(tmp_path, monkeypatch):
    ledger, tune = begin(tmp_path)
    tune.run(2)
    released = threading.Event()
    whole = JournalFileBackend.append_logs

    def hangs(backend, logs):
        released.wait(60)
        whole(backend, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", hangs)
    warnings = []
    mirror = StudyMirror(ledger.plan, ledger.plan.optuna_storage, warn=warnings.append, patience=0.2)
    for entry in ledger.entries.values():
        mirror.put(entry)
    mirror.close()
    assert "takes longer than 0.2 s" in warnings[0]
    released.set()
    mirror._thread.join()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("sqlite:///studies.db", "give a file path, such as studies.journal, not a URI"),
        ("notes.txt", "is not an Optuna journal"),
        ("folder", "Is a directory"),
        ("notes.txt/studies.journal", "Not a directory"),
    ],
)
def test_what_cannot_hold_a_mirror_is_refused_before_any_work(tmp_path, path, says):
    (tmp_path / "notes.txt").write_text("to be kept")
    (tmp_path / "folder").mkdir()
    storage = Path(path) if ":" in path else tmp_path / path
    with pytest.raises(UsageError, match=says):
        check_optuna_storage(make_plan(tmp_path, optuna_storage=storage))


def test_a_study_that_searches_nothing_has_nothing_to_mirror(tmp_path):
    plan = make_plan(
        tmp_path, space="method", trials=0, promising=0, controls=(), optuna_storage=tmp_path / "studies.journal",
        compared=[{"name": name, "fields": {"method": name, "adapter": False}} for name in ("ce", "kd")],
    )  # fmt: skip
    with pytest.raises(UsageError, match="has no search"):
        check_optuna_storage(plan)


def test_a_file_of_earlier_studies_and_one_that_is_yet_to_be_made_are_fine(tmp_path):
    ledger, tune = begin(tmp_path)
    tune.run(1)
    check_optuna_storage(ledger.plan)
    write(ledger)
    check_optuna_storage(ledger.plan)
    check_optuna_storage(make_plan(tmp_path, optuna_storage=tmp_path / "new" / "folder" / "studies.journal"))
    assert not (tmp_path / "new").exists()


def test_where_the_mirror_lies_is_no_part_of_what_a_study_is(tmp_path):
    assert make_plan(tmp_path, optuna_storage=tmp_path / "a").digest == make_plan(tmp_path).digest


@contextmanager
def dashboard(path):
    """Start the real optuna-dashboard on loopback. Yield a function that queries the API."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    assert program is not None, "optuna-dashboard is one of the packages for development"
    process = subprocess.Popen(
        [program, str(path), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def ask(what):
        with urlopen(f"http://127.0.0.1:{port}/{what}", timeout=30) as answer:
            return answer.read()

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                ask("")
                break
            except (URLError, ConnectionError):
                assert process.poll() is None, "optuna-dashboard ended"
                assert time.monotonic() < deadline, "optuna-dashboard does not answer"
                time.sleep(0.2)
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def dashboard_trials(ask, name):
    """Return the trials of a study as the dashboard's page receives them."""
    studies = json.loads(ask("api/studies"))["study_summaries"]
    (study,) = [each for each in studies if each["study_name"] == name]
    return json.loads(ask(f"api/studies/{study['study_id']}?after=0"))["trials"]


@pytest.mark.launcher
def test_optuna_dashboard_opens_the_file_and_shows_every_state(tmp_path):
    ledger, tune = begin(tmp_path)
    trials_of_every_status(tune)
    write(ledger)
    with dashboard(ledger.plan.optuna_storage) as ask:
        assert b"Optuna Dashboard" in ask("dashboard")
        trials = dashboard_trials(ask, "planned")
        assert [trial["state"] for trial in trials] == ["Complete", "Pruned", "Fail", "Running"]
        assert trials[0]["values"] == [ledger.in_stage("search")[0].score]
        assert [each["value"] for each in trials[1]["intermediate_values"]] == [0.25]
        # The study continues while the dashboard is open.
        again = StudyLedger(ledger.plan)
        PretendedTune(StudySearch(again, {}), again).run()
        write(again)
        deadline = time.monotonic() + 60
        while [trial["state"] for trial in dashboard_trials(ask, "planned")] != [
            "Complete", "Pruned", "Fail", "Complete", "Complete",
        ]:  # fmt: skip
            assert time.monotonic() < deadline
            time.sleep(0.2)


def has_trial_with_status(status, directory):
    """Return whether the journal of a study has a trial with this status."""
    path = directory / "journal.jsonl"
    return path.exists() and any(event.get("status") == status for event in read_journal(path)[0])


@pytest.mark.slow
def test_a_real_study_that_was_killed_and_resumed_shows_its_stopped_trials_as_pruned(launch, output_dir):
    name, path = "mirrored", output_dir / "studies.journal"
    process = start(
        name, output_dir, "--trials", "12", "--epochs", "9", "--scheduler", "asha", "--optuna-storage", str(path)
    )
    wait_in_study(process, lambda: has_trial_with_status("pruned", output_dir / name))
    kill(process)
    done = launch("--resume", name, "--output-dir", output_dir, "--executor", "in-process")
    assert done.returncode == 0, done.stderr
    assert f"optuna-dashboard {path}" in done.stdout
    rows = [row for row in read_trials(output_dir / name).to_pylist() if row["stage"] == "search"]
    assert {row["status"] for row in rows} >= {"finished", "pruned"}
    with dashboard(path) as ask:
        trials = dashboard_trials(ask, name)
    attributes = [{each["key"]: each["value"] for each in trial["user_attrs"]} for trial in trials]
    shown = {own["trial_id"]: trial for own, trial in zip(attributes, trials, strict=True)}
    assert len(shown) == len(trials) == len(rows)
    for row in rows:
        trial = shown[row["trial_id"]]
        assert trial["state"] == {"finished": "Complete", "pruned": "Pruned"}[row["status"]]
        assert trial["values"] == [row["val/accuracy"]]
        assert len(trial["intermediate_values"]) == row["epochs"]
