"""One study with a driver killed by SIGKILL at twenty random moments, covering all phases."""

import json
import os
import random
import subprocess
import time
from collections import Counter

import pytest
from optuna.trial import TrialState

from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.search.schedulers import SearchASHA
from study.search.searcher import StudySearch
from tests.conftest import start_process
from tests.study.inspection import assert_whole, read_journal

STUDY = (
    "--space", "adapter_width", "--trials", "24", "--promising", "1", "--replicates", "8", "--epochs", "10",
    "--scheduler", "asha", "--name", "killed",
)  # fmt: skip
PHASES = (
    ["start"]
    + ["preparing the teacher"] * 2
    + ["teacher outputs"] * 2
    + ["search"] * 12
    + ["collecting the result"] * 3
)
# Outside the search, drivers with and without Ray alternate, so each resumes the work of the other.
ON_RAY = ("--executor", "ray", "--max-concurrent", "2", "--cpus-per-trial", "0.5")
IN_PROCESS = ("--executor", "in-process")
SEED = int(os.environ.get("PESFKD_FAULT_SEED", "0"))


class Driver:
    """Driver that can be killed.

    Args:
        folder: folder shared by all drivers.
        name: name of this driver.
        arguments: arguments of the launcher.
    """

    def __init__(self, folder, name, *arguments):
        self.log = folder / f"{name}.log"
        self.journal = folder / "out" / "killed" / "journal.jsonl"
        words = [folder, name, *arguments, "--output-dir", folder / "out"]
        with self.log.open("w") as log:
            self.process = start_process(
                "tests.study.killable_driver", *words, stdout=subprocess.DEVNULL, stderr=log.fileno()
            )
        self.begun = self.events()

    def events(self):
        return len(read_journal(self.journal)[0]) if self.journal.exists() else 0

    def wait_for(self, reached):
        deadline = time.monotonic() + 400
        while not reached():
            if self.process.poll() is not None:
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def kill_in(self, phase, chance):
        """Kill the driver at a random moment of a phase. A file contains the driver's ASHA rungs at that moment."""
        if phase == "search":
            wanted = self.begun + chance.randint(1, 30)
            self.wait_for(lambda: self.events() >= wanted)
            time.sleep(chance.uniform(0, 0.5))
        elif phase == "start":
            time.sleep(chance.uniform(0, 4))
        else:
            self.wait_for(lambda: phase in self.log.read_text())
            assert phase in self.log.read_text(), "it ended without this phase"
            time.sleep(chance.uniform(0, 1.5))
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        assert ended in (None, 0), self.log.read_text()


def rungs_in(path):
    """Return the scores in a file of ASHA's rungs by (epochs, trial)."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    return {(int(m), trial): value for m, values in found.items() for trial, value in values.items()}


@pytest.mark.fault
@pytest.mark.timeout(1500)
def test_a_driver_killed_at_twenty_random_moments_loses_nothing_and_does_little_twice(tmp_path):
    chance = random.Random(SEED)
    directory = tmp_path / "out" / "killed"
    for number, phase in enumerate(PHASES):
        exists = (directory / "plan.json").exists()
        executor = IN_PROCESS if number % 2 and phase != "search" else ON_RAY
        driver = Driver(tmp_path, f"d{number:02}", *(("--resume", "killed") if exists else STUDY), *executor)
        driver.kill_in(phase, chance)
    last = Driver(tmp_path, "last", "--resume", "killed", *ON_RAY)
    assert last.process.wait(timeout=400) == 0, last.log.read_text()

    assert_whole(directory)
    plan = load_plan(directory)
    ledger = StudyLedger(plan, read_only=True)
    assert ledger.damaged_lines == []

    history = StudySearch(ledger, {}).optuna_study.trials
    searched = ledger.in_stage("search")
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    assert [(t.params["adapter_width"], t.state) for t in history] == [
        (e.config.adapter_width, states[e.status]) for e in searched
    ]
    assert len(history) == plan.trials

    recorded = {(epoch, e.trial_id): e.epochs[epoch]["val/accuracy"] for e in searched for epoch in e.epochs}
    known = {}
    for number in range(len(PHASES)):
        restored = rungs_in(tmp_path / f"restored-d{number:02}.json")
        if restored:  # this driver reached the search
            lost = known.keys() - restored.keys()
            assert len(lost) <= 1, "rungs that a driver had are not there in the next: at most the last, unrecorded one"
            known = rungs_in(tmp_path / f"rungs-d{number:02}.json") or restored
        assert all(recorded[key] == value for key, value in {**restored, **known}.items())
    final = rungs_in_memory(SearchASHA(ledger))
    assert known.keys() <= final.keys()

    begun = Counter(tuple(line.split()[:2]) for line in (tmp_path / "work").read_text().splitlines())
    needed = sum(len(entry.epochs) for entry in ledger.entries.values())
    print(f"{sum(begun.values())} epochs begun where {needed} were needed: {sum(begun.values()) / needed:.3f}")
    assert len(begun) >= needed
    assert sum(begun.values()) <= 1.10 * needed


def rungs_in_memory(scheduler):
    return {(m, trial): value for m, values in scheduler.rungs.scores.items() for trial, value in values.items()}
