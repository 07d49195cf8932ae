"""A trial with several workers in Ray Tune: the Tune process, worker actors, and the process group between them.

Ray Train is not used, because it starts and ends workers for every trial and keeps separate checkpoints and reports.
Here a trial's actors are reused for the next trial, like the Tune process. Checkpoints belong to the trial.
"""

import socket
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import ray
import torch.distributed as dist
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from trainables.costs.epoch import run_epoch
from trainables.display.failures import traceback_of
from trainables.process.threads import use_one_thread
from trainables.run.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.run.workers import Workers
from trainables.steps.loss_log import NonFiniteLossError
from trainables.tune.session import WorkerFailedError, WorkerLostError, begin_run, describe_failure
from trainables.tune.settings import resolved
from trainables.tune.trainable import DistillationTrainable

# Long, because the first trial to need a slot of teacher outputs may have to compute the slot.
_TIMEOUT: Final = timedelta(minutes=30)
_dist: Any = dist  # the type stubs lack the names used here
_SECONDS_FOR_ERRORS: Final = 60.0


def process_group(store: Any, rank: int, size: int, *, device: str, address: str) -> Any:
    """Create a process group of `torch.distributed` for a trial's workers: nccl for GPUs, gloo for CPUs.

    Args:
        store: store for the workers' rendezvous.
        rank: this worker's rank.
        size: worker count.
        device: `cuda` or `cpu`.
        address: this node's address; gloo listens only there.
    """
    if device == "cuda":
        return _dist.ProcessGroupNCCL(store, rank, size, timeout=_TIMEOUT)
    options: Any = _dist.ProcessGroupGloo._Options()
    options._timeout = _TIMEOUT
    options._devices = [_dist.ProcessGroupGloo.create_device(hostname=address)]
    return _dist.ProcessGroupGloo(store, rank, size, options)


class TrialWorker:
    """Actor for training a trial together with the process started by Tune.

    Args:
        device: `cuda` or `cpu`.
    """

    def __init__(self, device: str) -> None:
        use_one_thread()
        self._device = device

    def join(self, host: str, port: int, rank: int, size: int) -> None:
        """Join the trial's process group, given the store's address."""
        store = _dist.TCPStore(host, port, is_master=False)
        address = ray.util.get_node_ip_address()
        self._workers = Workers(rank, size, process_group(store, rank, size, device=self._device, address=address))

    def begin(self, settings: dict[str, Any]) -> None:
        """Begin a trial without a checkpoint; the first worker sends the state to resume from, if any."""
        self._run = begin_run({**resolved(settings), "checkpoints": []}, workers=self._workers)

    def load(self, state: bytes) -> None:
        """Load a checkpoint's state from the file content."""
        _load(self._run, state)

    def run_epoch(self) -> str | None:
        """Take part in an epoch.

        Returns:
            Description of an error in this worker, or None. If all workers raise an error, as for a non-finite loss,
            only the first worker reports it.
        """
        try:
            run_epoch(self._run)
        except NonFiniteLossError:
            return None
        except Exception as error:
            self._workers.group = None  # closes the connections, so no other worker waits for this one
            return describe_failure(error)
        return None


class WorkerGroup:
    """A trial's workers, as seen from the first worker.

    Args:
        count: worker count, including the first.
        cpus: cores per worker.
        gpus: GPUs per worker.
        device: `cuda` or `cpu`.
    """

    def __init__(self, count: int, *, cpus: float, gpus: float, device: str) -> None:
        self.broken = False
        placed = ray.util.get_current_placement_group()
        self._others: list[Any] = []
        for bundle in range(1, count):
            where: Any = PlacementGroupSchedulingStrategy(placed, bundle) if placed else "SPREAD"
            other: Any = ray.remote(TrialWorker).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=where)
            self._others.append(other.remote(device))
        # Fails early if an actor does not start; creating the process group would wait much longer.
        ray.get([other.__ray_ready__.remote() for other in self._others])
        address = ray.util.get_node_ip_address()
        listening = socket.create_server((address, 0))
        port = listening.getsockname()[1]
        # The store uses this socket, because by default it would listen on all interfaces.
        store = _dist.TCPStore(
            address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )
        joining = [other.join.remote(address, port, rank, count) for rank, other in enumerate(self._others, start=1)]
        self.workers = Workers(0, count, process_group(store, 0, count, device=device, address=address))
        ray.get(joining)

    def begin(self, settings: dict[str, Any]) -> DistillationRun:
        """Begin a trial on all workers and return this worker's run."""
        beginning = [other.begin.remote(settings) for other in self._others]
        run = begin_run(settings, workers=self.workers)
        ray.get(beginning)
        self.share_state(run)
        return run

    def share_state(self, run: DistillationRun) -> None:
        """Send the state of this worker's run to all other workers, unless the trial is new."""
        if run.epoch:
            with tempfile.TemporaryDirectory() as folder:
                state = ray.put(save_checkpoint(run, Path(folder)).read_bytes())
            ray.get([other.load.remote(state) for other in self._others])

    def run_epoch(self, run: DistillationRun) -> dict[str, float]:
        """Train one epoch on all workers and evaluate.

        Raises:
            NonFiniteLossError: see `DistillationRun.train_epoch`.
            WorkerLostError: if a worker's process has ended.
            WorkerFailedError: if another worker raised an error.
        """
        running = [other.run_epoch.remote() for other in self._others]
        try:
            measures = run_epoch(run)
        except NonFiniteLossError:
            ray.wait(running, num_returns=len(running), timeout=_SECONDS_FOR_ERRORS)
            raise
        except Exception as error:
            self.broken = True
            self.workers.group = None
            self._raise_errors(running, own=describe_failure(error))
            raise
        self._raise_errors(running)
        return measures

    def _raise_errors(self, running: list[Any], own: str | None = None) -> None:
        """Raise the other workers' errors, if any.

        Args:
            running: the other workers' epochs.
            own: this worker's error. If only this error comes from user code, the caller raises it, because the other
                workers then only lost the connection.
        """
        try:
            errors = ray.get(running, timeout=_SECONDS_FOR_ERRORS)
        except ray.exceptions.RayError as error:
            self.broken = True
            raise WorkerLostError(f"a worker of the trial was lost ({type(error).__name__})") from None
        described = {rank: text for rank, text in enumerate(errors, start=1) if text is not None}
        if not described:
            return
        self.broken = True
        of_users = {rank: text for rank, text in described.items() if traceback_of(text)}
        if of_users:
            rank, text = next(iter(of_users.items()))
            raise WorkerFailedError(f"worker {rank}: {text}")
        if own is None or not traceback_of(own):
            raise WorkerFailedError("; ".join(f"worker {rank}: {text}" for rank, text in described.items()))

    def end(self) -> None:
        """End the other workers' processes."""
        self.workers.group = None
        for other in self._others:
            ray.kill(other)


class ParallelTrainable(DistillationTrainable):
    """One trial, trained by several workers.

    The Tune config is the one of `DistillationTrainable` plus `workers`: `count`, and `cpus` and `gpus` per worker.
    """

    _worker_group: WorkerGroup | None = None

    def _start(self, settings: dict[str, Any]) -> DistillationRun:
        if self._worker_group is not None and self._worker_group.broken:
            self._worker_group.end()
            self._worker_group = None
        if self._worker_group is None:
            self._worker_group = WorkerGroup(**settings["workers"], device=settings["device"])
        return self._worker_group.begin(settings)

    def _run_epoch(self, run: DistillationRun) -> dict[str, float]:
        assert self._worker_group is not None
        return self._worker_group.run_epoch(run)

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Load a trial checkpoint on all workers."""
        super().load_checkpoint(checkpoint)
        assert self._worker_group is not None
        self._worker_group.share_state(self._session.run)

    def cleanup(self) -> None:
        """End the trial's workers."""
        if self._worker_group is not None:
            self._worker_group.end()


def _load(run: DistillationRun, state: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CHECKPOINT_FILE).write_bytes(state)
        load_checkpoint(run, Path(folder))
