"""Ctrl-C at any moment of a study."""

import signal
import time
from types import SimpleNamespace

import pytest

from study.running.runner import _interruptible
from study.running.stop import Stop

pytestmark = pytest.mark.unit


class InDestructor:
    """Object that receives Ctrl-C while it is destroyed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def interrupted_twice(stop: Stop, said: list[str]) -> None:
    with _interruptible(stop, SimpleNamespace(say=said.append)):
        signal.raise_signal(signal.SIGINT)
        InDestructor()
        for _ in range(500):
            time.sleep(0.01)


def test_a_second_ctrl_c_in_a_destructor_ends_the_study_and_prints_nothing(capfd):
    stop, said = Stop(None), []
    with pytest.raises(KeyboardInterrupt):
        interrupted_twice(stop, said)
    assert said == ["stopping after the steps that are running; once more to stop at once"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_other_errors_in_destructors_are_printed_as_before(monkeypatch):
    class Faulty:
        def __del__(self) -> None:
            raise ValueError("in a destructor")

    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))
    with _interruptible(Stop(None), SimpleNamespace(say=print)):
        Faulty()
    assert seen == [ValueError]
