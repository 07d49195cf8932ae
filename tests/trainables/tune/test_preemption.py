"""Reports of a trial on a node that is being taken away. `tests/cluster` sends the signal to a real node."""

from types import SimpleNamespace

import pytest
import ray

from trainables.tune import preemption
from trainables.tune.preemption import Preemption


@pytest.fixture
def draining(monkeypatch):
    """Return the nodes that Ray is draining. This process runs on the node `mine`."""
    nodes: dict[str, int] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "192.0.2.7")
    monkeypatch.setattr(ray._private.state.state, "get_draining_nodes", lambda: nodes)
    monkeypatch.setattr(preemption, "_SECONDS_BETWEEN_LOOKS", 0.0)
    return nodes


def test_a_report_from_a_draining_node_asks_for_a_checkpoint_and_the_next_step_ends_the_process(draining, monkeypatch):
    left = []
    monkeypatch.setattr(ray.actor, "exit_actor", lambda: left.append(True))
    trial, report = Preemption(), {"done": False, "should_checkpoint": False, "epoch": 3}
    draining["another"] = 0
    trial.leave_if_told()
    assert trial.mark(report) == report
    draining["mine"] = 0
    trial.leave_if_told()
    assert left == []
    assert trial.mark(report) == {"done": False, "should_checkpoint": True, "epoch": 3, "preempted": "192.0.2.7"}
    trial.leave_if_told()
    assert left == [True]


def test_a_trial_that_has_just_ended_needs_no_checkpoint(draining):
    draining["mine"] = 0
    report = {"done": True, "should_checkpoint": False}
    assert Preemption().mark(report) == report


def test_ray_is_asked_at_most_once_a_second(draining, monkeypatch):
    monkeypatch.setattr(preemption, "_SECONDS_BETWEEN_LOOKS", 1000.0)
    draining["mine"] = 0
    report = {"done": False, "should_checkpoint": False}
    assert Preemption().mark(report) == report


def test_a_trial_without_ray_is_never_taken_away():
    report = {"done": False, "should_checkpoint": False}
    trial = Preemption()
    trial.leave_if_told()
    assert trial.mark(report) == report
