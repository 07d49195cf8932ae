import errno
import itertools
import json
import subprocess
import sys
import zlib

import pytest
from ray.tune.search import Searcher

from study.ledger.entry import trial_name
from study.ledger.ledger import StudyLedger
from study.ledger.rows import trial_row
from study.plan.bounds import read_bounds
from study.plan.lock import StudyLock
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import ACCURACY
from trainables.spec.trial import TrialConfig


def known(ledger):
    """Return the facts of all trials in a ledger."""
    return [
        (e.trial_id, e.stage, e.replicate, e.config, e.epochs, e.epoch_times, e.status, e.error, e.optuna)
        for e in ledger.entries.values()
    ]


def test_a_ledger_read_from_disk_knows_what_the_first_knew(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    tune = PretendedTune(StudySearch(ledger, {}), ledger)
    tune.run(4)
    tune_id, settings = tune.next()
    tune.report(settings, 1)
    tune.search.on_trial_complete(tune_id, {"finished": False, "failed": "why"})
    tune.next()
    again = StudyLedger(ledger.plan)
    assert known(again) == known(ledger)
    assert [e.trial_id for e in again.unfinished] == ["planned-0005"]


def test_an_epoch_reported_again_after_a_resume_counts_once(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    assert ledger.record_epoch(entry.trial_id, 1, {ACCURACY: 0.5})
    assert not ledger.record_epoch(entry.trial_id, 1, {ACCURACY: 0.6})
    assert StudyLedger(ledger.plan).entries[entry.trial_id].epochs == {1: {ACCURACY: 0.5}}


def test_what_a_trial_costs_by_what_it_is_is_entered_once_and_kept(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    ledger.record_facts(entry.trial_id, {})
    for flops in (5.0, 7.0):
        ledger.record_facts(entry.trial_id, {"cost/step_flops": flops})
    again = StudyLedger(ledger.plan).entries[entry.trial_id]
    assert again.facts == entry.facts == {"cost/step_flops": 5.0}
    row = trial_row(ledger.plan, again)
    assert row["cost/step_flops"] == 5.0
    assert row["cost/stored_bytes"] is None


def test_facts_that_are_known_later_join_the_earlier_ones(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    ledger.record_facts(entry.trial_id, {"data/val_samples": 360.0})
    ledger.record_facts(entry.trial_id, {"data/val_samples": 1.0, "data/test_samples": 12.0})
    again = StudyLedger(ledger.plan).entries[entry.trial_id]
    assert again.facts == entry.facts == {"data/val_samples": 360.0, "data/test_samples": 12.0}
    row = trial_row(ledger.plan, again)
    assert (row["data/val_samples"], row["data/test_samples"], row["data/val_constant_score"]) == (360.0, 12.0, None)


def test_how_well_calibrated_a_trial_is_is_entered_once_and_is_a_list_of_bins_in_its_row(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    ledger.record_calibration(entry.trial_id, {})
    sums = {"count": [2, 0], "confidence": [0.1 + 0.2, 0.0], "correct": [1, 0]}
    for given in ({"calibration/val_student": sums}, {"calibration/val_student": {}}):
        ledger.record_calibration(entry.trial_id, given)
    again = StudyLedger(ledger.plan).entries[entry.trial_id]
    assert again.calibration == entry.calibration == {"calibration/val_student": sums}
    row = trial_row(ledger.plan, again)
    assert row["calibration/val_student"] == [
        {"count": 2, "confidence": 0.1 + 0.2, "correct": 1},
        {"count": 0, "confidence": 0.0, "correct": 0},
    ]
    assert row["calibration/val_teacher"] is None


def test_the_answers_of_a_trial_are_entered_once_and_are_bits_and_classes_in_its_row(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    assert (
        trial_row(ledger.plan, entry)["samples/test_correct"] is trial_row(ledger.plan, entry)["classes/test"] is None
    )
    answers = {
        "samples": 9,
        "bits": "wIA=",
        "count": [4, 5],
        "correct": [1, 2],
        "gap_count": [2, 0],
        "gap": [-0.5, 0.0],
    }
    for given in ({}, answers, {**answers, "bits": "AAA="}):
        ledger.record_answers(entry.trial_id, given)
    again = StudyLedger(ledger.plan).entries[entry.trial_id]
    assert again.answers == entry.answers == answers
    row = trial_row(ledger.plan, again)
    assert row["samples/test_correct"] == b"\xc0\x80"
    assert row["classes/test"] == [
        {"count": 4, "correct": 1, "gap_count": 2, "gap": -0.5},
        {"count": 5, "correct": 2, "gap_count": 0, "gap": 0.0},
    ]


def test_times_never_go_back_when_the_clock_does_and_a_study_goes_on_after_them(tmp_path, monkeypatch):
    clock = itertools.cycle([5000.0, 90_000.0, 100.0])
    monkeypatch.setattr("time.time", lambda: next(clock))
    ledger = StudyLedger(make_plan(tmp_path))
    PretendedTune(StudySearch(ledger, {}), ledger).run(3)
    monkeypatch.setattr("time.time", lambda: 7.0)
    again = StudyLedger(ledger.plan)
    again.open_trial("control", TrialConfig(), 1)
    entries = list(again.entries.values())
    times = [each for e in entries for each in (e.started, *e.epoch_times.values(), e.ended) if each is not None]
    assert times == sorted(times)
    assert entries[-1].started >= 90_000


def test_an_event_that_no_version_wrote_is_named(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    ledger._append({"event": "trial", "trial_id": "planned-0000", "config": {"depth": 3}})
    with pytest.raises(StudyError, match="this version can read none of the lines"):
        StudyLedger(ledger.plan)


def test_a_journal_that_cannot_be_written_is_remembered_and_hands_out_no_more_trials(tmp_path, monkeypatch):
    ledger = StudyLedger(make_plan(tmp_path))
    search = StudySearch(ledger, {})
    tune_id, settings = PretendedTune(search, ledger).next()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger._journal, "append", full)
    search.on_trial_complete(tune_id, {"finished": True})
    assert ledger.failure.errno == errno.ENOSPC
    assert ledger.entries[settings["trial_id"]].status is None
    assert search.suggest("next") == Searcher.FINISHED


def test_a_trial_ends_once(tmp_path):
    ended = []
    ledger = StudyLedger(make_plan(tmp_path), ended.append)
    entry = ledger.open_trial("control", TrialConfig(), 1)
    ledger.end_trial(entry.trial_id, "finished")
    ledger.end_trial(entry.trial_id, "failed", "late")
    assert (entry.status, entry.error, len(ended)) == ("finished", None, 1)


def test_a_damaged_line_is_reported_and_its_trial_left_to_run_again(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    ledger.end_trial(entry.trial_id, "finished")
    path = ledger.plan.directory / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"finished"', b'"fanished"'))
    again = StudyLedger(ledger.plan)
    assert again.damaged_lines == [2]
    assert [e.trial_id for e in again.unfinished] == [entry.trial_id]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "w16-T4.0-s2"),
        ({"method": "kd", "temperature": 2}, "kd-T2.0-s2"),
        ({"method": "ce"}, "ce-s2"),
        ({"method": "dkd"}, "dkd-T4.0-s2"),
        ({"method": "dkd", "adapter": True}, "dkd-w16-T4.0-s2"),
        ({"pesf_variant": "released-vision"}, "released-vision-w16-T4.0-s2"),
        ({"adapter_count": 4, "adapter_training": "first"}, "first-average-of-4-w16-T4.0-s2"),
    ],
)
def test_trials_are_named_by_what_matters_to_them(fields, name):
    assert trial_name(TrialConfig(**fields), 2) == name


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"student": "resnet8", "method": "kd"}, "resnet8-kd-T4.0-s2"),
        ({"student": "resnet14", "method": "ce"}, "resnet14-ce-s2"),
        ({"student": "cnn_3_4"}, "cnn_3_4-w16-T4.0-s2"),
        ({"student": "net.py:make@0123456789abcdef", "method": "kd"}, "net:make-012345-kd-T4.0-s2"),
    ],
)
def test_in_a_search_over_students_names_begin_with_the_student(fields, name):
    assert trial_name(TrialConfig(**fields), 2, names_student=True) == name


def test_trials_of_two_searched_students_have_different_names_and_those_of_one_student_the_usual(tmp_path):
    several = make_plan(tmp_path / "several", search=tuple(read_bounds(["student=resnet8,resnet14"])))
    ledger = StudyLedger(several)
    for student in ("resnet8", "resnet14"):
        ledger.open_trial("control", TrialConfig(method="kd", student=student), 1)
    names = ["resnet8-kd-T4.0-s1", "resnet14-kd-T4.0-s1"]
    assert [entry.name for entry in ledger.entries.values()] == names
    assert [entry.name for entry in StudyLedger(several).entries.values()] == names
    assert [trial_row(several, entry)["name"] for entry in ledger.entries.values()] == names
    one = StudyLedger(make_plan(tmp_path / "one"))
    assert one.open_trial("control", TrialConfig(method="kd", student="resnet8"), 1).name == "kd-T4.0-s1"


def test_configs_that_would_be_called_alike_are_numbered_and_stay_so(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    slow, fast = TrialConfig(), TrialConfig(adapter_learning_rate=0.01)
    for number, config in enumerate((slow, fast, slow, fast)):
        ledger.open_trial("control" if number < 2 else "replicate", config, number // 2)
    names = [entry.name for entry in ledger.entries.values()]
    assert names == ["w16-T4.0-s0", "w16-T4.0#2-s0", "w16-T4.0-s1", "w16-T4.0#2-s1"]
    ledger.close()
    assert [entry.name for entry in StudyLedger(ledger.plan, read_only=True).entries.values()] == names
    assert trial_row(ledger.plan, ledger.entries["planned-0003"])["name"] == "w16-T4.0#2-s1"


@pytest.mark.launcher
def test_a_lock_that_a_crash_or_a_reboot_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / ".lock").write_text("pid 1 on another-boot")
    with StudyLock(tmp_path):
        pass
    script = "import sys, time; from pathlib import Path; from study.plan.lock import StudyLock\n"
    script += "with StudyLock(Path(sys.argv[1])): print(1, flush=True); time.sleep(1000)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline()
    with pytest.raises(UsageError, match=f"pid {holder.pid} on"), StudyLock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with StudyLock(tmp_path):
        pass


def test_a_file_system_without_locks_is_refused_and_not_taken_for_another_driver(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StudyError, match="a file system that supports locks"), StudyLock(tmp_path):
        pass


def test_one_driver_at_a_time(tmp_path):
    with StudyLock(tmp_path), pytest.raises(UsageError, match="another process"), StudyLock(tmp_path):
        pass
    with StudyLock(tmp_path):
        pass


def write_event(path, **event):
    content = json.dumps(event).encode()
    with path.open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(content), content))


EPOCH = {"event": "epoch", "trial_id": "planned-0000", "time": 9e4, "measures": {ACCURACY: 0.5}}
TRIAL = {"event": "trial", "trial_id": "planned-0005", "ordinal": 5, "stage": "control", "replicate": 1, "started": 9e4}
END = {"event": "end", "trial_id": "planned-0001", "error": None, "time": 9e4}
IMPOSSIBLE = {
    "an unknown trial": ({**EPOCH, "trial_id": "planned-0777", "epoch": 1}, "no earlier line starts trial"),
    "a trial of another study": ({**EPOCH, "trial_id": "other-0000", "epoch": 1}, "another study"),
    "a path for a name": ({**EPOCH, "trial_id": "../../x-0000", "epoch": 1}, "invalid trial_id"),
    "epoch 0": ({**EPOCH, "epoch": 0}, "invalid epoch '0'"),
    "a negative epoch": ({**EPOCH, "epoch": -3}, "invalid epoch"),
    "half an epoch": ({**EPOCH, "epoch": 1.5}, "invalid epoch"),
    "a truth for an epoch": ({**EPOCH, "epoch": True}, "invalid epoch"),
    "an epoch past the last": ({**EPOCH, "epoch": 5}, "has only 4 epochs"),
    "an epoch that is there, otherwise": ({**EPOCH, "epoch": 4}, "is already recorded"),
    "no epoch": (EPOCH, "epoch is missing"),
    "a word for a measure": ({**EPOCH, "epoch": 3, "measures": {ACCURACY: "high"}}, "invalid measures"),
    "a list of measures": ({**EPOCH, "epoch": 3, "measures": []}, "invalid measures"),
    "a number too large for a column": ({**EPOCH, "epoch": 3, "measures": {ACCURACY: 10**400}}, "invalid measures"),
    "a time before 1970": ({**EPOCH, "epoch": 3, "time": -1}, "invalid time"),
    "no time": ({**EPOCH, "epoch": 3, "time": None}, "invalid time"),
    "an event of no version": ({"event": "begin"}, "unknown event 'begin'"),
    "an event that is a list": ({"event": ["trial"]}, "unknown event"),
    "another status": ({**END, "status": "done"}, "invalid status"),
    "half a character": ({**END, "status": "failed", "error": "\ud800"}, "is not valid Unicode"),
    "a retry of what has not failed": ({"event": "retry", "trial_id": "planned-0001", "time": 9e4}, "has not failed"),
    "a trial begun twice": ({**TRIAL, "trial_id": "planned-0001", "ordinal": 1, "config": {}}, "was started before"),
    "a trial of another number": ({**TRIAL, "ordinal": 7, "config": {}}, "has the wrong number 7"),
    "a config of no version": ({**TRIAL, "config": {"depth": 3}}, "trial: "),
    "a config that is a number": ({**TRIAL, "config": 3}, "invalid config"),
    "a trial that has ended already": ({**TRIAL, "config": {}, "status": "finished"}, "unknown field 'status'"),
    "a search without a proposal": ({**TRIAL, "stage": "search", "config": {}}, "has no sampler proposal"),
    "another stage": ({**TRIAL, "stage": "last", "config": {}}, "invalid stage"),
    "bins that differ in number": (
        {"event": "calibration", "trial_id": "planned-0001",
         "calibration": {"calibration/val_student": {"count": [1, 2], "confidence": [0.5], "correct": [1]}}},
        "invalid calibration",
    ),
    "fewer bits than samples": (
        {"event": "answers", "trial_id": "planned-0001",
         "answers": {"samples": 9, "bits": "gA==", "count": [9], "correct": [1]}},
        "invalid answers",
    ),
    "classes that differ in number": (
        {"event": "answers", "trial_id": "planned-0001",
         "answers": {"samples": 8, "bits": "gA==", "count": [8, 0], "correct": [1]}},
        "invalid answers",
    ),
    "passes that are negative": ({"event": "fill", "time": 1, "forwards": -5}, "invalid forwards"),
    "a confirmation of nothing": ({"event": "confirmation", "confirmation": {}}, "confirmation: "),
    "classes without names": (
        {"event": "dataset", "dataset": {"digest": "0", "train": 3, "validation": 1, "test": 1, "channels": 3,
                                         "image_size": 8, "class_names": [1, 2]}}, "invalid dataset"),
    "classes without the sizes of their images": (
        {"event": "dataset", "dataset": {"digest": "0", "train": 3, "class_names": ["a", "b"]}}, "invalid dataset"),
    "data without a digest": ({"event": "dataset", "dataset": {"train": 3}}, "invalid dataset"),
}  # fmt: skip


@pytest.fixture(scope="module")
def two_trials(tmp_path_factory):
    """Lines of a journal with one trial after two of four epochs and one finished trial."""
    ledger = StudyLedger(make_plan(tmp_path_factory.mktemp("two")))
    for epochs in ((1, 2), (1, 2, 3, 4)):
        entry = ledger.open_trial("control", TrialConfig(epochs=4), len(epochs))
        for epoch in epochs:
            ledger.record_epoch(entry.trial_id, epoch, {ACCURACY: 0.5})
    ledger.end_trial(entry.trial_id, "finished")
    ledger.record_epoch("planned-0000", 4, {ACCURACY: 0.5})
    ledger.close()
    return ledger.plan


@pytest.mark.parametrize(("event", "why"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_line_with_a_valid_checksum_and_impossible_content_is_damage_by_its_number(two_trials, event, why):
    path = two_trials.directory / "journal.jsonl"
    whole = path.read_bytes()
    before = known(StudyLedger(two_trials, read_only=True))
    number = whole.count(b"\n") + 1
    try:
        write_event(path, **event)
        ledger = StudyLedger(two_trials, read_only=True)
    finally:
        path.write_bytes(whole)
    assert ledger.damaged_lines == [number]
    assert why in ledger.damage[number]
    assert f"line {number}: " in ledger.describe_damage()
    assert known(ledger) == before


def test_a_trial_that_ended_and_has_lost_an_epoch_runs_again_from_its_beginning(two_trials, tmp_path):
    lines = (two_trials.directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not (b"planned-0001" in line and b'"epoch":3' in line)]
    assert len(kept) == len(lines) - 1
    plan = make_plan(tmp_path, study_id=two_trials.study_id)
    (plan.directory / "journal.jsonl").write_bytes(b"".join(kept))
    ledger = StudyLedger(plan)
    assert ledger.incomplete == ["planned-0001"]
    assert "epochs are missing in planned-0000, planned-0001" in ledger.describe_damage()  # one of them had not ended
    entry = ledger.entries["planned-0001"]
    assert (entry.status, entry.gaps, ledger.ended) == (None, [3], 0)
    assert ledger.entries["planned-0000"].gaps == [3]
    for epoch in (1, 2, 3, 4):
        ledger.record_epoch(entry.trial_id, epoch, {ACCURACY: 0.5})
    ledger.end_trial(entry.trial_id, "finished")
    ledger.close()
    again = StudyLedger(plan, read_only=True)
    assert (again.incomplete, again.ended, again.entries[entry.trial_id].gaps) == ([], 1, [])


@pytest.mark.parametrize("clock", [7.0, 1e9])
def test_a_trial_that_fails_again_at_the_same_moment_has_failed_again(tmp_path, monkeypatch, clock):
    """Equal lines count once, so no two events may be equal, even if the clock repeats."""
    monkeypatch.setattr("time.time", lambda: clock)
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    for _ in range(3):
        ledger.end_trial(entry.trial_id, "failed", "why")
        ledger.retry_failed()
    ledger.end_trial(entry.trial_id, "failed", "why")
    ledger.close()
    again = StudyLedger(ledger.plan, read_only=True)
    assert (again.entries[entry.trial_id].attempt, again.count("failed"), again.ended) == (4, 1, 1)
    assert not again.damage


def test_the_journal_of_another_study_is_refused_by_its_name_and_by_its_identifier(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    entry = ledger.open_trial("control", TrialConfig(), 1)
    other = make_plan(tmp_path, name="other")
    path = other.directory / "journal.jsonl"
    path.write_bytes((ledger.plan.directory / "journal.jsonl").read_bytes())
    with pytest.raises(StudyError, match=f"of another study: it contains trial {entry.trial_id}"):
        StudyLedger(other, read_only=True)
    path.unlink()
    StudyLedger(other, read_only=True).begin_writing()
    for again in (other, make_plan(tmp_path, name="other")):
        if again is other:
            assert StudyLedger(again, read_only=True).damage == {}
        else:
            with pytest.raises(StudyError, match=f"another study .'other', id {other.study_id[:8]}"):
                StudyLedger(again, read_only=True)


def test_a_journal_that_is_a_folder_is_refused_by_its_path(tmp_path):
    plan = make_plan(tmp_path)
    (plan.directory / "journal.jsonl").mkdir()
    with pytest.raises(StudyError, match=r"journal\.jsonl cannot be read .Is a directory.: restore it"):
        StudyLedger(plan, read_only=True)


def test_a_journal_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    ledger = StudyLedger(make_plan(tmp_path), read_only=True)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("study.ledger.ledger.Journal", refuse)
    with pytest.raises(StudyError, match=r"journal\.jsonl cannot be written .Permission denied."):
        ledger.begin_writing()


def test_a_study_that_was_renamed_names_its_trials_as_before(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path), read_only=True)
    ledger.begin_writing()
    first = ledger.open_trial("control", TrialConfig(), 1)
    ledger.close()
    ledger.plan.directory.rename(tmp_path / "renamed")
    again = StudyLedger(ledger.plan.model_copy(update={"name": "renamed"}))
    second = again.open_trial("control", TrialConfig(), 2)
    assert (first.trial_id, second.trial_id) == ("planned-0000", "planned-0001")
    assert trial_row(again.plan, second)["study"] == "planned"
