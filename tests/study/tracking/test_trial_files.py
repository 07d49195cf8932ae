"""TensorBoard's event files, read back by TensorBoard, and wandb's offline runs, by the messages of wandb."""

import json
import math
import socket
import threading
from importlib import util

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from wandb.proto.wandb_internal_pb2 import Record

from study.ledger.ledger import StudyLedger
from study.plan.checks import check_trial_files
from study.search.searcher import StudySearch
from study.tracking.tensorboard import TensorBoardWriter, trial_folder
from study.tracking.tracker import StudyTracker
from study.tracking.trial_files import TrialFiles
from study.tracking.trial_run import trial_params
from study.tracking.trial_writer import Written
from study.tracking.wandb_offline import OfflineWandbWriter
from tests.study.factories import PretendedTune, make_plan
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import ACCURACY

pytestmark = pytest.mark.study


@pytest.fixture
def ledger(tmp_path):
    """A study of one config with one trial that has ended and one that runs, at the second of four epochs."""
    ledger = StudyLedger(make_plan(tmp_path))
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    tune.run(1)
    _, running = tune.next()
    for epoch in (1, 2):
        tune.report(running, epoch)
    return ledger


@pytest.fixture
def server(monkeypatch):
    """Count the connections to a server that stands in for all of the network."""
    listening, connections = socket.create_server(("127.0.0.1", 0)), []
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)

    def accept():
        while True:
            try:
                connections.append(listening.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield connections
    listening.close()


def deliver(writer, entries):
    said = []
    files = TrialFiles(writer, report=said.append)
    for entry in entries:
        files.put(entry)
    files.close()
    return said


def finish(ledger, entry):
    for epoch in range(max(entry.epochs) + 1, entry.config.epochs + 1):
        ledger.record_epoch(entry.trial_id, epoch, {ACCURACY: 0.1 * epoch, "cost/seconds": math.nan})
    ledger.end_trial(entry.trial_id, "finished")


def events(plan, entry):
    found = EventAccumulator(str(trial_folder(plan.directory / "tensorboard", entry)))
    found.Reload()
    return found


def scalars(plan, entry):
    found = events(plan, entry)
    return {name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]}


def recorded(entry):
    names = {name for measures in entry.epochs.values() for name in measures}
    return {
        name: [(epoch, float(np.float32(measures[name]))) for epoch, measures in sorted(entry.epochs.items())]
        for name in names
    }


def in_doubles(settings):
    """Return settings with integers that a double would round, such as seeds, as strings."""
    rounds = {name for name, each in settings.items() if isinstance(each, int) and int(float(each)) != each}
    assert {"seed", "data_seed"} <= rounds
    return {name: str(each) if name in rounds else each for name, each in settings.items()}


def logged(data):
    """Yield the entries of a log in LevelDB's format, which wandb has in Go only: blocks of 32 KiB after 7 bytes."""
    place, entry = 7, b""
    assert data[:4] == b":W&B"
    while place < len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        entry += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or last part
            yield entry
            entry = b""


def offline_runs(plan):
    """Return the records of all offline runs by the identifier of the run, with a list for each directory."""
    found = {}
    for path in sorted((plan.directory / "wandb").glob("offline-run-*/*.wandb")):
        records = [Record.FromString(data) for data in logged(path.read_bytes())]
        run_id = next(each.run.run_id for each in records if each.WhichOneof("record_type") == "run")
        assert path.parent.name.endswith(f"-{run_id}")
        found.setdefault(run_id.removeprefix(f"{plan.study_id[:8]}-"), []).append(records)
    return found


def history(records):
    rows = {}
    for each in records:
        if each.WhichOneof("record_type") == "history":
            values = {
                (item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in each.history.item
            }
            rows[values["_step"]] = {name: value for name, value in values.items() if not name.startswith("_")}
    return rows


def test_event_files_hold_every_measure_of_every_epoch_at_the_time_of_the_report(ledger):
    assert deliver(TensorBoardWriter(ledger.plan), ledger.entries.values()) == []
    for entry in ledger.entries.values():
        assert scalars(ledger.plan, entry) == recorded(entry)
        times = [each.wall_time for each in events(ledger.plan, entry).Scalars(ACCURACY)]
        assert times == [entry.epoch_times[epoch] for epoch in sorted(entry.epochs)]


def test_the_settings_of_a_trial_are_hyperparameters_and_an_ended_trial_is_marked(ledger):
    deliver(TensorBoardWriter(ledger.plan), ledger.entries.values())
    ended, running = ledger.entries.values()
    for entry in (ended, running):
        metadata = events(ledger.plan, entry).summary_metadata
        found = {}
        for tag in ("experiment", "session_start_info", "session_end_info"):
            if (each := metadata.get(f"_hparams_/{tag}")) is not None:
                found[tag] = plugin_data_pb2.HParamsPluginData.FromString(each.plugin_data.content)
        assert ("session_end_info" in found) == (entry is ended)
        shown = {each.name.tag for each in found["experiment"].experiment.metric_infos}
        assert shown == {ACCURACY, "val/sharpness_gap"}
        settings = found["session_start_info"].session_start_info.hparams
        given = {name: each for name, each in in_doubles(trial_params(ledger.plan, entry)).items() if each is not None}
        assert settings.keys() == {*given, "stage"}
        assert {name: getattr(settings[name], settings[name].WhichOneof("kind")) for name in given} == given


def test_a_resumed_study_appends_epochs_without_duplicates_also_after_a_kill(ledger):
    _, running = ledger.entries.values()
    writer = TensorBoardWriter(ledger.plan)
    files = TrialFiles(writer, report=print)
    files._deliver(running)
    # Written, but the process is killed before the journal of the files has it.
    ledger.record_epoch(running.trial_id, 3, {ACCURACY: 0.3})
    writer.write(running, Written(epoch=2))
    files.abandon()
    with (ledger.plan.directory / "tensorboard" / "delivered.jsonl").open("a") as journal:
        journal.write('\n{"trial": "' + running.trial_id)
    finish(ledger, running)
    for _ in range(2):  # a further resume changes nothing
        resumed = TrialFiles(TensorBoardWriter(ledger.plan), report=print)
        resumed.catch_up(ledger.entries.values())
        resumed.close()
        for entry in ledger.entries.values():
            found, expected = scalars(ledger.plan, entry), recorded_without_gaps(entry)
            np.testing.assert_equal(found, expected)
        files = sorted((ledger.plan.directory / "tensorboard").rglob("events*"))
        assert len(files) == 3  # one of the ended trial, two of the one that was resumed: nothing is written again


def recorded_without_gaps(entry):
    names = {name for measures in entry.epochs.values() for name in measures}
    return {
        name: [(epoch, float(np.float32(each[name]))) for epoch, each in sorted(entry.epochs.items()) if name in each]
        for name in names
    }


def test_offline_runs_hold_measures_and_settings_once_and_nothing_contacts_a_network(ledger, server):
    ended, running = ledger.entries.values()
    for round_ in range(2):
        assert deliver(OfflineWandbWriter(ledger.plan), [ended, running]) == []
        found = offline_runs(ledger.plan)
        assert found.keys() == ({ended.trial_id} if round_ == 0 else {ended.trial_id, running.trial_id})
        assert all(len(each) == 1 for each in found.values())
        if round_ == 0:  # a run that was cut off by a kill is written anew
            journal = ledger.plan.directory / "wandb" / "delivered.jsonl"
            journal.write_text("")
            finish(ledger, running)
    for entry in (ended, running):
        (records,) = found[entry.trial_id]
        rows = history(records)
        assert rows.keys() == entry.epochs.keys()
        for epoch, measures in entry.epochs.items():
            assert rows[epoch].keys() == measures.keys()
            assert rows[epoch][ACCURACY] == pytest.approx(measures[ACCURACY], rel=1e-12)
        run = next(each.run for each in records if each.WhichOneof("record_type") == "run")
        assert (run.display_name, run.run_group, run.job_type) == (entry.name, ledger.plan.name, entry.stage)
        config = {each.key: json.loads(each.value_json) for each in run.config.update}
        settings = in_doubles(trial_params(ledger.plan, entry))
        assert {name: config[name] for name in settings} == settings
    assert server == []


def test_the_studys_tracker_feeds_both_and_without_the_options_writes_neither(tmp_path, server):
    for asked in (False, True):
        plan = make_plan(
            tmp_path, name=f"asked-{asked}", trials=1, promising=1, replicates=1, tensorboard=asked, wandb_offline=asked
        )
        ledger = StudyLedger(plan)
        tune = PretendedTune(StudySearch(ledger, {}), ledger)
        said = []
        tracker = StudyTracker(plan, command="", versions={}, report=said.append, ledger=ledger)
        ran = tune.run(2)
        tracker.deliver(ledger.entries[ran[0]["trial_id"]])
        tracker.catch_up(ledger)
        assert tracker.finish("FINISHED") is None
        assert said == []
        assert [(plan.directory / name).exists() for name in ("tensorboard", "wandb")] == [asked, asked]
    assert offline_runs(plan).keys() == ledger.entries.keys()
    for entry in ledger.entries.values():
        assert scalars(plan, entry) == recorded(entry)
    assert server == []


@pytest.mark.parametrize(("option", "module"), [("tensorboard", "tensorboardX"), ("wandb_offline", "wandb")])
def test_a_missing_library_is_an_error_with_the_command_that_installs_it(tmp_path, monkeypatch, option, module):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == module else found(name, *rest))
    check_trial_files(make_plan(tmp_path))
    flag = f"--{option.replace('_', '-')}"
    with pytest.raises(UsageError, match=rf"{flag} needs {module}, not installed here: pip install .*{module}"):
        check_trial_files(make_plan(tmp_path, **{option: True}))


def test_files_that_cannot_be_written_are_reported_and_fail_no_study(ledger):
    (ledger.plan.directory / "tensorboard").write_text("a file where the folder should be")
    files = TrialFiles(TensorBoardWriter(ledger.plan), report=(said := []).append)
    files.catch_up(ledger.entries.values())
    files.close(patience=0.0)
    assert "TensorBoard" in said[-1]
    assert "python -m study.sync" in said[-1]


def test_a_library_that_cannot_be_imported_ends_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "study.tracking.wandb_offline", None)
    with pytest.raises(StudyError, match="install the extras"):
        StudyTracker(make_plan(tmp_path, wandb_offline=True), command="", versions={})
    assert list(tmp_path.rglob("*.db*")) == []  # the store is not created
