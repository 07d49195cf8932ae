import errno
import itertools
import subprocess
import sys

import pytest
from ray.tune.search import Searcher

from study.errors import StudyError, UsageError
from study.ledger import StudyLedger, trial_name, trial_row
from study.lock import StudyLock
from study.search import StudySearch
from tests.study.factories import PretendedTune, make_plan
from trainables.measures import ACCURACY
from trainables.trial import TrialConfig


def known(ledger):
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
    with pytest.raises(StudyError, match="no event that this version writes"):
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
    ],
)
def test_trials_are_named_by_what_matters_to_them(fields, name):
    assert trial_name(TrialConfig(**fields), 2) == name


def test_configs_that_would_be_called_alike_are_numbered_and_stay_so(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    slow, fast = TrialConfig(), TrialConfig(adapter_learning_rate=0.01)
    for number, config in enumerate((slow, fast, slow, fast)):
        ledger.open_trial("search" if number < 2 else "replicate", config, number // 2)
    names = [entry.name for entry in ledger.entries.values()]
    assert names == ["w16-T4.0-s0", "w16-T4.0#2-s0", "w16-T4.0-s1", "w16-T4.0#2-s1"]
    ledger.close()
    assert [entry.name for entry in StudyLedger(ledger.plan, read_only=True).entries.values()] == names
    assert trial_row(ledger.plan, ledger.entries["planned-0003"])["name"] == "w16-T4.0#2-s1"


def test_a_lock_that_a_crash_or_a_reboot_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / ".lock").write_text("pid 1 on another-boot")
    with StudyLock(tmp_path):
        pass
    script = "import sys, time; from pathlib import Path; from study.lock import StudyLock\n"
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
    with pytest.raises(StudyError, match="a file system that has locks"), StudyLock(tmp_path):
        pass


def test_one_driver_at_a_time(tmp_path):
    with StudyLock(tmp_path), pytest.raises(UsageError, match="another process"), StudyLock(tmp_path):
        pass
    with StudyLock(tmp_path):
        pass
