"""Room for trials on a cluster whose nodes come and go. `tests/cluster` has real nodes that join late."""

from typing import Any

import pytest

from study.running.node_watch import NodeWatch, _describe, _missing
from tests.study.factories import make_plan


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources, "NodeManagerAddress": name}


@pytest.fixture
def watched(tmp_path):
    nodes = [node("head", CPU=0.0), node("one", CPU=2.0)]
    plan = make_plan(tmp_path, address="head:6379", ship_code=True)

    def make(seconds: float, **demand: float) -> tuple[NodeWatch, list[dict[str, Any]]]:
        watch = NodeWatch(plan, demand, lambda _: None, seconds_without_room=seconds, nodes=lambda: nodes)
        return watch, nodes

    return make


def test_a_cluster_without_a_node_for_a_trial_is_given_up_once_it_had_one(watched):
    watch, nodes = watched(0.0, CPU=1.0, GPU=0.0)
    watch.look()
    assert watch.trouble is None
    nodes[1] = node("one", alive=False, CPU=2.0)
    watch.look()
    assert watch.trouble == (
        "no node of the Ray cluster can run a trial any more: a trial needs 1 CPU, and for 0 s none of the 1 usable "
        "nodes has had that"
    )


def test_a_node_that_comes_back_in_time_changes_nothing(watched):
    watch, nodes = watched(1000.0, CPU=1.0)
    watch.look()
    nodes[1] = node("one", alive=False, CPU=2.0)
    watch.look()
    nodes.append(node("two", CPU=1.0))
    watch.look()
    assert watch.trouble is None


def test_a_cluster_that_has_no_room_yet_may_grow(watched):
    watch, _ = watched(0.0, CPU=4.0)
    watch.look()
    assert watch.trouble is None


def test_a_death_is_blamed_on_a_node_only_after_one_has_joined_that_cannot_be_used(watched):
    watch, nodes = watched(0.0, CPU=1.0)
    assert not watch.is_unsettled()
    nodes.append(node("two", CPU=1.0))  # not asked, because the study sends the code
    assert not watch.is_unsettled()


@pytest.mark.parametrize(
    ("answer", "says"),
    [(None, "pesfkd is not installed there: install this version"), ("0123", "pesfkd differs there from this one")],
)
def test_the_reason_against_a_node_comes_with_a_remedy(answer, says):
    assert says in _describe(answer)
    assert "--ship-code" in _describe(answer)


def test_a_node_without_the_output_folder_or_the_storage_is_found(tmp_path):
    assert _missing(None, []) == ""
    assert _describe(_missing(str(tmp_path / "s/plan.json"), [])) == f"it does not see {tmp_path / 's'}"
    assert "it cannot use the storage (nowhere://x" in _describe(_missing(None, ["nowhere://x"]))
