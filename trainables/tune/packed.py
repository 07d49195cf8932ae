"""Packed trials as Ray Tune sees them: each is a trial of its own, whose process only passes on what Tune asks for.

A trial's process is a client with a K-th of a slot's resources; it holds no network and imports no torch. The trials of
up to K clients of a node are computed by that node's pack actor (`trainables.packing.server`). Which pack a client
belongs to the study's desk says, an actor of the driver's: with the driver all of them end.
"""

import asyncio
import os
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_CLIENT_SETTINGS: Final = ("desk",)


class PackActor:
    """Serves clients; see `PackServer`.

    Args:
        size: clients at most.
    """

    def __init__(self, size: int) -> None:
        # Imported here, so that clients and desk, whose module this is, go without torch.
        from trainables.packing.server import PackServer
        from trainables.tune.session import Reporting, begin_run
        from trainables.tune.settings import resolved

        self._size = size
        self._server = PackServer(lambda settings: begin_run(resolved(settings)), size)
        self._reporting: dict[str, Reporting] = {}

    async def admit(self, client: str, process: int) -> bool:
        """Whether the client has a place here."""
        return await self._server.admit(client, process)

    async def leave(self, client: str) -> None:
        """The client's process ends."""
        await self._server.leave(client)

    async def begin(self, client: str, settings: dict[str, Any]) -> None:
        """Begin a trial; what goes wrong the next step tells."""
        from trainables.tune.session import Reporting

        reporting = self._reporting[client] = Reporting(settings, trials=self._size)
        try:
            await self._server.begin(client, settings)
        except Exception as error:
            reporting.fail(error)

    async def step(self, client: str) -> dict[str, Any]:
        """Train epochs of the client's trial, until a report is due; see `trainables.tune.session.TrialSession`."""
        from trainables.tune.session import keep_if_asked

        reporting = self._reporting[client]
        reporting.open()
        while reporting.error is None:
            answer = await self._server.step(client)
            if answer.error is not None:
                reporting.fail(answer.error)
                break
            if reporting.student_path is not None:
                await self._server.look_at(client, partial(keep_if_asked, path=reporting.student_path))
            if (told := reporting.add(answer.run, answer.measures)) is not None:
                return told
        return reporting.failed()

    async def save(self, client: str, folder: str) -> None:
        """Write the state of the client's trial."""
        self._reporting[client].saved_at = time.monotonic()
        await self._server.save(client, Path(folder))

    async def load(self, client: str, folder: str) -> None:
        """Let the client's trial go on from a state of its own."""
        await self._server.load(client, Path(folder))


class PackDesk:
    """Gives clients their packs, and starts those.

    Args:
        size: clients of a pack.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._packs: dict[str, list[Any]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def place(self, client: str, node: str, process: int) -> Any:
        """The first pack on the client's node that has room; a new one if none has."""
        async with self._one_at_a_time:
            packs = self._packs.setdefault(node, [])
            for each in packs:
                if await each.admit.remote(client, process):
                    return each
            # The clients hold the resources that it uses. One that dies comes back empty: its clients fail, and Tune
            # begins their trials again from their checkpoints.
            options = {"num_cpus": 0, "max_restarts": -1}
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            pack: Any = ray.remote(PackActor).options(**options, scheduling_strategy=there).remote(self._size)
            packs.append(pack)
            await pack.admit.remote(client, process)
            return pack


def start_desk(size: int) -> tuple[str, Any]:
    """The desk of a study: its name, and the handle by which the driver keeps it alive."""
    name = f"pack-desk-{uuid.uuid4().hex}"
    return name, ray.remote(PackDesk).options(num_cpus=0, name=name).remote(size)


class PackedTrainable(tune.Trainable):
    """One trial, whose steps the pack computes.

    Its Tune config is that of `DistillationTrainable` and `desk`, the name of the study's.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a trial in a new process."""
        self._client = uuid.uuid4().hex
        node = ray.get_runtime_context().get_node_id()
        desk = ray.get_actor(config["desk"])
        self._pack: Any = ray.get(desk.place.remote(self._client, node, os.getpid()))
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        settings = {name: value for name, value in config.items() if name not in _CLIENT_SETTINGS}
        ray.get(self._pack.begin.remote(self._client, settings))

    def step(self) -> dict[str, Any]:
        """Have it trained and evaluated; see `DistillationTrainable.step`."""
        result: dict[str, Any] = ray.get(self._pack.step.remote(self._client))
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Have the trial's state written."""
        ray.get(self._pack.save.remote(self._client, checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Have the trial go on from its state."""
        ray.get(self._pack.load.remote(self._client, checkpoint))

    def cleanup(self) -> None:
        """The place in the pack is free."""
        self._pack.leave.remote(self._client)


def probe_pack(settings: dict[str, Any], stored: bool) -> tuple[int, dict[int, float]]:
    """How many trials of a study are best packed on this machine; see `trainables.packing.probe.best_count`.

    Args:
        settings: the Tune config of one of its trials.
        stored: whether the teacher's outputs will be.
    """
    from trainables.packing.probe import best_count
    from trainables.process.threads import use_one_thread
    from trainables.tune.session import begin_run

    use_one_thread()
    run = begin_run({**settings, "teacher_outputs": None})
    probe = best_count(run.config, run.dataset, run.teacher, stored=stored)
    return probe.packed, probe.gains
