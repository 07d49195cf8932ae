"""Studies in worker processes: whole after a killed worker and a killed driver, and reproduced bit for bit."""

import psutil
import pytest

from study.launch import main
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.records import read_trials
from study.result.reproduction import reproduce
from tests.study.inspection import assert_whole
from tests.study.processes import kill, start, wait_for_trials
from trainables.process.threads import restored_threads, use_one_thread

pytestmark = pytest.mark.fault

PROCESSES = ("--executor", "processes")
TORN = ("--trials", "2", "--promising", "1", "--replicates", "2", "--epochs", "30", *PROCESSES)


def workers_of(process) -> list[psutil.Process]:
    """Return the template's workers. The template is the driver's child, and the workers are the template's."""
    return [worker for child in psutil.Process(process.pid).children() for worker in child.children()]


def assert_reproduced(directory, stages=("search", "control")) -> None:
    """Check that a trial of each stage gives the recorded bits again, alone or in the recorded pack."""
    plan = load_plan(directory)
    entries = StudyLedger(plan, read_only=True).entries.values()
    with restored_threads():
        use_one_thread()
        for stage in stages:
            entry = next(each for each in entries if each.stage == stage)
            again = reproduce(plan, entry, lambda _: None)
            assert again.matches, (stage, entry.pack, again.differences[:1])


def test_a_study_survives_killed_workers_and_a_killed_driver_and_each_trial_gives_the_same_bits_again(
    output_dir, command
):
    directory = output_dir / "torn"
    process = start("torn", output_dir, *TORN)
    wait_for_trials(process, directory, 20)
    victims = workers_of(process)
    assert victims
    victims[0].kill()
    wait_for_trials(process, directory, 85)  # a pack of controls
    victims = workers_of(process)
    said = kill(process)
    psutil.wait_procs(victims, timeout=30)
    assert not [each for each in victims if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert "died; another goes on with it" in said
    done = command(main, "--resume", "torn", "--output-dir", output_dir)
    assert done.code == 0, done.said
    assert_whole(directory)
    assert {row["status"] for row in read_trials(directory).to_pylist()} == {"finished"}
    packs = {entry.pack for entry in StudyLedger(load_plan(directory), read_only=True).entries.values()}
    assert max(map(len, packs)) > 1
    assert_reproduced(directory)


def test_a_hanging_worker_is_ended_and_the_study_goes_on(output_dir):
    directory = output_dir / "hanging"
    words = ("--trials", "2", "--replicates", "1", "--epochs", "30", "--trial-timeout", "20", *PROCESSES)
    process = start("hanging", output_dir, *words)
    wait_for_trials(process, directory, 20)
    workers_of(process)[0].suspend()
    assert process.wait(timeout=400) == 3, process.stderr.read()
    failed = [entry for entry in StudyLedger(load_plan(directory), read_only=True).entries.values() if entry.error]
    assert [entry.error for entry in failed] == [
        "timed out after 20 s without a report (--trial-timeout); its process was ended"
    ]
    assert not failed[0].pack
    assert_whole(directory)
