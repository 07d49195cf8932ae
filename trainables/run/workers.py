"""One trial trained by several processes at once, to the same weights as by one.

Each worker has all of the trial, and passes its share of every global batch through the networks. What they say is
gathered, so that each computes the whole batch's losses, whatever relates its samples to each other; the gradient goes
back through the worker's own share, and the sum over the workers is the gradient that one process would have had. The
student, adapter and companion are summed up so. A method's own parts see the whole batch on every worker, which all
find the same gradient; its mean keeps them equal to the last bit where the workers' processors differ.

BatchNorm normalises by the whole batch's statistics, as it does in one process: the workers' counts, means and sums of
squares are put together, and so are their gradients. What a layer draws (dropout) each worker draws for itself.

A process group of `torch.distributed` carries all this: gloo between CPUs, nccl between GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.losses.parts import StepOutputs
from trainables.steps.sgd import Trainer

# Those of a trial's trainers whose module sees the whole batch on every worker.
_SEES_EVERYTHING = ("method",)


@dataclass
class Workers:
    """The processes that train one trial, as one of them sees them.

    Args:
        rank: this one's number.
        size: how many there are.
        group: a process group of `torch.distributed`, of them all.
    """

    rank: int
    size: int
    group: Any

    def __deepcopy__(self, memo: object) -> None:
        # A copy of a network is no part of the trial: it computes alone.
        return None

    def rows(self, count: int) -> slice:
        """This worker's rows of a batch; shares differ by one row at most."""
        return _share(count, self.rank, self.size)

    def gather(self, own: Tensor, count: int) -> Tensor:
        """Everybody's rows, of which this worker's keep their graph.

        Args:
            own: (rows, ...), this worker's of a batch.
            count: samples in the batch.

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
        """What the networks say of a whole batch, from what they say of this worker's rows.

        Args:
            own: of this worker's rows.
            indices: (B,) int64, the whole batch's.
        """

        def gathered(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.gather(value, len(indices))
            return tuple(map(gathered, value)) if isinstance(value, tuple) else value

        return StepOutputs(*map(gathered, own._replace(indices=None)))._replace(indices=indices)

    def add_gradients(self, trainers: Mapping[str, Trainer]) -> None:
        """Let everybody have the gradients of the whole batch, in one message."""
        weighted = [
            (each.grad, 1 / self.size if who in _SEES_EVERYTHING else 1.0)
            for who, trainer in trainers.items()
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
        """The sum of everybody's number."""
        sums = torch.tensor([number], dtype=torch.int64, device=device)
        self.group.allreduce([sums]).wait()
        return int(sums)


def _share(count: int, rank: int, size: int) -> slice:
    least, more = divmod(count, size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


def share_norms(module: nn.Module, workers: Workers) -> None:
    """Let every BatchNorm of a network normalise by the whole batch in training, in place.

    The modules stay what they are, with their parameters, buffers and names: a checkpoint is that of one process.

    Raises:
        ValueError: for a kind of BatchNorm that would normalise by this worker's rows alone; nothing is changed then.
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
    """Kinds of BatchNorm in a network that `share_norms` does not know, such as timm's `BatchNormAct2d`."""
    shared = {*_SHARED, *_SHARED.values()}
    norms = (each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm))
    return sorted({type(each).__name__ for each in norms if type(each) not in shared})


class _SharedNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the rows of all workers."""

    workers: Workers | None

    def forward(self, given: Tensor) -> Tensor:
        """(rows, C, ...), normalised by mean and biased variance of each channel over all workers' rows."""
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
    """Mean (C,) and biased variance (C,) over all workers' rows, and how many values of a channel there are.

    From each worker's count, mean and sum of squares about it (Chan, Golub and LeVeque, 1983), in one message.
    """
    axes = [0, *range(2, values.dim())]
    channels = values.shape[1]
    own_count = values.numel() // channels
    own_mean = values.sum(axes) / max(1, own_count)
    shape = (1, -1, *[1] * (values.dim() - 2))
    own_squares = (values - own_mean.view(shape)).square().sum(axes)
    message = torch.cat([own_mean, own_squares, values.new_tensor([own_count])])
    told: Tensor = _Told.apply(message, workers)
    means, squares, counts = told[:, :channels], told[:, channels:-1], told[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    variance = (squares + counts * (means - mean).square()).sum(dim=0) / count
    return mean, variance, count


class _Told(torch.autograd.Function):
    """Everybody's message (n,) as rows (workers, n); what they all found out from it comes back to whose it was."""

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
