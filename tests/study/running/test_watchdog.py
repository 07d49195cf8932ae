"""Detection of hanging trials, with a simulated clock. `test_trial_faults.py` tests real ones."""

from types import SimpleNamespace

import pytest

from study.running import watchdog
from study.running.watchdog import Watchdog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def ended(monkeypatch):
    killed = []
    monkeypatch.setattr(watchdog.ray, "kill", killed.append)
    return killed


def begin(timeout):
    clock, given_up = Clock(), {}
    return Watchdog(timeout, given_up.__setitem__, now=clock), clock, given_up


class Trial:
    def __init__(self, name):
        self.config = {"trial_id": name}
        self.temporary_state = SimpleNamespace(ray_actor=f"process of {name}")


def pass_seconds(dog, clock, seconds):
    for _ in range(10 * seconds):
        clock.now += 0.1
        dog.on_step_begin(0, [])


def test_a_trial_that_reports_in_time_is_left_alone_and_one_that_does_not_is_ended_once(ended):
    dog, clock, given_up = begin(5)
    alive, hung = Trial("alive"), Trial("hung")
    for each in (alive, hung):
        dog.on_trial_start(0, [], each)
    for _ in range(4):
        pass_seconds(dog, clock, 4)
        dog.on_trial_result(0, [], alive, {})
    assert ended == ["process of hung"]
    assert list(given_up) == ["hung"]
    assert given_up["hung"].startswith("timed out after 5 s without a report")


def test_a_trial_that_ended_is_not_watched(ended):
    dog, clock, _ = begin(5)
    finished, died = Trial("finished"), Trial("died")
    for each in (finished, died):
        dog.on_trial_start(0, [], each)
    dog.on_trial_complete(0, [], finished)
    dog.on_trial_error(0, [], died)
    pass_seconds(dog, clock, 20)
    assert ended == []


def test_a_driver_that_was_held_up_itself_blames_no_trial(ended):
    dog, clock, _ = begin(5)
    each = Trial("waiting to be read")
    dog.on_trial_start(0, [], each)
    clock.now += 3600
    dog.on_step_begin(0, [])
    dog.on_trial_result(0, [], each, {})
    pass_seconds(dog, clock, 4)
    assert ended == []
