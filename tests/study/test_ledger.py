import pytest

from study.errors import UsageError
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


def test_one_driver_at_a_time(tmp_path):
    with StudyLock(tmp_path), pytest.raises(UsageError, match="another process"), StudyLock(tmp_path):
        pass
    with StudyLock(tmp_path):
        pass
