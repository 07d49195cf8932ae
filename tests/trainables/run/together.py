"""Workers of a trial as threads of one process."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from tests.trainables.packing.runs import (
    DoubleBatches,
    in_float64,
    with_batches,
)
from trainables.costs.epoch import run_epoch
from trainables.run.run import DistillationRun
from trainables.run.workers import Workers

Result = TypeVar("Result")


class DoubleShares(DoubleBatches):
    """Batches of a run in float64, including the shares of workers."""

    def shares_of_epoch(self, epoch, outputs, rows):
        for batch in self._batches.shares_of_epoch(epoch, outputs, rows):
            yield batch._replace(inputs=batch.inputs.double())


def together(size: int, work: Callable[[Workers], Result]) -> list[Result]:
    """Run `work` in `size` workers and return the result of each."""
    store = dist.HashStore()

    def join(rank: int) -> Result:
        options: Any = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=60)
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        return work(Workers(rank, size, dist.ProcessGroupGloo(store, rank, size, options)))

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(join, range(size)))


def shared(config, dataset, teacher, workers: Workers, **given: Any) -> DistillationRun:
    run = in_float64(DistillationRun(config, dataset, copy.deepcopy(teacher), workers=workers, **given))
    return with_batches(run, DoubleShares(run.batches._batches))


def run_together(
    make: Callable[[Workers], DistillationRun],
    size: int,
    epochs: int,
    epoch: Callable[[DistillationRun], dict[str, float]] = run_epoch,
) -> list[Any]:
    """Return the run and the measures by epoch of each worker."""
    runs = [make(Workers(rank, size, None)) for rank in range(size)]

    def work(workers: Workers) -> tuple[DistillationRun, list[dict[str, float]]]:
        run = runs[workers.rank]
        run.workers.group = workers.group
        return run, [epoch(run) for _ in range(epochs)]

    return together(size, work)
