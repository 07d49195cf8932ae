"""Packed trials in Ray Tune: each is a separate Tune trial. The trial's process only forwards Tune's calls.

A trial's process is a client with 1/K of the resources of an unpacked trial. A client holds no network and does not
import torch. The trials of up to K clients on a node are computed by a pack actor on that node
(`trainables.packing.server`). An actor owned by the driver, the desk, assigns clients to packs. Desk and packs end
together with the driver.
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

from trainables.tune.preemption import Preemption

_CLIENT_SETTINGS: Final = ("desk",)


class PackActor:
    """Actor for the clients of one pack; see `PackServer`.

    Args:
        size: maximum client count.
    """

    def __init__(self, size: int) -> None:
        # Imported here, so clients and the desk can import this module without torch.
        from trainables.packing.server import PackServer
        from trainables.tune.session import Reporting, begin_run
        from trainables.tune.settings import resolved

        self._size = size
        self._server = PackServer(lambda settings: begin_run(resolved(settings)), size)
        self._reporting: dict[str, Reporting] = {}

    async def admit(self, client: str, process: int) -> bool:
        """Admit a client if there is room, and return whether it was admitted."""
        return await self._server.admit(client, process)

    async def leave(self, client: str) -> None:
        """Remove a client, because the client's process ends."""
        await self._server.leave(client)

    async def begin(self, client: str, settings: dict[str, Any]) -> None:
        """Begin a trial; an error is reported by the next step."""
        from trainables.tune.session import Reporting
        from trainables.tune.settings import resolved

        reporting = self._reporting[client] = Reporting(resolved(settings), trials=self._size)
        try:
            await self._server.begin(client, settings)
        except Exception as error:
            reporting.fail(error)

    async def step(self, client: str) -> dict[str, Any]:
        """Train the client's trial until a report is due; see `trainables.tune.session.TrialSession`."""
        from trainables.tune.session import save_student_if_requested

        reporting = self._reporting[client]
        reporting.open()
        while reporting.error is None:
            result = await self._server.step(client)
            if result.error is not None:
                reporting.fail(result.error)
                break
            if reporting.student_path is not None:
                await self._server.look_at(client, partial(save_student_if_requested, path=reporting.student_path))
            if (report := reporting.add(result.run, result.measures)) is not None:
                return report
        return reporting.failed()

    async def save(self, client: str, folder: str) -> None:
        """Write a checkpoint for the client's trial."""
        self._reporting[client].saved_at = time.monotonic()
        await self._server.save(client, Path(folder))

    async def load(self, client: str, folder: str) -> None:
        """Load a checkpoint from the same trial into the client's trial."""
        await self._server.load(client, Path(folder))


class PackDesk:
    """Actor for starting packs and assigning clients to packs.

    Args:
        size: maximum client count per pack.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._packs: dict[str, list[Any]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def place(self, client: str, node: str, process: int) -> Any:
        """Return the first pack on the client's node with room, or a new pack if all are full."""
        async with self._one_at_a_time:
            packs = self._packs.setdefault(node, [])
            for each in packs:
                if await each.admit.remote(client, process):
                    return each
            # The pack reserves no CPU, because the clients hold the resources for the pack. After a crash, the pack
            # restarts empty. The clients then fail, and Tune restarts their trials from the checkpoints.
            options = {"num_cpus": 0, "max_restarts": -1}
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            pack: Any = ray.remote(PackActor).options(**options, scheduling_strategy=there).remote(self._size)
            packs.append(pack)
            await pack.admit.remote(client, process)
            return pack


def start_desk(size: int) -> tuple[str, Any]:
    """Start a study's desk; return the actor's name, and the handle for keeping the actor alive in the driver."""
    name = f"pack-desk-{uuid.uuid4().hex}"
    return name, ray.remote(PackDesk).options(num_cpus=0, name=name).remote(size)


class PackedTrainable(tune.Trainable):
    """One trial, trained by a pack actor.

    The Tune config is the one of `DistillationTrainable` plus `desk`, the name of the study's desk.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a trial in a new process."""
        self._client = uuid.uuid4().hex
        self._preemption = Preemption()
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
        """Train and evaluate in the pack; see `DistillationTrainable.step`."""
        self._preemption.leave_if_told()
        return self._preemption.mark(ray.get(self._pack.step.remote(self._client)))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a trial checkpoint through the pack."""
        ray.get(self._pack.save.remote(self._client, checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Load a trial checkpoint through the pack."""
        ray.get(self._pack.load.remote(self._client, checkpoint))

    def cleanup(self) -> None:
        """Free the place in the pack."""
        self._pack.leave.remote(self._client)


def probe_pack(settings: dict[str, Any], stored: bool) -> tuple[int, dict[int, float]]:
    """Measure how many trials in a study to pack on this machine; see `trainables.packing.probe.best_count`.

    Args:
        settings: Tune config of one trial in the study.
        stored: whether the trials will use stored teacher outputs.
    """
    from trainables.packing.probe import best_count
    from trainables.process.threads import use_one_thread
    from trainables.tune.session import begin_run
    from trainables.tune.settings import resolved

    use_one_thread()
    run = begin_run(resolved({**settings, "teacher_outputs": None}))
    probe = best_count(run.config, run.dataset, run.teacher, stored=stored)
    return probe.packed, probe.gains
