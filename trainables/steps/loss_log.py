"""The losses of an epoch's batches, looked at once, when the epoch is over: asking earlier would make a GPU wait."""

from collections.abc import Sequence
from typing import Final

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
}
_BATCHES_AT_ONCE: Final = 16


class NonFiniteLossError(ValueError):
    """A loss, or a measure, became infinite or not a number; the trial cannot go on."""


class LossLog:
    """Collects the losses of one epoch.

    Args:
        closed_form: computes those that were left for later.
    """

    def __init__(self, closed_form: ClosedForm | None = None) -> None:
        self._closed_form = closed_form
        self._parts: list[LossParts] = []  # each part (batches,)
        self._later: list[tuple[Tensor, Tensor]] = []
        self._sizes: list[int] = []

    def add(self, parts: LossParts, size: int) -> None:
        """The losses of the next batch.

        Args:
            parts: scalars without their graph.
            size: samples in the batch.
        """
        rest = (None if part is None else part.view(1) for part in parts[1:])
        self._parts.append(LossParts(parts.total.view(1), *rest))
        self._sizes.append(size)

    def add_later(self, log_p: Tensor, labels: Tensor) -> None:
        """The next batch, whose losses are to be computed from what its gradients were.

        Args:
            log_p: (4, C, B), as in `Gradients`.
            labels: (B,) int64.
        """
        if self._later and self._later[-1][1].shape != labels.shape:
            self._compute()
        self._later.append((log_p, labels))
        self._sizes.append(len(labels))
        if len(self._later) == _BATCHES_AT_ONCE:
            self._compute()

    def _compute(self) -> None:
        assert self._closed_form is not None
        log_p, labels = (torch.stack(column) for column in zip(*self._later, strict=True))
        self._parts.append(self._closed_form.parts(log_p, labels))
        self._later = []

    def means(self, epoch: int, epochs: int) -> dict[str, float]:
        """`train/*`: each part's mean over the samples, as it was while the weights changed.

        Args:
            epoch: the epoch that is over, counted from 1.
            epochs: of the whole trial.

        Raises:
            NonFiniteLossError: naming epoch, batch and the value of each part.
        """
        if self._later:
            self._compute()
        return means_of_parts(*join_parts(self._parts), self._sizes, epoch, epochs)


def join_parts(parts: Sequence[LossParts]) -> tuple[list[str], Tensor]:
    """The losses of an epoch in one tensor; on a GPU this waits for them.

    Args:
        parts: of some batches at a time, each part (batches, ...).

    Returns:
        The parts' names, and their values (batches, ..., parts) float64 on the CPU.
    """
    names = [name for name, part in parts[0]._asdict().items() if part is not None]
    columns = [torch.cat([getattr(each, name) for each in parts]).double() for name in names]
    return names, torch.stack(columns, dim=-1).cpu()


def means_of_parts(
    names: Sequence[str], values: Tensor, sizes: Sequence[int], epoch: int, epochs: int
) -> dict[str, float]:
    """`train/*` of one trial, as `LossLog.means` gives them.

    Args:
        names: of the parts.
        values: (batches, parts) float64.
        sizes: samples in each batch.
        epoch: the epoch that is over, counted from 1.
        epochs: of the whole trial.

    Raises:
        NonFiniteLossError: naming epoch, batch and the value of each part.
    """
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        batch = int((~finite).nonzero()[0])
        shown = ", ".join(f"{name} {value:g}" for name, value in zip(names, values[batch].tolist(), strict=True))
        raise NonFiniteLossError(
            f"the loss is not finite in epoch {epoch} of {epochs}, "
            f"batch {batch + 1} of {len(values)}: {shown}. A lower learning rate usually helps."
        )
    weights = torch.tensor(sizes, dtype=torch.float64)
    means = (values * weights[:, None]).sum(dim=0) / weights.sum()
    return {_MEASURE_OF_PART[name]: mean for name, mean in zip(names, means.tolist(), strict=True)}
