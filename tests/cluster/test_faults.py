"""Faults of machines, links and servers during studies on a real cluster, at random moments.

The tests use one cluster one after the other, in this order, and leave it as the next one expects it. `SEED` in the
environment repeats the moments of an earlier run.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.clusters import (
    HEAD_PORT,
    STORAGE,
    TRACKING,
    Study,
    answers_of,
    assert_nothing_lost,
    fail_requests,
    start_database,
)
from tests.study.servers import require

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

PLACES = ("--address", f"head:{HEAD_PORT}", "--storage-path", STORAGE, "--tracking-uri", TRACKING)
SMALL = ("--space", "adapter_width", "--trials", "6", "--promising", "2", "--replicates", "2")
_SEED = int(os.environ.get("SEED") or time.time())


@pytest.fixture
def chance() -> random.Random:
    """Random moments. The seed is shown if the test fails."""
    print(f"SEED={_SEED}")
    return random.Random(_SEED)


def runs_trials(study: Study) -> bool:
    return any(event["event"] == "epoch" for event in study.events)


def begun(study: Study) -> Study:
    """Wait until a study runs trials."""
    study.wait_until(lambda: runs_trials(study), timeout=400)
    return study


def test_a_study_survives_links_storage_and_servers_that_go_and_come_back(real, chance):
    machines, network = real.network.machines, real.network
    storage, tracking = machines["storage"], machines["tracking"]
    study = begun(real.launch(*SMALL, "--epochs", "80", "--name", "survivor", *PLACES))
    fail_requests(storage, 0.2)

    def cut(name: str, seconds: float) -> None:
        with network.cut_for(machines[name], seconds):
            pass

    def slow(name: str, seconds: float) -> None:
        network.slow(machines[name], seconds=0.2, loss=0.02)
        time.sleep(seconds)
        network.mend(machines[name])

    faults = [
        lambda: cut("worker1", 5), lambda: cut("worker2", 5), lambda: cut("storage", 15), lambda: cut("tracking", 10),
        lambda: slow("worker1", 10), lambda: start_database(tracking),
    ]  # fmt: skip
    chance.shuffle(faults)
    happened = 0
    for fault in faults:
        time.sleep(chance.uniform(0.0, 3.0))
        happened += study.process.poll() is None
        fault()
    assert happened == len(faults), "the study ended before the last fault"
    study.finish(timeout=600)
    assert answers_of(storage)["503"] > 0
    fail_requests(storage, 0.0)
    assert_nothing_lost(study, tracked=True)


def test_two_studies_share_a_cluster_with_a_node_whose_clock_is_an_hour_off(real):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    require(library, "faketime (apt-get install libfaketime)")
    wrong = f"env LD_PRELOAD={library} FAKETIME=+1h"
    machine = real.join("worker6", cpus=2, prefix=wrong)
    try:
        late = float(machine.shell(f"{wrong} date +%s")) - time.time()
        assert 3500 < late < 3700
        both = [real.launch("--space", "adapter_width", "--smoke", "--name", name, *PLACES) for name in ("one", "two")]
        for study in both:
            study.finish(timeout=400)
            assert_nothing_lost(study, tracked=True)
            times = [event["time"] for event in study.events if "time" in event]
            assert max(times) - min(times) < 1800, "the times are not those of the driver"
        assert (machine.home / ".cache/pesfkd/teachers").is_dir(), "no trial ran on the node with the wrong clock"
    finally:
        real.remove(machine)


def test_a_spot_node_returns_its_trial_with_a_checkpoint_and_ends_in_time(real, chance):
    spot = real.network.add("spot")
    node = spot.start("ray", "start", "--address", f"head:{HEAD_PORT}", "--num-cpus", "2", "--block")
    study = begun(real.launch(*SMALL, "--epochs", "60", "--name", "spot", *PLACES))
    study.wait_until(lambda: spot.processes("Trainable.train"), timeout=400)
    time.sleep(chance.uniform(0.0, 3.0))
    node.send(signal.SIGTERM)
    told = time.monotonic()
    node.wait(60)
    assert time.monotonic() - told < 45, "the processes were ended by force"
    said = study.finish(timeout=600)
    assert_nothing_lost(study, tracked=True)
    assert f"was returned by node {spot.address}, which is being taken away; it goes on from a checkpoint" in said
    assert "died; another goes on with it" not in said


def test_a_study_without_a_node_for_its_trials_says_so_within_a_minute_and_can_be_resumed(real, chance):
    late = real.join("worker5", cpus=2)
    study = begun(real.launch(*SMALL, "--epochs", "40", "--name", "homeless", *PLACES, "--cpus-per-trial", "2"))
    time.sleep(chance.uniform(0.0, 3.0))
    (raylet,) = (each for each in late.processes() if each.name() == "raylet")
    raylet.kill()
    killed = time.monotonic()
    said = study.finish(code=1, timeout=120)
    seconds = time.monotonic() - killed
    assert "no node of the Ray cluster can run a trial any more: a trial needs 2 CPU" in said
    assert "python -m study.launch --resume homeless" in said
    assert seconds < 75, f"it took {seconds:.0f} s"
    real.remove(late)
    resumed = real.launch("--resume", "homeless", "--cpus-per-trial", "1")
    resumed.finish(timeout=400)
    assert_nothing_lost(resumed, tracked=True)
