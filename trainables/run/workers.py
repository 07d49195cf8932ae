"""Data-parallel training of one trial by several processes, giving the same weights as one process.

Every worker holds all networks of the trial, and passes a share of every global batch through them. The outputs are
all-gathered, so each worker computes the whole-batch losses, including losses between samples. The gradient flows back
through the worker's own share only. The sum of these gradients over all workers equals a single process's gradient;
student, adapter and companion use this sum. A method's parts see the whole batch on every worker, so all workers
compute the same gradient for them. Averaging this gradient keeps the parts equal to the last bit even if the workers'
processors differ.

BatchNorm normalises by whole-batch statistics, as in a single process: counts, means and sums of squares are combined
over the workers, and so are their gradients. Each worker draws the random numbers for dropout and similar layers
independently.

Communication uses a process group of `torch.distributed`: gloo between CPUs, nccl between GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.losses.parts import StepOutputs
from trainables.steps.sgd import Trainer

# Names of trainers with a module for the whole batch on every worker.
_SEES_WHOLE_BATCH = ("method",)


@dataclass
class Workers:
    """Group of processes training one trial, as seen from one process.

    Args:
        rank: rank of this process.
        size: process count.
        group: process group of `torch.distributed` with all these processes.
    """

    rank: int
    size: int
    group: Any

    def __deepcopy__(self, memo: object) -> None:
        # A network copy is not part of the trial and computes alone.
        return None

    def rows(self, count: int) -> slice:
        """Return this worker's rows of a batch with `count` samples; shares differ by at most one row."""
        return _share(count, self.rank, self.size)

    def gather(self, own: Tensor, count: int) -> Tensor:
        """All-gather a batch's rows; only this worker's rows keep their graph.

        Args:
            own: (rows, ...), this worker's rows in the batch.
            count: batch size.

        Returns:
            (count, ...), the same values on every worker.
        """
        most = -(-count // self.size)
        padded = own.detach().new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self.group.allgather([parts], [padded]).wait()
        shares = [_share(count, rank, self.size) for rank in range(self.size)]
        parts = [part[: share.stop - share.start] for part, share in zip(parts, shares, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def gather_outputs(self, own: StepOutputs, indices: Tensor) -> StepOutputs:
        """All-gather a whole batch's network outputs.

        Args:
            own: outputs for this worker's rows.
            indices: (B,) int64, whole-batch indices.
        """

        def gathered(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.gather(value, len(indices))
            return tuple(map(gathered, value)) if isinstance(value, tuple) else value

        rows = own._replace(indices=None, class_distances=None)
        return StepOutputs(*map(gathered, rows))._replace(indices=indices, class_distances=own.class_distances)

    def add_gradients(self, trainers: Mapping[str, Trainer]) -> None:
        """Replace the gradients of all trainers by the whole-batch gradients, with one all-reduce per dtype."""
        weighted = [
            (each.grad, 1 / self.size if name in _SEES_WHOLE_BATCH else 1.0)
            for name, trainer in trainers.items()
            for each in trainer.parameters.values()
            if each.grad is not None
        ]
        by_dtype: dict[torch.dtype, list[tuple[Tensor, float]]] = {}
        for gradient, weight in weighted:
            by_dtype.setdefault(gradient.dtype, []).append((gradient, weight))
        for each in by_dtype.values():
            self._add([gradient for gradient, _ in each], [weight for _, weight in each])

    def _add(self, gradients: Sequence[Tensor], weights: Sequence[float]) -> None:
        message = torch.cat([g.reshape(-1) * weight for g, weight in zip(gradients, weights, strict=True)])
        self.group.allreduce([message]).wait()
        for gradient, part in zip(gradients, message.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def total(self, number: int, device: torch.device) -> int:
        """Return the sum of `number` over all workers."""
        sums = torch.tensor([number], dtype=torch.int64, device=device)
        self.group.allreduce([sums]).wait()
        return int(sums)


def _share(count: int, rank: int, size: int) -> slice:
    least, more = divmod(count, size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


def share_norms(module: nn.Module, workers: Workers) -> None:
    """Make every BatchNorm in a network normalise by the whole batch during training, in place.

    Parameters, buffers and module names stay the same, so checkpoints equal those of a single process.

    Raises:
        ValueError: a kind of BatchNorm would normalise by this worker's rows alone. Nothing is changed then.
    """
    if kinds := unshared_norms(module):
        raise ValueError(f"{', '.join(kinds)} cannot normalise over several workers: train this network by one")
    for each in module.modules():
        shared = _SHARED.get(type(each))
        if shared is not None:
            each.__class__ = shared
            assert isinstance(each, _SharedNorm)
            each.workers = workers


def unshared_norms(module: nn.Module) -> list[str]:
    """Return the kinds of BatchNorm in a network not supported by `share_norms`, e.g. timm's `BatchNormAct2d`."""
    shared = {*_SHARED, *_SHARED.values()}
    norms = (each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm))
    return sorted({type(each).__name__ for each in norms if type(each) not in shared})


class _SharedNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm with statistics over all workers' rows."""

    workers: Workers | None

    def forward(self, given: Tensor) -> Tensor:
        """Normalise (rows, C, ...) by each channel's mean and biased variance over all workers' rows."""
        if self.workers is None or not self.training:
            return super().forward(given)
        values = given.to(torch.promote_types(given.dtype, torch.float32))
        mean, variance, count = _moments(values, self.workers)
        self._remember(mean.detach(), variance.detach(), count)
        shape = (1, -1, *[1] * (values.dim() - 2))
        result = (values - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(given.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _SharedNorm1d(_SharedNorm, nn.BatchNorm1d):
    pass


class _SharedNorm2d(_SharedNorm, nn.BatchNorm2d):
    pass


class _SharedNorm3d(_SharedNorm, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[_SharedNorm]] = {
    nn.BatchNorm1d: _SharedNorm1d,
    nn.BatchNorm2d: _SharedNorm2d,
    nn.BatchNorm3d: _SharedNorm3d,
}


def _moments(values: Tensor, workers: Workers) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean (C,), biased variance (C,) and number of values per channel over all workers' rows.

    Each worker contributes count, mean and sum of squared deviations in a single message.

    Source:
        Chan, Golub and LeVeque (1983).
    """
    axes = [0, *range(2, values.dim())]
    channels = values.shape[1]
    own_count = values.numel() // channels
    own_mean = values.sum(axes) / max(1, own_count)
    shape = (1, -1, *[1] * (values.dim() - 2))
    own_squares = (values - own_mean.view(shape)).square().sum(axes)
    message = torch.cat([own_mean, own_squares, values.new_tensor([own_count])])
    gathered: Tensor = _AllGather.apply(message, workers)
    means, squares, counts = gathered[:, :channels], gathered[:, channels:-1], gathered[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    variance = (squares + counts * (means - mean).square()).sum(dim=0) / count
    return mean, variance, count


class _AllGather(torch.autograd.Function):
    """All-gather a vector (n,) of each worker to (workers, n); backward sums over workers and returns this row."""

    @staticmethod
    def forward(context: Any, message: Tensor, workers: Workers) -> Tensor:
        context.workers = workers
        return workers.gather(message.detach()[None], workers.size)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        workers: Workers = context.workers
        total = gradients[0].contiguous().clone()
        workers.group.allreduce([total]).wait()
        return total[workers.rank], None
