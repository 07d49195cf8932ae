"""Part of the stored teacher outputs. This module does not import torch."""

from typing import NamedTuple


class Shard(NamedTuple):
    """Rows in one file, filled by a worker in one step.

    Args:
        slot: train split slot; None for the validation split.
        start: first row.
        stop: row after the last one.
    """

    slot: int | None
    start: int
    stop: int
