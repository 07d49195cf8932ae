"""Losses of an epoch, read once at the epoch's end, because earlier reads would make a GPU wait."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from trainables.losses.parts import LossParts
from trainables.steps.closed_form import ClosedForm

_MEASURE_OF_PART: Final = {
    "total": "train/loss",
    "ce": "train/loss_ce",
    "kd": "train/loss_kd",
    "adapter": "train/loss_adapter",
    "peer": "train/loss_peer",
    "gap": "train/loss_gap",
    "adapter_kd": "train/loss_adapter_kd",
}
_BATCHES_AT_ONCE: Final = 16


class NonFiniteLossError(ValueError):
    """A loss or a measure became infinite or NaN, so the trial cannot continue."""


class LossLog:
    """Losses of all batches in one epoch, for one trial or for K trials along one more axis.

    Args:
        closed_form: computes the losses for batches added by `add_later`.
    """

    def __init__(self, closed_form: ClosedForm | None = None) -> None:
        self._closed_form = closed_form
        self._parts: list[LossParts] = []  # each part (batches,) or (batches, K)
        self._later: list[tuple[Tensor, Tensor]] = []
        self._sizes: list[int] = []

    def add(self, parts: LossParts, size: int) -> None:
        """Add the next batch's losses.

        Args:
            parts: scalars, or tensors (K,), detached from the graph.
            size: number of samples in the batch.
        """
        rest = (None if part is None else part.unsqueeze(0) for part in parts[1:])
        self._parts.append(LossParts(parts.total.unsqueeze(0), *rest))
        self._sizes.append(size)

    def add_later(self, log_p: Tensor, labels: Tensor) -> None:
        """Add the next batch by the log-probabilities of the gradient computation, to compute the losses later.

        Args:
            log_p: (4, C, B) or (K, 4, C, B), as in `Gradients`.
            labels: (B,) or (K, B) int64.
        """
        if self._later and self._later[-1][1].shape != labels.shape:
            self._compute()
        self._later.append((log_p, labels))
        self._sizes.append(labels.shape[-1])
        if len(self._later) == _BATCHES_AT_ONCE:
            self._compute()

    def _compute(self) -> None:
        assert self._closed_form is not None
        log_p, labels = (torch.stack(column) for column in zip(*self._later, strict=True))
        self._parts.append(self._closed_form.parts(log_p, labels))
        self._later = []

    def read(self) -> "EpochLosses":
        """Return all batches' losses; on a GPU, this waits for the results."""
        if self._later:
            self._compute()
        names = [name for name, part in self._parts[0]._asdict().items() if part is not None]
        columns = [torch.cat([getattr(each, name) for each in self._parts]).double() for name in names]
        return EpochLosses(names, torch.stack(columns, dim=-1).cpu(), self._sizes)


class EpochLosses(NamedTuple):
    """One epoch's losses on the CPU.

    Args:
        names: loss part names.
        values: (batches, parts) or (batches, K, parts) float64.
        sizes: number of samples in each batch.
    """

    names: list[str]
    values: Tensor
    sizes: list[int]

    def of_trial(self, number: int) -> "EpochLosses":
        """Return the losses of one of the K trials."""
        return self._replace(values=self.values[:, number])

    def means(self, epoch: int, epochs: int) -> dict[str, float]:
        """Compute `train/*`: each part's mean over the epoch's samples, with the weights at the time of each batch.

        Args:
            epoch: the finished epoch, counted from 1.
            epochs: number of epochs in the whole trial.

        Raises:
            NonFiniteLossError: a loss is not finite; the message gives the epoch, the batch and each part's value.
        """
        finite = self.values.isfinite().all(dim=1)
        if not finite.all():
            batch = int((~finite).nonzero()[0])
            found = zip(self.names, self.values[batch].tolist(), strict=True)
            shown = ", ".join(f"{name} {value:g}" for name, value in found)
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {epoch} of {epochs}, "
                f"batch {batch + 1} of {len(self.values)}: {shown}. A lower learning rate usually helps."
            )
        weights = torch.tensor(self.sizes, dtype=torch.float64)
        means = (self.values * weights[:, None]).sum(dim=0) / weights.sum()
        return {_MEASURE_OF_PART[name]: mean for name, mean in zip(self.names, means.tolist(), strict=True)}
