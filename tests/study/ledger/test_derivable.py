"""Journals with missing parts. The records and the MLflow runs of the study are never lost."""

import contextlib
import json
import shutil
import zlib

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from study.ledger.derivable import lost_records
from study.ledger.ledger import StudyLedger
from study.ledger.rows import epoch_rows, trial_row
from study.records import (
    EPOCHS_SCHEMA,
    TRIALS_SCHEMA,
    RecordWriter,
    read_epochs,
    read_trials,
    recorded_trials,
)
from study.running.runner import recorded_run
from study.search.searcher import StudySearch
from study.tracking.tracker import StudyTracker
from tests.study.factories import PretendedTune, make_plan
from tests.study.inspection import files_in, runs_of
from trainables.process.errors import StudyError

pytestmark = pytest.mark.study


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Plan of a finished study with journal, records and MLflow runs."""
    folder = tmp_path_factory.mktemp("ended")
    ledger = StudyLedger(make_plan(folder, trials=4), read_only=True)
    ledger.begin_writing()
    PretendedTune(StudySearch(ledger, {}), ledger).run()
    ledger.plan.save()
    ledger.close()
    with recorded_run(ledger.plan):
        tracker = StudyTracker(ledger.plan, command="", versions={}, ledger=ledger)
        tracker.catch_up(ledger)
        assert tracker.finish("FINISHED", result_note="| the result |") is None
    return ledger.plan


@pytest.fixture
def study(ended):
    """The finished study, restored before each test."""
    backup = ended.output_dir.with_name("backup")
    if not backup.exists():
        shutil.copytree(ended.output_dir, backup)
    shutil.rmtree(ended.directory)
    shutil.copytree(backup / ended.name, ended.directory)
    return ended


def contents(plan):
    return files_in(plan.directory, without=(".lock",))


def runs(plan):
    """Return status and note of the parent run, and status, metrics and tags of each trial's run."""
    parent, children = runs_of(plan)
    return (
        (parent.info.status, parent.data.tags["mlflow.note.content"]),
        {run.data.tags["trial_id"]: (run.info.status, run.data.metrics, run.data.tags) for run in children},
    )


def without(lines, word):
    return b"".join(line for line in lines if word not in line)


HALF = {
    "empty": lambda lines: b"",
    "missing": lambda lines: None,
    "truncated at the start": lambda lines: b"".join(lines[20:]),
    "truncated at the start, within a line": lambda lines: b"".join(lines[20:])[30:],
    "truncated in the middle": lambda lines: b"".join(lines[:9] + lines[30:]),
    "truncated at the end": lambda lines: b"".join(lines[:-7]),
    "reversed": lambda lines: b"".join(lines[::-1]),
    "sorted": lambda lines: b"".join(sorted(lines)),
    "zeros": lambda lines: b"\0" * sum(map(len, lines)),
    "zeros for its second half": lambda lines: b"".join(lines[:20]) + b"\0" * 4096,
    "UTF-16": lambda lines: b"".join(lines).decode().encode("utf-16"),
    "line ends of old Macs": lambda lines: b"".join(lines).replace(b"\n", b"\r"),
    "without one end": lambda lines: without(lines, b'"end","trial_id":"planned-0003"'),
    "without one epoch": lambda lines: b"".join(
        line for line in lines if not (b"planned-0003" in line and b'"epoch":2,' in line)
    ),
    "without one beginning": lambda lines: without(lines, b'"trial","trial_id":"planned-0003"'),
    "a folder": lambda lines: "folder",
}


def damage(plan, content):
    """Replace the journal by this content, by a folder, or by nothing."""
    path = plan.directory / "journal.jsonl"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)


@pytest.mark.study
@pytest.mark.parametrize("change", HALF.values(), ids=HALF)
def test_a_journal_that_accounts_for_less_than_the_records_is_refused_and_nothing_is_changed(study, change):
    lines = (study.directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    damage(study, change(lines))
    before = contents(study)
    for _ in range(2):
        with pytest.raises(StudyError) as refusal, recorded_run(study):
            pass
        assert contents(study) == before
    said = str(refusal.value)
    assert "Restore" in said or "restore" in said
    if not (study.directory / "journal.jsonl").is_dir():
        total = read_trials(study.directory).num_rows
        ledger = StudyLedger(study, read_only=True, sets_aside=True)
        lost = len(lost_records(ledger, recorded_trials(study.directory)))
        assert f"the records contain {total} ended trials, but the journal contains {total - lost} of them" in said
        assert lost > 0
        assert "--set-aside-records" in said


ALTERED = {
    "line ends of Windows": lambda whole: whole.replace(b"\n", b"\r\n"),
    "a byte order mark": lambda whole: b"\xef\xbb\xbf" + whole,
    "twice": lambda whole: whole + whole,
    "zeros at the end": lambda whole: whole + b"\0" * 4096,
    "no break at the end": lambda whole: whole[:-1],
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_a_journal_that_was_only_copied_badly_accounts_for_everything(study, change):
    path = study.directory / "journal.jsonl"
    before = contents(study)
    path.write_bytes(change(path.read_bytes()))
    said = []
    with recorded_run(study, said.append) as run:
        assert run.complete
    assert {**contents(study), "journal.jsonl": before["journal.jsonl"]} == before
    assert said == []


def test_records_that_are_set_aside_are_kept_and_no_trial_gets_a_name_that_was_taken(study):
    path = study.directory / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines[:25] if b'"end","trial_id":"planned-0001"' not in line))
    records = {name: each for name, each in contents(study).items() if name.startswith("records")}
    known_before, said = runs(study), []
    with recorded_run(study, said.append, sets_aside=True) as run:
        ended = {entry.trial_id for entry in run.ledger.entries.values() if entry.status is not None}
        assert set(read_trials(study.directory)["trial_id"].to_pylist()) == ended
        assert ended
        tracker = StudyTracker(study, command="", versions={}, ledger=run.ledger)
        tracker.catch_up(run.ledger)
        assert tracker.finish("KILLED") is None
    (aside,) = (study.directory / "set-aside").iterdir()
    assert str(aside) in said[0]
    kept = contents(study.model_copy(update={"name": f"{study.name}/set-aside/{aside.name}"}))
    assert kept == records, "moved, and not a byte changed"
    assert runs(study)[1] == known_before[1], "runs of trials that the journal lost are left as they are"
    with recorded_run(study):  # needed only once
        pass
    ledger = StudyLedger(study)
    assert ledger.entries["planned-0001"].attempt == 2
    new = PretendedTune(StudySearch(ledger, {}), ledger).run()
    assert {each["trial_id"] for each in new} & set(known_before[1]) <= set(ledger.entries)
    taken = {trial_id for trial_id in known_before[1] if trial_id not in ledger.entries}
    assert taken
    assert min(e.ordinal for e in ledger.entries.values() if e.ordinal > 5) > max(int(i[-4:]) for i in taken)
    ledger.close()
    with recorded_run(study) as run:
        assert run.complete
        StudyTracker(study, command="", versions={}, ledger=run.ledger).finish("FINISHED")


@pytest.mark.parametrize("change", ["UTF-16", "line ends of old Macs"])
def test_a_journal_that_cannot_be_read_is_set_aside_with_the_records_and_a_new_one_begins(study, change):
    path = study.directory / "journal.jsonl"
    damage(study, HALF[change](path.read_bytes().splitlines(keepends=True)))
    before, taken = contents(study), set(recorded_trials(study.directory))
    said = []
    with recorded_run(study, said.append, sets_aside=True) as run:
        assert not run.ledger.entries
    (aside,) = (study.directory / "set-aside").iterdir()
    assert said == [f"the old records are in {aside}"]
    kept = contents(study.model_copy(update={"name": f"{study.name}/set-aside/{aside.name}"}))
    assert kept == {name: each for name, each in before.items() if name != "plan.json"}
    ledger = StudyLedger(study)
    assert not ledger.damage
    assert not taken & {each["trial_id"] for each in PretendedTune(StudySearch(ledger, {}), ledger).run(1)}
    ledger.close()


@pytest.mark.parametrize("change", ["empty", "missing", "truncated at the end"])
def test_a_result_is_not_replaced_by_one_of_fewer_trials_where_the_records_are_gone_too(study, change):
    """MLflow would reveal the loss, but not if the study is delivered to another store."""
    total = read_trials(study.directory).num_rows
    counts = {"finished": total - 1, "failed": 1, "planned": 99}
    (study.directory / "summary.json").write_text(json.dumps({"trials": counts}))
    with recorded_run(study):
        pass
    damage(study, HALF[change]((study.directory / "journal.jsonl").read_bytes().splitlines(keepends=True)))
    shutil.rmtree(study.directory / "records")
    before = contents(study)
    said = rf"summary.json counts {total} ended trials, but the journal contains \d"
    with pytest.raises(StudyError, match=said), recorded_run(study):
        pass
    assert contents(study) == before
    with recorded_run(study, sets_aside=True) as run:
        assert run.ledger.open_trial("control", study.example_config, 1).ordinal >= total
    (aside,) = (study.directory / "set-aside").iterdir()
    assert [each.name for each in aside.iterdir()] == ["summary.json"]


def test_set_aside_is_no_work_where_the_journal_accounts_for_all(study):
    before, said = contents(study), []
    with recorded_run(study, said.append, sets_aside=True):
        pass
    assert said == ["the journal accounts for all records"]
    assert contents(study) == before


@pytest.mark.parametrize("change", ["empty", "missing", "truncated at the end", "without one end"])
def test_runs_in_mlflow_that_the_journal_has_lost_are_neither_killed_nor_overwritten(study, change):
    """The records are missing too. They would reveal the loss."""
    path = study.directory / "journal.jsonl"
    damage(study, HALF[change](path.read_bytes().splitlines(keepends=True)))
    shutil.rmtree(study.directory / "records")
    before = runs(study)
    ledger = StudyLedger(study, read_only=True)
    with pytest.raises(StudyError, match=r"MLflow runs include \d+ ended trials, but the journal contains \d+ of them"):
        StudyTracker(study, command="", versions={}, ledger=ledger)
    assert runs(study) == before


def test_a_run_of_a_trial_that_the_journal_does_not_know_is_not_marked_killed(study):
    client = MlflowClient(study.tracking_uri)
    parent, _ = runs_of(study)
    stray = client.create_run(
        parent.info.experiment_id,
        tags={"mlflow.parentRunId": parent.info.run_id, "trial_id": "planned-0099", "kind": "trial"},
    )
    try:
        with recorded_run(study) as run:
            tracker = StudyTracker(study, command="", versions={}, ledger=run.ledger)
            assert tracker.finish("FINISHED") is None
        assert client.get_run(stray.info.run_id).info.status == "RUNNING"
    finally:
        client.delete_run(stray.info.run_id)


def test_a_trial_that_is_retried_drops_its_record_and_no_other(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path, trials=3))
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    tune_id, settings = tune.next()
    tune.report(settings, 1, 0.9)
    tune.search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
    without_an_epoch, _ = tune.next()
    tune.search.on_trial_complete(without_an_epoch, {"finished": False, "failed": "at once"})
    tune.run()
    ledger.plan.save()
    writer = RecordWriter(ledger.plan.directory)
    for entry in ledger.entries.values():
        entry.calibration = {"calibration/val_student": {"count": [1], "confidence": [0.5], "correct": [1]}}
        writer.write(trial_row(ledger.plan, entry), epoch_rows(entry))
    writer.merge()
    before = read_trials(ledger.plan.directory)
    failed = {entry.trial_id for entry in ledger.retry_failed()}
    assert len(failed) == 2
    ledger.close()
    with recorded_run(ledger.plan):
        after = read_trials(ledger.plan.directory)
    assert not failed & set(after["trial_id"].to_pylist())
    kept = [row for row in before.to_pylist() if row["trial_id"] not in failed]
    assert after.to_pylist() == kept, "what the journal has lost of another trial stays in its record"
    assert not failed & set(read_epochs(ledger.plan.directory)["trial_id"].to_pylist())
    assert not (ledger.plan.directory / "set-aside").exists()


def test_records_of_another_study_that_were_copied_in_are_no_reason_to_delete_any(study, tmp_path):
    other = StudyLedger(make_plan(tmp_path, name="other"))
    PretendedTune(StudySearch(other, {}), other).run()
    writer = RecordWriter(study.directory)
    for entry in other.entries.values():
        writer.write(trial_row(other.plan, entry), epoch_rows(entry))
    before = contents(study)
    with pytest.raises(StudyError, match="not other-0000"), recorded_run(study):
        pass
    assert contents(study) == before


def test_a_damaged_file_of_records_is_moved_and_written_again(study):
    (path,) = (study.directory / "records" / "trials").glob("segment-*.parquet")
    before, content = read_trials(study.directory), bytearray(path.read_bytes())
    digest = path.with_name(f"{path.name}.sha256").read_bytes()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with recorded_run(study):
        assert read_trials(study.directory) == before
    (aside,) = (study.directory / "set-aside").rglob("*.parquet")
    assert aside.read_bytes() == content
    assert aside.with_name(f"{aside.name}.sha256").read_bytes() == digest
    (again,) = path.parent.glob("*.parquet")
    assert {each.name for each in path.parent.iterdir()} == {again.name, f"{again.name}.sha256"}


def test_a_file_of_records_whose_sidecar_changed_is_moved_and_written_again(study):
    (path,) = (study.directory / "records" / "epochs").glob("segment-*.parquet")
    before, sidecar = read_epochs(study.directory), path.with_name(f"{path.name}.sha256")
    sidecar.write_bytes(sidecar.read_bytes()[:30])
    said = []
    with recorded_run(study, said.append):
        assert read_epochs(study.directory) == before
    assert [str(path) in line for line in said] == [True]
    assert len(list((study.directory / "set-aside").rglob("*.sha256"))) == 1


def test_a_resume_removes_sidecars_without_a_file_and_nothing_else(study):
    before = contents(study)
    for name in ("trial-planned-0001.parquet.sha256", "segment-gone.parquet.sha256"):
        (study.directory / "records" / "trials" / name).write_text(f"{'0' * 64}  {name.removesuffix('.sha256')}\n")
    rows = read_trials(study.directory)
    with recorded_run(study):
        assert read_trials(study.directory) == rows
    assert contents(study) == before


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["finished", "pruned", "failed", "search", "confirm", "planned-0001", "planned-0777"]),
    st.just([]), st.just({}), st.just([1]), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def changed(draw, event):
    """Change, remove or add one value of an event in place, at any depth."""
    place = event
    while True:
        key = draw(st.sampled_from(sorted(place)))
        inner = place[key]
        if not (isinstance(inner, dict) and inner and draw(st.booleans())):
            break
        place = inner
    what = draw(st.sampled_from(["change", "remove", "add"]))
    if what == "remove":
        del place[key]
    else:
        place[key if what == "change" else draw(st.text(max_size=6))] = draw(VALUES)


@st.composite
def mutated(draw, lines):
    """Generate a journal with one to three events changed, removed, doubled or swapped."""
    events = [json.loads(line.split(b" ", 1)[1]) for line in lines]
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(events) - 1))
        what = draw(st.sampled_from(["change", "change", "change", "remove", "double", "swap"]))
        if what == "remove" and len(events) > 1:
            del events[number]
        elif what == "double":
            events.insert(draw(st.integers(0, len(events))), dict(events[number]))
        elif what == "swap":
            other = draw(st.integers(0, len(events) - 1))
            events[number], events[other] = events[other], events[number]
        else:
            events[number] = json.loads(json.dumps(events[number]))
            changed(draw, events[number])
    contents = (json.dumps(event, separators=(",", ":")).encode() for event in events)
    return b"".join(b"%08x %s\n" % (zlib.crc32(content), content) for content in contents)


def assert_sound(ledger):
    """Assert that the trials of a ledger can be searched, recorded and counted."""
    assert ledger.ended == sum(entry.status is not None for entry in ledger.entries.values())
    for entry in ledger.entries.values():
        assert set(entry.epochs) == set(entry.epoch_times) <= set(range(1, entry.config.epochs + 1))
        assert entry.status in (None, "finished", "pruned", "failed")
        assert entry.status != "finished" or len(entry.epochs) == entry.config.epochs
    entries = ledger.entries.values()
    # All trials in one table: pyarrow takes as long for one row of a hundred columns as for twenty rows.
    pa.Table.from_pylist([trial_row(ledger.plan, entry) for entry in entries], schema=TRIALS_SCHEMA)
    pa.Table.from_pylist([row for entry in entries for row in epoch_rows(entry)], schema=EPOCHS_SCHEMA)
    assert StudySearch(ledger, {}).has_more in (True, False)
    assert ledger.planned > 0


@pytest.fixture(scope="module")
def journal_lines(ended):
    return (ended.directory / "journal.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.study
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_of_a_journal_ends_in_a_sound_ledger_or_a_refusal_and_deletes_no_record(ended, journal_lines, data):
    path = ended.directory / "journal.jsonl"
    path.write_bytes(data.draw(mutated(journal_lines)))
    before, accepted = contents(ended), False
    recorded = recorded_trials(ended.directory)
    try:
        with contextlib.suppress(StudyError):
            ledger = StudyLedger(ended, read_only=True)
            with contextlib.suppress(StudyError):  # the sampler's proposals may be unreadable
                assert_sound(ledger)
            with recorded_run(ended):
                pass
            accepted = True
        after = contents(ended)
        assert accepted or after == before, "a refusal changes nothing"
        if after != before:
            there = {row["trial_id"]: row for row in read_trials(ended.directory).to_pylist()}
            assert all(there[each]["epochs"] >= found.epochs for each, found in recorded.items())
    finally:
        path.write_bytes(b"".join(journal_lines))
