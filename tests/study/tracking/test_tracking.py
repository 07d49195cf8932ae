"""Tracker with a real store: SQLite, as in the default."""

import hashlib
import http.server
import json
import math
import shlex
import threading
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from scipy import stats

from study.cli.start_command import start_command
from study.launch import main as launch_study
from study.ledger.ledger import StudyLedger
from study.search.searcher import StudySearch
from study.tracking.experiment import experiment_name
from study.tracking.tracker import StudyTracker
from study.tracking.trial_run import trial_params
from study.tracking.view import NOTE_FIGURES, VIEW_TAG, command_block, view_keys
from tests.study.factories import PretendedTune, make_plan
from trainables.process.errors import StudyError
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP
from trainables.storage.mlflow_store import check_tracking_uri
from trainables.teacher.command import main as train_teacher

pytestmark = pytest.mark.study


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Store shared by the module, because creating the schema takes seconds."""
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


def test_costs_known_before_the_first_step_are_params_and_tags_and_no_metrics(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="costs")
    tracker = track(ledger)
    _, settings = tune.next()
    entry = ledger.entries[settings["trial_id"]]
    ledger.record_facts(entry.trial_id, {"cost/step_flops": 33_960.0, "cost/forward_flops_student": 11_320.5})
    delivered = {}
    for epoch in (1, 2):
        measures = {"cost/adapter_parameters": 330.0, "cost/seconds": 0.1 * epoch, SHARPNESS_GAP: 0.2, ACCURACY: 0.5}
        ledger.record_epoch(entry.trial_id, epoch, measures)
        tracker._deliver(entry, delivered)
    assert tracker.finish("FINISHED") is None
    run = children(tracker)[entry.trial_id]
    assert run.data.params["cost/step_flops"] == "33960"
    assert run.data.tags["cost/forward_flops_student"] == "11320.5"
    assert run.data.tags["cost/adapter_parameters"] == "330"
    # MLflow's Compare page opens with the first metric.
    assert list(run.data.metrics) == [ACCURACY, SHARPNESS_GAP, "cost/seconds"]


def test_every_setting_that_a_trial_reads_is_a_param_also_of_the_study(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="params")
    tracker = track(ledger)
    tune.run()
    tracker.catch_up(ledger)
    tracker.finish("FINISHED")
    for trial_id, run in children(tracker).items():
        entry = ledger.entries[trial_id]
        config = entry.config.model_dump(mode="json")
        adapter = {"adapter_width", "log10/adapter_width"} if entry.config.method == "pesf_kd" else set()
        assert {"method", "replicate", "seed", "dataset", "student", "epochs"} | adapter <= run.data.params.keys()
        assert run.data.params == {k: str(v) for k, v in trial_params(ledger.plan, entry).items()}
        assert all(str(config[name]) == each for name, each in run.data.params.items() if name in config)
        if adapter:
            logarithm = float(run.data.params["log10/adapter_width"])
            assert 10**logarithm == pytest.approx(config["adapter_width"], rel=1e-5)
        assert ("temperature" in run.data.params) == (entry.config.method != "ce")
        assert not any(name.startswith(("dkd_", "crd_", "sftn_")) for name in run.data.params)  # read by no method here
    parent = MlflowClient(store).get_run(tracker.parent_id)
    assert parent.data.params["temperature"] == "4.0"
    assert "adapter_width" not in parent.data.params  # differs between trials


def test_seeds_of_a_config_share_mean_and_interval_and_stages_have_colours(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="groups", trials=4, confirmation={"configs": 1, "seeds": 2})
    tune.run()
    tracker = StudyTracker(ledger.plan, command="", versions={}, ledger=ledger)
    tracker.catch_up(ledger)
    assert tracker.finish("FINISHED") is None
    runs, colours = children(tracker), {}
    groups = {}
    for entry in ledger.entries.values():
        run = runs[entry.trial_id]
        colours.setdefault(run.data.tags["mlflow.runColor"], set()).add(entry.stage)
        groups.setdefault(run.data.tags.get("group"), []).append((entry, run))
    assert all(len(stages) == 1 for stages in colours.values())
    assert len(colours) == len({entry.stage for entry in ledger.entries.values()})
    assert {entry.stage for entry, _ in groups.pop(None)} <= {"search", "tune"}
    assert {"ce, control", "kd-T4.0, control"} < groups.keys()
    for members in groups.values():
        scores = [entry.score for entry, _ in members]
        margin = stats.t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / len(scores) ** 0.5
        for _, run in members:
            found = run.data.metrics
            assert found["val/accuracy_mean"] == pytest.approx(np.mean(scores))
            assert found["val/accuracy_low"] == pytest.approx(max(0.0, np.mean(scores) - margin))
            assert found["val/accuracy_high"] == pytest.approx(min(1.0, np.mean(scores) + margin))
            assert found["val/seeds"] == len(scores) == 2
    # The first row of both views is a seed of the best repeated config.
    client = MlflowClient(store)
    for key in view_keys(ledger.plan):
        state = json.loads(json.loads(client.get_experiment(tracker.experiment_id).tags[f"{VIEW_TAG}{key}"])["state"])
        order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
        rows = client.search_runs([tracker.experiment_id], state["searchFilter"], order_by=[order])
        best = max(run.data.metrics["val/accuracy_low"] for members in groups.values() for _, run in members)
        assert rows[0].data.metrics["val/accuracy_low"] == best
        shown = {run.data.tags["stage"] for run in rows}
        assert ("search" in shown) == (key == view_keys(ledger.plan)[0])


def test_a_study_of_an_earlier_version_gets_the_params_that_its_runs_lack(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="earlier")
    tune.run(2)
    client = MlflowClient(store)
    experiment = client.create_experiment(f"{ledger.plan.base.dataset}: before")
    ids = {"study": ledger.plan.name, "study_id": ledger.plan.study_id}
    with mock.patch("study.tracking.tracker.earlier_name", lambda plan: f"{plan.base.dataset}: before"):
        parent = client.create_run(experiment, tags={"kind": "study", **ids})
        for entry in ledger.entries.values():
            tags = {"kind": "trial", "trial_id": entry.trial_id, "stage": entry.stage, "temperature": "4.0", **ids}
            run = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id, **tags})
            client.log_param(run.info.run_id, "method", entry.config.method)
            client.set_tag(run.info.run_id, "status", "finished")
            client.set_terminated(run.info.run_id)
        tracker = StudyTracker(ledger.plan, command="", versions={}, ledger=ledger)
        tracker.catch_up(ledger)
        assert tracker.finish("FINISHED") is None
    assert (tracker.experiment_id, tracker.parent_id) == (experiment, parent.info.run_id)
    assert len(children(tracker)) == 2
    for trial_id, run in children(tracker).items():
        wanted = trial_params(ledger.plan, ledger.entries[trial_id])
        assert run.data.params == {name: str(value) for name, value in wanted.items()}
        assert run.data.metrics == {}  # nothing was sent again


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("digits", "digits: s"),
        ("glue:sst2", "glue:sst2: s"),
        (f"{FOLDER_PREFIX}/a/b/leaves", "leaves-DIGEST: s"),
        (f"{FOLDER_PREFIX}/c/leaves/", "leaves-DIGEST: s"),
        ("arrays:/x/scans.npz,holdout=2", "scans.npz-DIGEST: s"),
        (f"{FOLDER_PREFIX}/{300 * 'x'}", f"{40 * 'x'}-DIGEST: s"),
    ],
)
def test_names_of_experiments_are_short_and_differ_for_folders_of_one_name(dataset, shown):
    name = experiment_name(SimpleNamespace(space="s", base=SimpleNamespace(dataset=dataset)))
    assert name == shown.replace("DIGEST", hashlib.sha256(dataset.encode()).hexdigest()[:4])


def test_the_experiments_note_links_to_every_study_and_keeps_the_users_words(tmp_path, store):
    for name in ("first", "second"):
        ledger, _ = begin(tmp_path / name, store, name=name, base={"epochs": 7})
        tracker = track(ledger)
        assert tracker.finish("FINISHED") is None
    client = MlflowClient(store)
    note = client.get_experiment(tracker.experiment_id).tags["mlflow.note.content"]
    # The page shows the start of the first line, so the newest study's links come first.
    assert note.startswith("Results of **second** ([configs](")
    assert f"). {ledger.plan.search_space.question} Other studies: **first** ([configs](" in note
    assert note.index(f"viewStateShareKey=pesfkd-{ledger.plan.study_id}-configs&") < note.index("Other studies")
    written = f"Mine. {note}\nAnd below."
    before = f"{ledger.plan.search_space.question} Results by study: **first** ([charts](#/x))"  # of version 0.2.0
    for given, expected in ((written, written), (before, note), ("Mine.", None), (note.partition("Other")[0], note)):
        client.set_experiment_tag(tracker.experiment_id, "mlflow.note.content", given)
        assert track(ledger).finish("FINISHED") is None
        kept = client.get_experiment(tracker.experiment_id).tags["mlflow.note.content"]
        assert kept == (expected or note.replace(ledger.plan.search_space.question, "Mine."))


DATASET = {"digest": "0a" * 32, "train": 1077, "validation": 360}


def test_the_data_are_inputs_of_the_studys_run_once_with_their_digest(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="inputs")
    tracker = track(ledger)
    tune.run(2)
    assert ledger.record_dataset(DATASET)
    assert not ledger.record_dataset(DATASET)
    tracker.register_dataset(DATASET)
    tracker.catch_up(StudyLedger(ledger.plan, read_only=True))
    assert tracker.finish("FINISHED") is None
    again = track(ledger)
    again.catch_up(ledger)
    assert again.finish("FINISHED") is None
    inputs = MlflowClient(store).get_run(tracker.parent_id).inputs.dataset_inputs
    assert sorted(each.dataset.name for each in inputs) == ["digits: train", "digits: validation"]
    assert {each.dataset.digest for each in inputs} == {"0a" * 8}
    rows = {each.dataset.name: json.loads(each.dataset.profile) for each in inputs}
    assert rows["digits: train"] == {"num_rows": 1077, "sha256": "0a" * 32, "class_names": list("0123456789")}
    assert {tag.value for each in inputs for tag in each.tags} == {"training", "validation"}


def test_the_test_split_is_an_input_from_the_first_confirmed_trial_on(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="confirmed-inputs", trials=2, confirmation={"configs": 1, "seeds": 2})
    assert ledger.record_dataset(DATASET)

    def splits():
        tracker = track(ledger)
        tracker.catch_up(StudyLedger(ledger.plan, read_only=True))
        assert tracker.finish("FINISHED") is None
        inputs = MlflowClient(store).get_run(tracker.parent_id).inputs.dataset_inputs
        return {each.dataset.name: json.loads(each.dataset.profile)["num_rows"] for each in inputs}

    tune.run(ledger.plan.total_trials)
    assert splits() == {"digits: train": 1077, "digits: validation": 360}
    tune.run()
    assert splits() == {"digits: train": 1077, "digits: validation": 360, "digits: test": 360}


def test_a_server_that_takes_no_inputs_gets_the_trials_all_the_same(tmp_path, store, monkeypatch):
    def refuse(*args, **kwargs):
        raise MlflowException("no such endpoint", error_code=1000)  # a bad request

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse)
    ledger, tune = begin(tmp_path, store, name="no-inputs")
    tracker = track(ledger)
    tune.run(1)
    tracker.register_dataset(DATASET)
    tracker.catch_up(ledger)
    assert tracker.finish("FINISHED") is None
    assert len(children(tracker)) == 1


def test_the_experiment_has_a_view_that_finds_the_studys_trials_and_fits_into_a_tag(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="view")
    tracker = track(ledger)
    tune.run(3)
    tracker.catch_up(ledger)
    tracker.finish("FINISHED", result_note="| a table |")
    client = MlflowClient(store)
    text = client.get_experiment(tracker.experiment_id).tags[f"{VIEW_TAG}{view_keys(ledger.plan)[0]}"]
    assert len(text) < 5000  # the limit of older servers
    view = json.loads(text)
    state = json.loads(view["state"])
    assert view["name"] == "view"
    found = client.search_runs([tracker.experiment_id], state["searchFilter"])
    assert {run.data.tags["trial_id"] for run in found} == set(ledger.entries)
    assert {"params.`adapter_width`", "metrics.`val/accuracy`"} <= set(state["selectedColumns"])
    gap = next(chart for chart in state["compareRunCharts"] if chart["displayName"].startswith("Sharpness gap"))
    assert (gap["type"], gap["xaxis"]["key"], gap["yaxis"]["key"]) == ("SCATTER", "val/sharpness_gap", "val/accuracy")
    note = client.get_run(tracker.parent_id).data.tags["mlflow.note.content"]
    assert f"viewStateShareKey={view_keys(ledger.plan)[0]}&workflowType=machine_learning&compareRunsMode=CHART" in note


def test_the_command_in_the_note_is_the_one_to_type_in_lines_that_do_not_widen_the_page(tmp_path):
    (tmp_path / "a folder").mkdir()
    command = start_command(make_plan(tmp_path / "a folder", tracking_uri="http://127.0.0.1:5000"))
    block = command_block(command)
    assert len(command) > 200
    shown = block.removeprefix("```\n").removesuffix("\n```")
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(command)  # as a shell joins lines
    assert all(line.endswith(" \\") for line in shown.splitlines()[:-1])
    assert len(shown.splitlines()) > 4


def test_the_note_ends_with_the_report_and_the_figures_that_are_attached(tmp_path, store):
    ledger, _ = begin(tmp_path, store, name="note")
    tracker = track(ledger)
    figures = tmp_path / "figures"
    (figures / NOTE_FIGURES).mkdir(parents=True)
    for name in ("history", "learning_curves", "gap_against_accuracy"):
        (figures / NOTE_FIGURES / f"{name}.png").write_bytes(b"png")
    (tmp_path / "report.html").write_text("report")
    tracker.finish("FINISHED", result_note="| a table |", artifacts=[figures, tmp_path / "report.html"])
    note = MlflowClient(store).get_run(tracker.parent_id).data.tags["mlflow.note.content"]
    run = tracker.parent_id
    assert f"runs/{run}/artifacts/report.html" in note
    shown = [
        f"path=figures%2F{NOTE_FIGURES}%2F{name}.png&run_uuid={run}" for name in ("gap_against_accuracy", "history")
    ]
    assert note.index("| a table |") < note.index(shown[0]) < note.index(shown[1])


def test_the_machine_is_watched_while_a_study_runs(tmp_path, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    ledger, _ = begin(tmp_path, store, name="watched")
    tracker = StudyTracker(ledger.plan, command="", versions={}, watched=True)
    client, deadline = MlflowClient(store), time.monotonic() + 60
    while not any(name.startswith("system/cpu") for name in client.get_run(tracker.parent_id).data.metrics):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tracker.finish("FINISHED")
    assert "machine-watch-ends" not in {thread.name for thread in threading.enumerate()}
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


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
    # After a kill, the run stays RUNNING although the trial continues in another process.
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
        tracker.experiment_id, tags={"mlflow.parentRunId": tracker.parent_id, "trial_id": "stray"}
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
            self.wfile.write(b'{"experiments": [{"experiment_id": "0", "name": "Default"}]}')

        do_POST = do_GET

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


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///data/mlruns", "no longer stores runs in folders of files"),
        ("http://me:hushhush@127.0.0.1:9", "no MLflow tracking server answers at http://127.0.0.1:9"),
        (
            "postgresql://me:hushhush@127.0.0.1:9/runs",
            "the database at --tracking-uri postgresql://***@127.0.0.1:9/runs",
        ),
        ("sqlite:////dev", "/dev is a folder: give a file"),
    ],
)
def test_a_store_that_cannot_be_used_ends_a_start_before_any_work(command, tmp_path, uri, says):
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    arguments = ("--space", "adapter_width", "--smoke", "--name", "x", "--output-dir", out, "--tracking-uri", uri)
    fetching = ("--dataset", "fashion_mnist", "--data-root", data, "--download")
    teacher = ("--dataset", "fashion_mnist", "--model", "resnet8", "--output-dir", out, "--tracking-uri", uri)
    for main, words in (
        (launch_study, arguments),
        (launch_study, (*arguments, *fetching)),
        (train_teacher, (*teacher, *fetching[2:])),
    ):
        begun = command(main, *words)
        assert begun.code == 1, begun.said
        assert says in begun.err
        assert "--tracking-uri" in begun.err
        assert "hushhush" not in begun.said
        assert not list(data.iterdir())
        assert not out.exists() or not list(out.iterdir())


def test_an_error_about_a_server_does_not_repeat_its_password():
    with pytest.raises(StudyError) as error:
        check_tracking_uri("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(error.value)


def test_a_result_that_a_note_has_no_room_for_ends_after_a_whole_paragraph_and_says_where_it_is(tmp_path, store):
    ledger, tune = begin(tmp_path, store, name="long-note")
    tune.run(1)
    tracker = track(ledger)
    tables = ["\n".join(f"| row {number}.{row} | 0.8 |" for row in range(90)) for number in range(6)]
    assert tracker.finish("FINISHED", result_note="\n\n".join(tables)) is None
    note = MlflowClient(store).get_run(tracker.parent_id).data.tags["mlflow.note.content"]
    assert 6000 < len(note) <= 8000
    shown = [table for table in tables if table in note]
    assert shown == tables[: len(shown)]
    assert 0 < len(shown) < 6
    assert f"row {len(shown)}.0" not in note
    assert "report.html" in note
    assert "python -m study.launch" in note
