"""Augmentation as a finite table of deterministic views, and the schedule of views over a trial's epochs.

A frozen teacher in eval mode returns the same outputs for the same view. With finitely many views, teacher outputs can
be computed once and stored. To limit this cost, a trial of E epochs uses V = min(number of views, E) *slots*:

- Slot s of sample i shows the view π_i(s). Each π_i is a permutation of all views, drawn per sample from the split
  seed. All trials share these permutations, so one table of teacher outputs by (slot, sample) serves all trials.
- Epoch e uses one slot σ(e) for all samples. σ goes through all slots before repeating one. Each trial's data seed
  draws a new slot order for every cycle.

An epoch uses a single slot, so computing the slot's outputs costs one teacher pass over the data. A live teacher costs
the same in this epoch. A trial therefore never pays for unused views.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainables.process.randomness import generator_from
from trainables.spec.datasets import DatasetInfo
from trainables.spec.trial import derive_seed


@dataclass(frozen=True)
class ViewTable:
    """Crops of the zero-padded image, optionally mirrored. View 0 is the unchanged image.

    Args:
        padding: black pixels added on every side before cropping.
        crops: offset (down, right) of each view's window from the centre in pixels, each within -padding to padding.
        mirrored: for each view, whether it is mirrored left to right after cropping.
    """

    padding: int
    crops: tuple[tuple[int, int], ...]
    mirrored: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.crops)


class ViewedImages:
    """Images in memory, padded and mirrored once, from which mini-batches are gathered in any view.

    Images are stored channels last. A row of a window is then one contiguous block of memory, and batches have the
    layout in which convolutions are fastest.

    Args:
        images: (N, C, H, W).
        table: view table.
        pixels: `padded_pixels` of the images, if already computed. Only the shape of `images` is then used.
        rows: (M,) int64, images addressed by the indices 0 to M - 1; defaults to all images.
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
        # (number of pixels - W + 1, W · C): row p holds the W pixels from pixel p on, without a copy. Gathering 64
        # windows as 64 · H rows took 0.35 times as long as gathering from unfolded windows (CIFAR shape, one core).
        count = pixels.numel() // self._channels - self._width + 1
        self._rows = pixels.as_strided((count, self._width * self._channels), (self._channels, 1))
        self._row_offsets = torch.arange(self._height, device=pixels.device) * padded_width
        self._pixels_per_image = padded_height * padded_width
        # Cropping, then mirroring, equals mirroring, then cropping with the opposite horizontal offset.
        corners = [
            m * len(images) * self._pixels_per_image + (pad + y) * padded_width + (pad - x if m else pad + x)
            for (y, x), m in zip(table.crops, table.mirrored, strict=True)
        ]
        self._corners = torch.tensor(corners, device=pixels.device)

    def batch(self, indices: Tensor, view_ids: Tensor) -> Tensor:
        """Gather images, each in the given view.

        Args:
            indices: (B,) int64, image indices.
            view_ids: (B,) int64, view per image.

        Returns:
            (B, C, H, W) same dtype as the images, channels last in memory.
        """
        if self._chosen is not None:
            indices = self._chosen[indices]
        corners = indices * self._pixels_per_image + self._corners[view_ids]
        rows = self._rows.index_select(0, (corners[:, None] + self._row_offsets).view(-1))
        return channels_first_view(rows.view(-1, self._height, self._width * self._channels), self._channels)


def padded_pixels(images: Tensor, table: ViewTable) -> Tensor:
    """Pad images for a view table. If any view is mirrored, append mirrored copies of all images.

    Args:
        images: (N, C, H, W).
        table: view table.

    Returns:
        (N or 2 N, H + 2 · padding, W + 2 · padding, C) same dtype as the images.
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
    """Windows of a larger image, resized to the model's input size, optionally mirrored. View 0 is the centre crop.

    Args:
        size: view height and width.
        windows: (top, left, height, width) of each view in the source image.
        mirrored: for each view, whether it is mirrored left to right.
    """

    size: int
    windows: tuple[tuple[int, int, int, int], ...]
    mirrored: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.windows)


class ResizedCrops:
    """Images from which mini-batches are gathered in any view of a `ResizedCropTable`.

    Args:
        images: (N, C, H, W) uint8.
        table: view table.
        rows: (M,) int64, images addressed by the indices 0 to M - 1.
        device: device for the batches; the images stay where they are.
    """

    def __init__(self, images: Tensor, table: ResizedCropTable, *, rows: Tensor, device: torch.device) -> None:
        self._images = images
        self._table = table
        self._chosen = rows
        self._device = device
        self.numbers_per_image = images.shape[1] * table.size**2

    def batch(self, indices: Tensor, view_ids: Tensor) -> Tensor:
        """Gather images, each in the given view, with antialiasing and bilinear interpolation.

        Args:
            indices: (B,) int64, image indices.
            view_ids: (B,) int64, view per image.

        Returns:
            (B, C, size, size) uint8, channels last in memory.
        """
        from torchvision.transforms.v2.functional import resized_crop  # takes a second, which other datasets avoid

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


@dataclass(frozen=True)
class OwnViewTable:
    """Views computed by user code. View 0 is the unchanged image.

    Args:
        count: number of views.
        name: canonical code name.
    """

    count: int
    name: str

    def __len__(self) -> int:
        return self.count


# Returns views of images (B, C, H, W) uint8, given the image numbers and view numbers.
ComputeViews = Callable[[Tensor, list[int], list[int]], Tensor]
# Functions of the datasets with code loaded in this process, by canonical name.
_own_views: dict[str, ComputeViews] = {}


def set_own_views(name: str, compute: ComputeViews) -> None:
    """Register the function for computing a user dataset's views."""
    _own_views[name] = compute


def own_views_of(name: str) -> ComputeViews:
    """Return the function for computing a user dataset's views. The dataset must have been loaded."""
    return _own_views[name]


class OwnViews:
    """Images from which mini-batches are gathered in any view of an `OwnViewTable`.

    Args:
        images: (N, C, H, W) uint8.
        compute: computes views, other than view 0.
        rows: (M,) int64, images addressed by the indices 0 to M - 1.
        device: device for the batches; the images stay where they are.
    """

    def __init__(
        self,
        images: Tensor,
        compute: ComputeViews,
        *,
        rows: Tensor,
        device: torch.device,
    ) -> None:
        self._images = images
        self._compute = compute
        self._chosen = rows
        self._device = device
        self.numbers_per_image = images[0].numel()

    def batch(self, indices: Tensor, view_ids: Tensor) -> Tensor:
        """Gather images, each in the given view.

        Args:
            indices: (B,) int64, image indices.
            view_ids: (B,) int64, view per image.

        Returns:
            (B, C, H, W) uint8, channels last in memory.
        """
        rows, views = self._chosen[indices.cpu()], view_ids.cpu()
        images = self._images[rows]
        changed = views.nonzero().flatten()
        if len(changed):
            images[changed] = self._compute(images[changed], rows[changed].tolist(), views[changed].tolist())
        if images.shape[1] == 1:
            return images.contiguous().to(self._device)
        return images.to(self._device, memory_format=torch.channels_last)


AnyViewTable = ViewTable | ResizedCropTable | OwnViewTable
AnyViewedImages = ViewedImages | ResizedCrops | OwnViews


def channels_first_view(rows: Tensor, channels: int) -> Tensor:
    """View rows of channels-last pixels (B, H, W · C) as (B, C, H, W), without a copy."""
    batch, height, length = rows.shape
    if channels == 1:
        # Both layouts coincide. Plain strides prevent libraries from treating the tensor as channels last.
        return rows.view(batch, 1, height, length)
    return rows.view(batch, height, length // channels, channels).permute(0, 3, 1, 2)


@functools.cache
def crop_views(padding: int, *, mirror: bool) -> ViewTable:
    """Build the table with all crops from an image padded by `padding`, with mirror images if `mirror` is set.

    Returns:
        (2 · padding + 1)² views, or twice as many with mirror images. View 0 is the unchanged image.
    """
    span = range(-padding, padding + 1)
    crops = sorted(((y, x) for y in span for x in span), key=lambda crop: crop != (0, 0))
    flips = (False, True) if mirror else (False,)
    return ViewTable(
        padding=padding,
        crops=tuple(crops) * len(flips),
        mirrored=tuple(flip for flip in flips for _ in crops),
    )


# Window area as a fraction of the image area, and window width over height. Source: Szegedy et al., Going Deeper with
# Convolutions (2015).
_WINDOW_AREAS: Final = (0.08, 1.0)
_WINDOW_RATIOS: Final = (3 / 4, 4 / 3)


@functools.cache
def resized_crop_views(count: int, *, source: int, size: int) -> ResizedCropTable:
    """Build a table of the centre crop and of random windows with random position, area and aspect ratio.

    Each random window is mirrored with probability 1/2. The same arguments always give the same table.

    Args:
        count: number of views.
        source: height and width of source images.
        size: view height and width.
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
    """Return the dataset's view table for the augmentation `views`, or only the unchanged image for `none`."""
    if info.own_views and augmentation == "views":
        return OwnViewTable(info.own_views, info.name)
    if info.resized_crops:
        count = info.resized_crops if augmentation == "views" else 1
        return resized_crop_views(count, source=info.stored_size, size=info.image_size)
    return crop_views(info.padding, mirror=info.mirrored) if augmentation == "views" else NO_AUGMENTATION


def num_slots(num_views: int, epochs: int) -> int:
    """Return the number of slots used in `epochs` epochs: one per epoch, at most the number of views."""
    return min(num_views, epochs)


def views_of_slots(num_samples: int, num_views: int, slots: int, *, seed: int) -> Tensor:
    """Return every sample's view in every slot.

    Args:
        num_samples: sample count N.
        num_views: number of views in the table.
        slots: number of slots, at most `num_views`. Fewer slots give a prefix of the same rows.
        seed: draws each sample's permutation.

    Returns:
        (slots, N) int16; all views in a column differ.
    """
    return _views_of_slots(num_samples, num_views, seed)[:slots]


@functools.lru_cache(maxsize=2)  # drawing takes a second for 50,000 samples of 162 views
def _views_of_slots(num_samples: int, num_views: int, seed: int) -> Tensor:
    random = generator_from(derive_seed("views", seed))
    keys = torch.rand(num_samples, num_views, generator=random)
    order = [chunk.argsort(dim=1, stable=True).to(torch.int16) for chunk in keys.split(4096)]
    return torch.cat(order).T.contiguous()


def slot_of_epoch(epoch: int, slots: int, *, data_seed: int) -> int:
    """Return the slot for all samples in epoch `epoch`, counted from 0."""
    cycle, position = divmod(epoch, slots)
    random = generator_from(derive_seed("slots", data_seed, cycle))
    return int(torch.randperm(slots, generator=random)[position])


def batch_order(num_samples: int, *, data_seed: int, epoch: int) -> Tensor:
    """Draw the sample order in an epoch.

    The order depends only on (data_seed, epoch), so an epoch needs no state from earlier epochs.

    Returns:
        (N,) int64, a permutation.
    """
    return torch.randperm(num_samples, generator=generator_from(derive_seed("batches", data_seed, epoch)))


class Normaliser:
    """Conversion of pixels to model inputs, (pixel / 255 - mean) / std per channel.

    Args:
        mean: mean per channel, for pixels in [0, 1].
        std: standard deviation per channel, for pixels in [0, 1].
        device: device for the images.

    Attributes:
        scale: (1, C, 1, 1) float32; the result is pixel · scale + shift.
        shift: (1, C, 1, 1) float32.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        channel_std = torch.tensor(std, dtype=torch.float64)
        channel_mean = torch.tensor(mean, dtype=torch.float64)
        self.scale = (1 / (255 * channel_std)).float().view(1, -1, 1, 1).to(device)
        self.shift = (-channel_mean / channel_std).float().view(1, -1, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise images (B, C, H, W) uint8 to float32, with the memory layout unchanged."""
        channels, width = images.shape[1], images.shape[3]
        if channels == 1 or not images.is_contiguous(memory_format=torch.channels_last):
            return torch.addcmul(self.shift, images.to(torch.float32), self.scale)
        # Process whole rows of W · C values. A loop over the three channels of each pixel takes three times as long.
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
        scale, shift = (each.flatten().repeat(width) for each in (self.scale, self.shift))
        return channels_first_view(torch.addcmul(shift, rows, scale), channels)
