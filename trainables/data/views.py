"""Augmentation as a finite, numbered table of deterministic views, and which view a sample shows in an epoch.

A frozen teacher in eval mode says the same of the same view every time, so with finitely many views its
outputs can be computed once and kept. To keep that cheap, a trial of E epochs uses V = min(all views, E)
*slots*:

- slot s of sample i is the view π_i(s), with π_i a permutation of all views, drawn per sample from the
  split's seed. It is the same for all trials, so that one table of teacher outputs by (slot, sample) serves
  them all.
- epoch e uses one slot for all samples, σ(e). σ goes through all slots before it repeats one, in an order
  that each trial's data seed draws anew for every such cycle.

Since an epoch uses a single slot, computing that slot's outputs costs one pass of the teacher over the data:
what a teacher that runs live spends on that epoch anyway. A trial therefore never pays for views it does not
use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainables.randomness import generator_from
from trainables.trial import derive_seed


@dataclass(frozen=True)
class ViewTable:
    """Crops of the zero-padded image, mirrored or not; view 0 is the image as it is.

    Args:
        padding: black pixels added on every side before cropping.
        crops: for each view, by how many pixels (down, right) its window lies off the centre, each within
            -padding to padding.
        mirrored: for each view, whether it is mirrored left to right after cropping.
    """

    padding: int
    crops: tuple[tuple[int, int], ...]
    mirrored: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.crops)

    def apply(self, images: Tensor, view_ids: Tensor) -> Tensor:
        """Each image in its view.

        Args:
            images: (B, C, H, W).
            view_ids: (B,) int64.

        Returns:
            (B, C, H, W), of the images' dtype.
        """
        rows = torch.arange(len(images), device=images.device)
        return ViewedImages(images, self).batch(rows, view_ids)


class ViewedImages:
    """Images that stay in memory, padded and mirrored once, of which batches are gathered in any view.

    They lie with their channels last: a row of a window is then one run of memory, and a batch comes in the
    layout that convolutions take fastest.

    Args:
        images: (N, C, H, W).
        table: the views.
    """

    def __init__(self, images: Tensor, table: ViewTable) -> None:
        pad = table.padding
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        if any(table.mirrored):
            padded = torch.cat([padded, padded.flip(-1)])
        pixels = padded.permute(0, 2, 3, 1).contiguous()
        self._channels, self._height, self._width = images.shape[1:]
        self.numbers_per_image = images[0].numel()
        rows, columns = pixels.shape[1:3]
        # (pixels - W + 1, W · C): from every pixel the row that begins there, without a copy. 64 windows as 64 · H
        # such rows took 0.35 of what gathering from unfolded windows takes (CIFAR's shape, one core).
        count = pixels.numel() // self._channels - self._width + 1
        self._rows = pixels.as_strided((count, self._width * self._channels), (self._channels, 1))
        self._row_offsets = torch.arange(self._height, device=images.device) * columns
        self._pixels_per_image = rows * columns
        # Cropping and then mirroring is mirroring and then cropping as far off the centre on the other side.
        corners = [
            m * len(images) * rows * columns + (pad + y) * columns + (pad - x if m else pad + x)
            for (y, x), m in zip(table.crops, table.mirrored, strict=True)
        ]
        self._corners = torch.tensor(corners, device=images.device)

    def batch(self, indices: Tensor, view_ids: Tensor) -> Tensor:
        """Some of the images, each in its view.

        Args:
            indices: (B,) int64, which images.
            view_ids: (B,) int64, each one's view.

        Returns:
            (B, C, H, W), of the images' dtype, in memory with the channels last.
        """
        corners = indices * self._pixels_per_image + self._corners[view_ids]
        rows = self._rows.index_select(0, (corners[:, None] + self._row_offsets).view(-1))
        return channels_first_view(rows.view(-1, self._height, self._width * self._channels), self._channels)


def channels_first_view(rows: Tensor, channels: int) -> Tensor:
    """Rows of pixels (B, H, W · C) with the channels last as (B, C, H, W), without a copy."""
    batch, height, length = rows.shape
    if channels == 1:
        # Both layouts are one: the plain strides keep libraries from taking it for the channels-last one.
        return rows.view(batch, 1, height, length)
    return rows.view(batch, height, length // channels, channels).permute(0, 3, 1, 2)


def crop_views(padding: int, *, mirror: bool) -> ViewTable:
    """All crops of an image padded by `padding`, and with `mirror` their mirror images too.

    Returns:
        (2 · padding + 1)² views, or twice as many; view 0 is the unchanged image.
    """
    span = range(-padding, padding + 1)
    crops = sorted(((y, x) for y in span for x in span), key=lambda crop: crop != (0, 0))
    flips = (False, True) if mirror else (False,)
    return ViewTable(
        padding=padding,
        crops=tuple(crops) * len(flips),
        mirrored=tuple(flip for flip in flips for _ in crops),
    )


NO_AUGMENTATION: Final = crop_views(0, mirror=False)
VIEW_TABLES: Final[dict[str, ViewTable]] = {"digits": crop_views(1, mirror=False)}


def view_table(dataset_name: str, augmentation: str) -> ViewTable:
    """The dataset's views for `views`, the unchanged image alone for `none`."""
    return VIEW_TABLES[dataset_name] if augmentation == "views" else NO_AUGMENTATION


def num_slots(num_views: int, epochs: int) -> int:
    """How many slots a trial of `epochs` uses: one an epoch, until all views are used."""
    return min(num_views, epochs)


def views_of_slots(num_samples: int, num_views: int, slots: int, *, seed: int) -> Tensor:
    """The view of every sample in every slot.

    Args:
        num_samples: N.
        num_views: views in the table.
        slots: how many slots to draw, at most `num_views`; fewer are the first rows of more.
        seed: draws each sample's permutation.

    Returns:
        (slots, N) int64; a column's views are all different.
    """
    random = generator_from(derive_seed("views", seed))
    keys = torch.rand(num_samples, num_views, generator=random)
    return keys.argsort(dim=1, stable=True)[:, :slots].T.contiguous()


def slot_of_epoch(epoch: int, slots: int, *, data_seed: int) -> int:
    """The slot that epoch `epoch`, counted from 0, shows of every sample."""
    cycle, position = divmod(epoch, slots)
    random = generator_from(derive_seed("slots", data_seed, cycle))
    return int(torch.randperm(slots, generator=random)[position])


def batch_order(num_samples: int, *, data_seed: int, epoch: int) -> Tensor:
    """The order in which an epoch goes through the samples.

    It is drawn afresh from (data_seed, epoch), so that an epoch needs no state of the one before it.

    Returns:
        (N,) int64, a permutation.
    """
    return torch.randperm(num_samples, generator=generator_from(derive_seed("batches", data_seed, epoch)))


class Normaliser:
    """Pixels to the floats that networks take: (pixel / 255 - mean) / std, by channel.

    Args:
        mean: of each channel, of pixels in [0, 1].
        std: of each channel.
        device: where images lie.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        channel_std = torch.tensor(std, dtype=torch.float64)
        channel_mean = torch.tensor(mean, dtype=torch.float64)
        self._scale = (1 / (255 * channel_std)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-channel_mean / channel_std).float().view(1, -1, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """`images` (B, C, H, W) uint8 as float32, in the same layout of memory."""
        channels, width = images.shape[1], images.shape[3]
        if channels == 1 or not images.is_contiguous(memory_format=torch.channels_last):
            return torch.addcmul(self._shift, images.to(torch.float32), self._scale)
        # Whole rows of W · C at a time: a loop over the three channels of each pixel takes three times as long.
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
        scale, shift = (each.flatten().repeat(width) for each in (self._scale, self._shift))
        return channels_first_view(torch.addcmul(shift, rows, scale), channels)
