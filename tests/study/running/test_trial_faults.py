"""Trials that raise, hang, run out of memory or lose their process are named, and the study continues."""

from collections import Counter

import pytest

from study.cli.request import resumed_plan
from study.ledger.entry import PROCESS_DIED
from study.ledger.ledger import StudyLedger
from study.records import read_trials
from tests.study.factories import make_plan
from tests.study.faulty import Lab, numbers_of
from tests.study.inspection import assert_whole, read_journal

pytestmark = pytest.mark.fault
SMALL = {"trials": 5, "promising": 1, "replicates": 1, "sampler": "random"}
ON_RAY = {"max_concurrent": 2, "cpus_per_trial": 0.5}
SAVED_OFTEN = ("planned-0002", "planned-0003")


def small_plan(folder, **values):
    plan = make_plan(folder, **SMALL, **values, base={"epochs": 6})
    plan.save()
    return plan


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return Lab(folder / "lab").run(small_plan(folder, executor="in-process"))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """Trials of a study in which five trials lose their process, two of them also a checkpoint."""
    folder = tmp_path_factory.mktemp("disturbed")
    plan = small_plan(folder, **ON_RAY)
    # The other trials have a checkpoint every second epoch.
    lab = Lab(folder / "lab", seconds_per_epoch=0.5, saves_every_epoch=SAVED_OFTEN)
    lab.inject("planned-0000", "killed", 5)
    lab.inject("planned-0001", "killed", "begin")
    lab.inject("planned-0002", "flips a byte of its checkpoint and dies", 5)
    lab.inject("planned-0003", "cuts its checkpoint and dies", 5)
    lab.inject("planned-0005", "killed", "reset")
    entries = lab.run(plan)
    assert_whole(plan.directory)
    assert not list(lab.folder.glob("*.fault")), "not everything went wrong that should"
    return lab, entries


def test_a_process_killed_mid_epoch_or_between_trials_costs_no_trial_and_no_bit(disturbed, undisturbed):
    lab, entries = disturbed
    assert {entry.status for entry in entries.values()} == {"finished"}
    assert {i: numbers_of(entry) for i, entry in entries.items()} == {
        i: numbers_of(entry) for i, entry in undisturbed.items()
    }
    computed = Counter((each.trial, each.epoch) for each in lab.work())
    assert set(computed) == {(trial, epoch) for trial in entries for epoch in range(1, 7)}
    assert computed["planned-0000", 1] == 1, "it began from scratch"
    assert len({each.process for each in lab.work() if each.trial == "planned-0000"}) == 2


def test_a_checkpoint_that_is_damaged_is_passed_over_for_the_one_before(disturbed, undisturbed):
    lab, entries = disturbed
    assert all(numbers_of(entry) == numbers_of(undisturbed[i]) for i, entry in entries.items())
    begun = Counter((each.trial, each.epoch) for each in lab.work())
    for trial in SAVED_OFTEN:
        assert [begun[trial, epoch] for epoch in range(1, 7)] == [1, 1, 1, 2, 2, 1]
    said = lab.said.getvalue()
    assert said.count("trial.safetensors: damaged: the stored checksum") == 1
    assert said.count("trial.safetensors: not a readable safetensors file") == 1


def test_trials_that_raise_run_out_of_memory_hang_stop_or_die_again_fail_by_name_and_are_run_again_alone(
    tmp_path, undisturbed
):
    plan = small_plan(tmp_path, **ON_RAY, trial_timeout=30)
    lab = Lab(tmp_path / "lab")
    lab.inject("planned-0000", "raises", 3)
    lab.inject("planned-0001", "memory", 2)
    lab.inject("planned-0002", "stopped", 2)
    lab.inject("planned-0003", "killed", 2, again=True)
    lab.inject("planned-0005", "sleeps", 2)
    lab.inject("planned-0006", "holds the interpreter", "begin")
    entries = lab.run(plan)
    assert_whole(plan.directory)
    failed = {i: entry.error for i, entry in entries.items() if entry.status == "failed"}
    assert set(failed) == {f"planned-{number:04}" for number in (0, 1, 2, 3, 5, 6)}
    assert "ZeroDivisionError: of all things" in failed["planned-0000"]
    assert "MemoryError" in failed["planned-0001"]
    assert failed["planned-0003"] == PROCESS_DIED
    for hung in ("planned-0002", "planned-0005", "planned-0006"):
        assert failed[hung].startswith("timed out after 30 s without a report")
    assert {entry.status for i, entry in entries.items() if i not in failed} == {"finished"}
    before = {i: (entry.ended, entry.attempt) for i, entry in entries.items()}

    lab = Lab(tmp_path / "again")
    entries = lab.run(resumed_plan(plan.name, tmp_path, {"executor": "in-process"}), retry_failed=True)
    assert_whole(plan.directory)
    assert {entry.status for entry in entries.values()} == {"finished"}
    assert {each.trial for each in lab.work()} == set(failed), "others were run as well"
    assert {entry.attempt for i, entry in entries.items() if i in failed} == {2}
    assert all((e.ended, e.attempt) == before[i] for i, e in entries.items() if i not in failed)
    # The repeated config was chosen while the best trial counted as failed. The choice stays.
    same = {i for i, entry in entries.items() if entry.stage != "replicate"}
    assert all(numbers_of(entries[i]) == numbers_of(undisturbed[i]) for i in same)
    assert set(read_trials(plan.directory)["error"].to_pylist()) == {None}
    assert [event for event in journal_of(plan) if event.get("status") == "failed"], "the failures are forgotten"


def journal_of(plan):
    """Return the events of a study's undamaged journal."""
    events, damaged = read_journal(plan.directory / "journal.jsonl")
    assert not damaged
    assert StudyLedger(plan, read_only=True).planned
    return events
