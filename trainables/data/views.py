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

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainables.process.randomness import generator_from
from trainables.spec.datasets import DatasetInfo
from trainables.spec.trial import derive_seed


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
        pixels: `padded_pixels` of them, if these are at hand already; the images then only tell their shape.
        rows: (M,) int64, those of the images that are meant by 0 to M - 1; not given, all.
    """

    def __init__(
        self, images: Tensor, table: ViewTable, *, pixels: Tensor | None = None, rows: Tensor | None = None
    ) -> None:
        pad = table.padding
        if pixels is None:
            pixels = padded_pixels(images, table)
        self._chosen = rows
        self._channels, self._height, self._width = images.shape[1:]
        self.numbers_per_image = images[0].numel()
        padded_height, padded_width = pixels.shape[1:3]
        # (pixels - W + 1, W · C): from every pixel the row that begins there, without a copy. 64 windows as 64 · H
        # such rows took 0.35 of what gathering from unfolded windows takes (CIFAR's shape, one core).
        count = pixels.numel() // self._channels - self._width + 1
        self._rows = pixels.as_strided((count, self._width * self._channels), (self._channels, 1))
        self._row_offsets = torch.arange(self._height, device=pixels.device) * padded_width
        self._pixels_per_image = padded_height * padded_width
        # Cropping and then mirroring is mirroring and then cropping as far off the centre on the other side.
        corners = [
            m * len(images) * self._pixels_per_image + (pad + y) * padded_width + (pad - x if m else pad + x)
            for (y, x), m in zip(table.crops, table.mirrored, strict=True)
        ]
        self._corners = torch.tensor(corners, device=pixels.device)

    def batch(self, indices: Tensor, view_ids: Tensor) -> Tensor:
        """Some of the images, each in its view.

        Args:
            indices: (B,) int64, which images.
            view_ids: (B,) int64, each one's view.

        Returns:
            (B, C, H, W), of the images' dtype, in memory with the channels last.
        """
        if self._chosen is not None:
            indices = self._chosen[indices]
        corners = indices * self._pixels_per_image + self._corners[view_ids]
        rows = self._rows.index_select(0, (corners[:, None] + self._row_offsets).view(-1))
        return channels_first_view(rows.view(-1, self._height, self._width * self._channels), self._channels)


def padded_pixels(images: Tensor, table: ViewTable) -> Tensor:
    """Images with a table's padding, and after them, if any view is mirrored, all of them mirrored.

    Args:
        images: (N, C, H, W).
        table: the views.

    Returns:
        (N or 2 N, H + 2 · padding, W + 2 · padding, C), of the images' dtype.
    """
    count, channels, height, width = images.shape
    pad = table.padding
    copies = 2 if any(table.mirrored) else 1
    pixels = images.new_zeros(copies, count, height + 2 * pad, width + 2 * pad, channels)
    inner = pixels[0, :, pad : pad + height, pad : pad + width]
    inner.copy_(images.permute(0, 2, 3, 1))
    if copies == 2:
        pixels[1, :, pad : pad + height, pad : pad + width] = inner.flip(2)
    return pixels.view(-1, *pixels.shape[2:])


@dataclass(frozen=True)
class ResizedCropTable:
    """Windows of a larger image, resized to what networks take, mirrored or not; view 0 is its middle as it is.

    Args:
        size: height and width of a view.
        windows: for each view (top, left, height, width) in the source.
        mirrored: for each view, whether it is mirrored left to right.
    """

    size: int
    windows: tuple[tuple[int, int, int, int], ...]
    mirrored: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.windows)


class ResizedCrops:
    """Images of which batches are gathered in any view of a `ResizedCropTable`.

    Args:
        images: (N, C, H, W) uint8.
        table: the views.
        rows: (M,) int64, those of the images that are meant by 0 to M - 1.
        device: where batches are wanted; the images stay where they are.
    """

    def __init__(self, images: Tensor, table: ResizedCropTable, *, rows: Tensor, device: torch.device) -> None:
        self._images = images
        self._table = table
        self._chosen = rows
        self._device = device
        self.numbers_per_image = images.shape[1] * table.size**2

    def batch(self, indices: Tensor, view_ids: Tensor) -> Tensor:
        """Some of the images, each in its view (antialiased, bilinear).

        Args:
            indices: (B,) int64, which images.
            view_ids: (B,) int64, each one's view.

        Returns:
            (B, C, size, size) uint8, in memory with the channels last.
        """
        from torchvision.transforms.v2.functional import resized_crop  # a second, which other datasets need not wait

        size = [self._table.size, self._table.size]
        images = self._images[self._chosen[indices.cpu()]].to(self._device)
        out = torch.empty(
            len(images), images.shape[1], *size, dtype=images.dtype, device=self._device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        for view in view_ids.unique().tolist():
            shown = (view_ids == view).nonzero().flatten().to(self._device)
            views = resized_crop(images[shown], *self._table.windows[view], size, antialias=True)
            out[shown] = views.flip(-1) if self._table.mirrored[view] else views
        return out


AnyViewTable = ViewTable | ResizedCropTable
AnyViewedImages = ViewedImages | ResizedCrops


def channels_first_view(rows: Tensor, channels: int) -> Tensor:
    """Rows of pixels (B, H, W · C) with the channels last as (B, C, H, W), without a copy."""
    batch, height, length = rows.shape
    if channels == 1:
        # Both layouts are one: the plain strides keep libraries from taking it for the channels-last one.
        return rows.view(batch, 1, height, length)
    return rows.view(batch, height, length // channels, channels).permute(0, 3, 1, 2)


@functools.cache
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


# Parts of an image's area that a window may take, and its width over its height: Szegedy et al., Going Deeper with
# Convolutions (2015).
_WINDOW_AREAS: Final = (0.08, 1.0)
_WINDOW_RATIOS: Final = (3 / 4, 4 / 3)


@functools.cache
def resized_crop_views(count: int, *, source: int, size: int) -> ResizedCropTable:
    """The middle of the image, and windows of random places, areas and shapes, every other one mirrored on average.

    They are drawn once and for all: the same count and sizes always give the same table.

    Args:
        count: of views.
        source: height and width of the images.
        size: of the views.
    """
    random = generator_from(derive_seed("resized crops", count, source, size))
    edge = (source - size) // 2
    windows, mirrored = [(edge, edge, size, size)], [False]
    while len(windows) < count:
        area, log_ratio, top, left, flip = torch.rand(5, generator=random, dtype=torch.float64).tolist()
        pixels = source**2 * (_WINDOW_AREAS[0] + area * (_WINDOW_AREAS[1] - _WINDOW_AREAS[0]))
        low, high = (math.log(ratio) for ratio in _WINDOW_RATIOS)
        ratio = math.exp(low + log_ratio * (high - low))
        height, width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if max(height, width) > source:
            continue
        windows.append((int(top * (source - height + 1)), int(left * (source - width + 1)), height, width))
        mirrored.append(flip < 0.5)
    return ResizedCropTable(size, tuple(windows), tuple(mirrored))


NO_AUGMENTATION: Final = crop_views(0, mirror=False)


def view_table(info: DatasetInfo, augmentation: str) -> AnyViewTable:
    """A dataset's views for `views`, the unchanged image alone for `none`."""
    if info.resized_crops:
        count = info.resized_crops if augmentation == "views" else 1
        return resized_crop_views(count, source=info.stored_size, size=info.image_size)
    return crop_views(info.padding, mirror=info.mirrored) if augmentation == "views" else NO_AUGMENTATION


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
        (slots, N) int16; a column's views are all different.
    """
    return _views_of_slots(num_samples, num_views, seed)[:slots]


@functools.lru_cache(maxsize=2)  # drawing them takes a second for 50,000 samples of 162 views
def _views_of_slots(num_samples: int, num_views: int, seed: int) -> Tensor:
    random = generator_from(derive_seed("views", seed))
    keys = torch.rand(num_samples, num_views, generator=random)
    order = [chunk.argsort(dim=1, stable=True).to(torch.int16) for chunk in keys.split(4096)]
    return torch.cat(order).T.contiguous()


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

    Attributes:
        scale: (1, C, 1, 1) float32; a float is pixel · scale + shift.
        shift: the same.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        channel_std = torch.tensor(std, dtype=torch.float64)
        channel_mean = torch.tensor(mean, dtype=torch.float64)
        self.scale = (1 / (255 * channel_std)).float().view(1, -1, 1, 1).to(device)
        self.shift = (-channel_mean / channel_std).float().view(1, -1, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """`images` (B, C, H, W) uint8 as float32, in the same layout of memory."""
        channels, width = images.shape[1], images.shape[3]
        if channels == 1 or not images.is_contiguous(memory_format=torch.channels_last):
            return torch.addcmul(self.shift, images.to(torch.float32), self.scale)
        # Whole rows of W · C at a time: a loop over the three channels of each pixel takes three times as long.
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
        scale, shift = (each.flatten().repeat(width) for each in (self.scale, self.shift))
        return channels_first_view(torch.addcmul(shift, rows, scale), channels)
