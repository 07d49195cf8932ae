"""The thread that delivers trials to a tracking server, which may be unreachable, slow or refuse trials."""

import threading
import time
from types import SimpleNamespace

import pytest

from study.tracking.delivery import Delivery, RefusedError


def trial(name):
    return SimpleNamespace(trial_id=name)


class Server:
    """Records the trials in order, fails `away` times first, and refuses the trials in `refuses`."""

    def __init__(self, *, away=0, refuses=()):
        self.away, self.refuses = away, set(refuses)
        self.taken, self.asked = [], 0

    def __call__(self, entry):
        self.asked += 1
        if self.away > 0:
            self.away -= 1
            raise ConnectionError("nobody there\nand more of it")
        if entry.trial_id in self.refuses:
            raise RefusedError(f"no {entry.trial_id}")
        self.taken.append(entry.trial_id)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("study.tracking.delivery._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("study.tracking.delivery._LONGEST_PAUSE", 0.02)


def begin(server, said, **settings):
    return Delivery(server, report=said.append, **{"gather": 0.0, "patience": 0.1, **settings})


def test_what_a_server_missed_arrives_in_order_and_a_person_hears_of_both(quick):
    server, said = Server(away=5), []
    delivery = begin(server, said, patience=30.0)
    for name in "abc":
        delivery.put(trial(name))
    assert delivery.close() is None
    assert server.taken == ["a", "b", "c"]
    assert len(said) == 2
    assert "accepts nothing at the moment" in said[0]
    assert said[0].endswith("nobody there")
    assert "accepts trials again" in said[1]


def test_handing_over_never_waits_for_the_server():
    held = threading.Event()
    delivery = Delivery(lambda entry: held.wait(30) and None, report=lambda _: None, gather=0.0)
    for number in range(1000):
        delivery.put(trial(str(number)))  # none of them is delivered yet
    held.set()
    assert delivery.close() is None


def test_several_changes_of_a_trial_are_one_delivery():
    server, held = Server(), threading.Event()

    def slow(entry):
        held.wait(30)
        server(entry)

    delivery = Delivery(slow, report=lambda _: None, gather=30.0)
    for _ in range(50):
        delivery.put(trial("a"))
    delivery.put(trial("b"))
    held.set()
    assert delivery.close() is None
    assert server.taken == ["a", "b"]


def test_a_server_that_stays_away_is_given_up_only_once_the_study_has_ended(quick):
    server, said = Server(away=10**9), []
    delivery = begin(server, said)
    delivery.put(trial("a"))
    deadline = time.monotonic() + 60
    while server.asked < 15 and time.monotonic() < deadline:  # far beyond the patience of the thread
        time.sleep(0.02)
    assert server.asked >= 15
    failure = delivery.close()
    assert isinstance(failure, ConnectionError)
    assert server.taken == []
    assert len(said) == 1


def test_a_trial_that_is_refused_holds_no_other_up_and_is_told_at_the_end(quick):
    server = Server(refuses={"b"})
    delivery = begin(server, [])
    for name in "abc":
        delivery.put(trial(name))
    failure = delivery.close()
    assert server.taken == ["a", "c"]
    assert isinstance(failure, RefusedError)
    assert server.asked == 3, "what is refused is not sent again"
