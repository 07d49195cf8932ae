"""Training of many clients' trials in packs: clients waiting for an epoch at the same time share a pack.

This module does not depend on Ray. Clients are identified by names, and the function for building a trial from a
client's settings is passed in.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from trainables.costs.epoch import run_epoch
from trainables.packing.network import PackingError
from trainables.packing.pack import Pack
from trainables.packing.step import SHARED_FIELDS
from trainables.process.threads import use_one_thread
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun

# How long an epoch waits for further trials after the first request. New trials get a short wait, because several
# usually start together. Members of the last epoch may still be receiving results. They get a fixed time or a share of
# the last epoch's duration, whichever is longer, because a late trial waits for a whole epoch.
_SECONDS_FOR_BEGINNERS: Final = 0.1
_SECONDS_FOR_MEMBERS: Final = 0.5
_SHARE_FOR_MEMBERS: Final = 0.1

Result = TypeVar("Result")
# Builds a trial from a client's settings.
BeginRun = Callable[[dict[str, Any]], DistillationRun]


@dataclass(frozen=True)
class EpochResult:
    """Result of one epoch for one client.

    Args:
        run: the client's trial.
        measures: epoch measures.
        error: the error, if the epoch failed.
    """

    run: DistillationRun
    measures: dict[str, float] = field(default_factory=dict)
    error: Exception | None = None


class PackedTrials:
    """All clients' trials, grouped into one pack per trial kind. Not thread-safe.

    Args:
        begin_run: builds a trial from settings.
    """

    def __init__(self, begin_run: BeginRun) -> None:
        self._begin_run = begin_run
        self._runs: dict[str, DistillationRun] = {}
        self._packs: dict[tuple[object, ...], Pack] = {}

    def begin(self, client: str, settings: dict[str, Any]) -> None:
        """Begin or resume a client's trial, replacing the previous one."""
        self.end(client)
        self._runs[client] = self._begin_run(settings)

    def end(self, client: str) -> None:
        """Forget a client's trial."""
        self._runs.pop(client, None)

    def run_of(self, client: str) -> DistillationRun:
        """Return a client's trial."""
        return self._runs[client]

    def load(self, client: str, folder: Path) -> None:
        """Load a checkpoint from the same trial into a client's trial."""
        run = self._runs[client]
        for pack in self._packs.values():
            if client in pack.members:
                pack.remove(client)
        load_checkpoint(run, folder)

    def train(self, clients: Collection[str]) -> dict[str, EpochResult]:
        """Train the next epoch of the given clients' trials, with trials of the same kind in packs."""
        kinds: dict[tuple[object, ...], dict[str, DistillationRun]] = {}
        for client in sorted(clients):
            run = self._runs[client]
            kinds.setdefault(_kind(run), {})[client] = run
        for kind, pack in list(self._packs.items()):
            pack.set_members({name: run for name, run in kinds.get(kind, {}).items() if name in pack.members})
            if not pack.members:
                del self._packs[kind]
        results: dict[str, EpochResult] = {}
        for kind, runs in kinds.items():
            results |= self._train_kind(kind, runs)
        return results

    def _train_kind(self, kind: tuple[object, ...], runs: Mapping[str, DistillationRun]) -> dict[str, EpochResult]:
        pack = self._packs.pop(kind, None)
        try:
            if len(runs) == 1:
                raise PackingError("one trial is no pack")
            if pack is None:
                pack = Pack(runs)
            else:
                pack.set_members(runs)
        except PackingError:
            if pack is not None:
                pack.set_members({})
            return {name: _train_alone(run) for name, run in runs.items()}
        try:
            measures, failures = pack.run_epoch()
        except Exception as error:
            # After an unexpected error, the progress of each trial is unknown, so all trials in the pack fail.
            return {name: EpochResult(run, error=error) for name, run in runs.items()}
        self._packs[kind] = pack
        return {name: EpochResult(run, measures.get(name, {}), failures.get(name)) for name, run in runs.items()}


def _kind(run: DistillationRun) -> tuple[object, ...]:
    shared = (getattr(run.config, name) for name in SHARED_FIELDS)
    return *shared, run.identity["dataset"], run.identity["teacher"], str(run.device)


def _train_alone(run: DistillationRun) -> EpochResult:
    try:
        return EpochResult(run, run_epoch(run))
    except Exception as error:
        return EpochResult(run, error=error)


class PackServer:
    """Server for clients with one trial each; all computation runs in one thread.

    An epoch begins when all active trials have been requested, or after a short wait for the missing ones. A client of
    a missing trial may have ended, or may be waiting for the study to propose the next trial.

    Args:
        begin_run: builds a trial from settings.
        size: maximum client count.
    """

    def __init__(self, begin_run: BeginRun, size: int) -> None:
        self._trials = PackedTrials(begin_run)
        self._size = size
        self._clients: dict[str, int] = {}  # client to process id
        self._under_way: set[str] = set()
        self._asking: dict[str, asyncio.Future[EpochResult]] = {}
        self._changed = asyncio.Event()
        self._beginning = 0
        self._last_begin = 0.0
        self._patience = _SECONDS_FOR_MEMBERS
        self._thread = ThreadPoolExecutor(1, "pack", initializer=use_one_thread)
        self._work: asyncio.Task[None] | None = None

    async def admit(self, client: str, process: int) -> bool:
        """Admit a client if there is room, and return whether it was admitted.

        The place is freed when the client leaves or when the client's process on this node ends.
        """
        for other, number in list(self._clients.items()):
            if not _is_alive(number):
                await self.leave(other)
        if len(self._clients) >= self._size:
            return False
        self._clients[client] = process
        return True

    async def leave(self, client: str) -> None:
        """Remove a client and free the place."""
        self._clients.pop(client, None)
        self._under_way.discard(client)
        self._asking.pop(client, None)
        self._changed.set()
        await self._compute(self._trials.end, client)

    async def begin(self, client: str, settings: dict[str, Any]) -> None:
        """Begin a client's trial."""
        self._under_way.discard(client)
        self._beginning += 1
        try:
            await self._compute(self._trials.begin, client, settings)
            self._under_way.add(client)
        finally:
            self._beginning -= 1
            self._last_begin = time.monotonic()
            self._changed.set()

    async def step(self, client: str) -> EpochResult:
        """Train the next epoch of the client's trial, together with other waiting trials.

        Raises:
            KeyError: if the client has no trial here, for example after a restart of this server's process.
        """
        self._trials.run_of(client)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._serve())
        result = asyncio.get_running_loop().create_future()
        self._asking[client] = result
        self._under_way.add(client)
        self._changed.set()
        return await result

    async def save(self, client: str, folder: Path) -> None:
        """Write a checkpoint for the client's trial."""
        await self._compute(lambda: save_checkpoint(self._trials.run_of(client), folder))

    async def look_at(self, client: str, look: Callable[[DistillationRun], None]) -> None:
        """Call `look` with the client's trial while no trial is training."""
        await self._compute(lambda: look(self._trials.run_of(client)))

    async def load(self, client: str, folder: Path) -> None:
        """Load a checkpoint from the same trial into the client's trial."""
        await self._compute(self._trials.load, client, folder)

    async def _compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _serve(self) -> None:
        while True:
            await self._gather()
            asking, self._asking = self._asking, {}
            began = time.monotonic()
            try:
                results = await self._compute(self._trials.train, list(asking))
            except Exception as error:  # a bug in this package; waiting clients must get the error
                for future in asking.values():
                    _resolve(future, error)
                continue
            self._patience = max(_SECONDS_FOR_MEMBERS, _SHARE_FOR_MEMBERS * (time.monotonic() - began))
            for client, result in results.items():
                if result.error is not None or result.run.finished:
                    self._under_way.discard(client)
                _resolve(asking[client], result)

    async def _gather(self) -> None:
        """Wait until the next epoch should begin."""
        first_asked = None
        while True:
            seconds = None
            if self._asking and not self._beginning:
                now = time.monotonic()
                first_asked = now if first_asked is None else first_asked
                absent = self._under_way - self._asking.keys()
                begin_at = self._last_begin + _SECONDS_FOR_BEGINNERS
                if absent:
                    begin_at = max(begin_at, first_asked + self._patience)
                if now >= begin_at or len(self._asking) >= len(self._clients):
                    self._under_way -= absent
                    return
                seconds = begin_at - now
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)


def _resolve(future: "asyncio.Future[EpochResult]", result: EpochResult | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
