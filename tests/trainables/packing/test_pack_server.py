import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.packing.server import PackServer
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import NonFiniteLossError

pytestmark = pytest.mark.study

SMALL = {"batch_size": 256}  # five steps per epoch, so float32 errors stay small


@pytest.fixture
def begin_run(digits, teacher):
    """Return a function that begins a run from settings."""

    def begin(settings: dict[str, Any]) -> DistillationRun:
        return DistillationRun(TrialConfig(**settings["config"]), digits, teacher)

    return begin


@pytest.fixture
def serve(begin_run):
    """Return a function that runs a test's coroutine with a server for four clients."""

    def run(test: Callable[[PackServer], Awaitable[None]]) -> None:
        async def whole() -> None:
            await asyncio.wait_for(test(PackServer(begin_run, 4)), 60)

        asyncio.run(whole())

    return run


def settings(**changes: object) -> dict[str, Any]:
    return {"config": small_config(**SMALL | changes).model_dump()}


async def begin(server: PackServer, client: str, **changes: object) -> None:
    assert await server.admit(client, os.getpid())
    await server.begin(client, settings(**changes))


def packs_of(server: PackServer) -> list[set[str]]:
    return [set(pack.members) for pack in server._trials._packs.values()]


def test_clients_that_ask_together_are_packed_and_get_what_they_would_get_alone(serve, begin_run):
    changes = {"a": {"adapter_width": 3}, "b": {"temperature": 2.0, "data_seed": 4}, "c": {"seed": 5}}

    async def test(server: PackServer) -> None:
        for client, change in changes.items():
            await begin(server, client, **change)
        answers = await asyncio.gather(*(server.step(client) for client in changes))
        assert packs_of(server) == [{"a", "b", "c"}]
        for answer, change in zip(answers, changes.values(), strict=True):
            alone = run_epoch(begin_run(settings(**change)))
            assert answer.error is None
            assert answer.run.epoch == 1
            assert set(answer.measures) == set(alone)
            for name in ("train/loss", "val/loss", "val/sharpness_gap"):
                assert answer.measures[name] == pytest.approx(alone[name], abs=3e-5)

    serve(test)


def test_trials_of_several_methods_are_served_beside_each_other(serve):
    async def test(server: PackServer) -> None:
        await begin(server, "a")
        await begin(server, "b", seed=1)
        await begin(server, "c", method="kd")
        await begin(server, "d", method="kd", seed=1)
        for _ in range(2):
            answers = await asyncio.gather(*(server.step(client) for client in "abcd"))
            assert [answer.error for answer in answers] == [None] * 4
        assert sorted(map(sorted, packs_of(server))) == [["a", "b"], ["c", "d"]]
        assert [answer.run.config.method for answer in answers] == ["pesf_kd"] * 2 + ["kd"] * 2

    serve(test)


def test_who_does_not_ask_is_waited_for_a_moment_only_and_may_come_back(serve):
    async def test(server: PackServer) -> None:
        for client in "abc":
            await begin(server, client, seed=ord(client))
        await asyncio.gather(*(server.step(client) for client in "abc"))
        await asyncio.gather(server.step("a"), server.step("b"))
        assert packs_of(server) == [{"a", "b"}]
        answers = await asyncio.gather(*(server.step(client) for client in "abc"))
        assert [answer.run.epoch for answer in answers] == [3, 3, 2]
        assert packs_of(server) == [{"a", "b", "c"}]

    serve(test)


def test_a_client_whose_trial_is_over_begins_another(serve):
    async def test(server: PackServer) -> None:
        await begin(server, "a", epochs=1)
        await begin(server, "b")
        first, _ = await asyncio.gather(server.step("a"), server.step("b"))
        assert first.run.finished
        await server.begin("a", settings(seed=9))
        second, other = await asyncio.gather(server.step("a"), server.step("b"))
        assert (second.run.config.seed, second.run.epoch, other.run.epoch) == (9, 1, 2)
        assert packs_of(server) == [{"a", "b"}]

    serve(test)


def test_a_trial_that_diverges_fails_for_its_own_client(serve):
    async def test(server: PackServer) -> None:
        await begin(server, "a")
        await begin(server, "b", student_learning_rate=1e30)
        await begin(server, "c", seed=1)
        good, bad, also_good = await asyncio.gather(*(server.step(client) for client in "abc"))
        assert good.error is None
        assert also_good.error is None
        assert isinstance(bad.error, NonFiniteLossError)
        await asyncio.gather(server.step("a"), server.step("c"))
        assert packs_of(server) == [{"a", "c"}]

    serve(test)


def test_a_trial_by_itself_computes_the_bits_of_a_lone_one(serve, begin_run):
    async def test(server: PackServer) -> None:
        await begin(server, "a")
        answer = await server.step("a")
        assert packs_of(server) == []
        alone = begin_run(settings())
        assert answer.measures["train/loss"] == run_epoch(alone)["train/loss"]
        for name, tensor in alone.state_dict()["tensors"].items():
            assert torch.equal(answer.run.state_dict()["tensors"][name], tensor), name

    serve(test)


@pytest.mark.launcher
def test_a_place_is_kept_until_its_client_leaves_or_dies(serve):
    async def test(server: PackServer) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        assert await server.admit("dead", gone.pid)
        for client in "abcd":
            assert await server.admit(client, os.getpid())
        assert not await server.admit("e", os.getpid())
        await server.leave("b")
        assert await server.admit("e", os.getpid())

    serve(test)


def test_states_are_saved_and_loaded_between_epochs(serve, tmp_path):
    async def test(server: PackServer) -> None:
        await begin(server, "a")
        await begin(server, "b", seed=1)
        await asyncio.gather(server.step("a"), server.step("b"))
        await server.save("a", tmp_path)
        second, _ = await asyncio.gather(server.step("a"), server.step("b"))
        await server.load("a", tmp_path)
        again, other = await asyncio.gather(server.step("a"), server.step("b"))
        assert (again.run.epoch, other.run.epoch) == (2, 3)
        assert again.measures["val/loss"] == pytest.approx(second.measures["val/loss"], abs=1e-5)

    serve(test)


def test_what_cannot_begin_says_so_and_what_is_unknown_is_heard_of(serve):
    async def test(server: PackServer) -> None:
        assert await server.admit("a", os.getpid())
        with pytest.raises(ValueError, match="temperature"):
            await server.begin("a", {"config": {"temperature": -1}})
        with pytest.raises(KeyError):
            await server.step("a")

    serve(test)


def test_trials_that_begin_together_are_packed_from_their_first_epoch(serve):
    async def client(server: PackServer, name: str) -> None:
        await begin(server, name, seed=ord(name))
        await server.step(name)

    async def test(server: PackServer) -> None:
        await asyncio.gather(*(client(server, name) for name in "abcd"))
        assert packs_of(server) == [set("abcd")]

    serve(test)
