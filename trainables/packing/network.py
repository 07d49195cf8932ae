"""Several students of one architecture, as one network with K times the channels and grouped convolutions.

Channels of a map are ordered by trial, (B, K · C, H, W). Channelwise operations and the layers below keep trials
separate: no value of a trial affects another trial, not even a non-finite value.

`torch.vmap` over `torch.func.functional_call` with `stack_module_state` computes the same. On one core, its forward and
backward pass took 2.7 times as long as the packed network (median of n = 60 rounds alternating both, 20 passes each; K
= 8 students cnn_3_4, 64 images of 8 × 8 in common, float32, torch 2.15).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models import DistillationModel
from trainables.models.bottleneck_resnet import BottleneckBlock, BottleneckResNet
from trainables.models.cnn import SmallCNN
from trainables.models.mobilenet import InvertedResidual, MobileNetV2
from trainables.models.resnet import BasicBlock, ResNet, ZeroPad, ZeroPadResNet
from trainables.models.vgg import VGG
from trainables.models.wide_resnet import PreActivationBlock, WideResNet, WideStage

# Modules that mix channels only in their layers. ShuffleNets are missing, because they permute channels of a whole map.
_CHANNELWISE: Final = (
    BasicBlock, BottleneckBlock, BottleneckResNet, InvertedResidual, MobileNetV2, PreActivationBlock, ResNet, SmallCNN,
    VGG, WideResNet, WideStage, ZeroPad, ZeroPadResNet, nn.Identity, nn.ModuleList, nn.ReLU, nn.Sequential,
)  # fmt: skip


class PackingError(ValueError):
    """Trials cannot be packed."""


class GroupedConv2d(nn.Module):
    """K convolutions as one grouped convolution, on separate groups of channels or on shared images.

    Args:
        alone: one convolution, for the settings.
        count: K.
        weight: (K · out, in / groups, height, width).
        bias: (K · out,), or None.
    """

    def __init__(self, alone: nn.Conv2d, count: int, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._own_channels, self._own_groups, self._groups = alone.in_channels, alone.groups, count * alone.groups
        self._stride, self._dilation = alone.stride, alone.dilation
        self._padding: Any = alone.padding
        self._weight, self._bias = weight, bias

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, K · in, H, W), or shared images (B, in, H, W), to (B, K · out, H', W')."""
        groups = self._own_groups if maps.shape[1] == self._own_channels else self._groups
        return functional.conv2d(maps, self._weight, self._bias, self._stride, self._padding, self._dilation, groups)


class SideBySideBatchNorm2d(nn.Module):
    """K BatchNorms as one, which is exact because statistics are computed per channel.

    Args:
        alone: one BatchNorm, for the settings.
        weight: (K · C,).
        bias: (K · C,).
        mean: (K · C,), running mean.
        variance: (K · C,), running variance.
    """

    def __init__(self, alone: nn.BatchNorm2d, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self._affine, self._statistics = (weight, bias), (mean, variance)
        assert alone.momentum is not None
        self._momentum, self._eps = alone.momentum, alone.eps

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise (B, K · C, H, W) per channel."""
        return functional.batch_norm(
            maps, *self._statistics, *self._affine, self.training, self._momentum, self._eps
        )  # fmt: skip


class GroupedZeroPad(nn.Module):
    """K zero-padded shortcuts as one: zero channels are added on both sides of each group.

    Args:
        alone: one shortcut, for the settings.
        count: K.
    """

    def __init__(self, alone: ZeroPad, count: int) -> None:
        super().__init__()
        self._count, self._stride, self._padding = count, alone.stride, (alone.before, alone.after)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, K · in, H, W) to (B, K · out, H / stride, W / stride)."""
        sampled = maps[:, :, :: self._stride, :: self._stride].unflatten(1, (self._count, -1))
        return functional.pad(sampled, (0, 0, 0, 0, *self._padding)).flatten(1, 2)


class BatchedLinear(nn.Module):
    """K linear layers as one batched matrix product.

    Args:
        count: K.
        weight: (K · out, in).
        bias: (K · out,), or None.
    """

    def __init__(self, count: int, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._count, self._weight, self._bias = count, weight, bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, K · in) to (K, B, out)."""
        columns = self._weight.unflatten(0, (self._count, -1)).mT
        rows = inputs.unflatten(1, (self._count, -1)).transpose(0, 1)
        if self._bias is None:
            return torch.bmm(rows, columns)
        return torch.baddbmm(self._bias.view(self._count, 1, -1), rows, columns)


class PackedNetwork:
    """K students as one network.

    Args:
        students: students with one architecture. The buffers are moved to memory shared with the packed network.
        parameters: graph leaves by name, each the concatenated parameters of all students.

    Attributes:
        model: network with feature (B, K · D) and a head with output (K, B, C).
    """

    def __init__(self, students: Sequence[DistillationModel], parameters: Mapping[str, Tensor]) -> None:
        self.count = len(students)
        self._counters: list[Tensor] = []
        self._tensors = dict(parameters) | self._join_buffers(students)
        first = students[0]
        kept: dict[int, Any] = {id(each): each for each in (*first.parameters(), *first.buffers())}
        self.model = copy.deepcopy(first, kept)  # shares the tensors
        for name, module in list(self.model.named_modules()):
            packed = self._packed(name, module)
            if packed is not None:
                parent, _, attribute = name.rpartition(".")
                self.model.get_submodule(parent)._modules[attribute] = packed

    def begin_batch(self) -> None:
        """Increase each BatchNorm's count of training batches."""
        for counter in self._counters:
            counter += 1

    def _join_buffers(self, students: Sequence[DistillationModel]) -> dict[str, Tensor]:
        joined: dict[str, Tensor] = {}
        names = [name for name, _ in students[0].named_buffers()]
        counters = [name for name in names if name.endswith("num_batches_tracked")]
        if counters:
            numbers = torch.stack([torch.stack([each.get_buffer(n) for n in counters]) for each in students])
            self._counters.append(numbers)
            for student, row in zip(students, numbers, strict=True):
                for name, number in zip(counters, row, strict=True):
                    set_buffer(student, name, number)
        for name in (name for name in names if name not in counters):
            joined[name] = torch.cat([student.get_buffer(name) for student in students])
            for student, part in zip(students, joined[name].chunk(len(students)), strict=True):
                set_buffer(student, name, part)
        return joined

    def _packed(self, name: str, module: nn.Module) -> nn.Module | None:
        """Return the packed version of a layer; None for a module to keep unchanged."""
        get = self._tensors.get
        weight, bias = get(f"{name}.weight"), get(f"{name}.bias")
        if isinstance(module, nn.Conv2d):
            assert weight is not None
            return GroupedConv2d(module, self.count, weight, bias)
        if isinstance(module, nn.BatchNorm2d):
            mean, variance = get(f"{name}.running_mean"), get(f"{name}.running_var")
            assert weight is not None
            assert bias is not None
            assert mean is not None
            assert variance is not None
            return SideBySideBatchNorm2d(module, weight, bias, mean, variance)
        if isinstance(module, nn.Linear):
            assert weight is not None
            return BatchedLinear(self.count, weight, bias)
        if isinstance(module, ZeroPad):
            return GroupedZeroPad(module, self.count)
        return None


def check_packable(student: DistillationModel, architecture: str) -> None:
    """Check that several students of this architecture can be packed.

    Raises:
        PackingError: with the first module not suitable for packing.
    """
    for name, module in student.named_modules():
        fits = type(module) in _CHANNELWISE
        if type(module) is nn.Conv2d:
            fits = module.padding_mode == "zeros"
        elif type(module) is nn.BatchNorm2d:
            fits = module.affine and module.track_running_stats and module.momentum is not None
        elif type(module) is nn.Linear:
            fits = module is student.head
        if not fits:
            where = f"its module {name!r} is a" if name else "it is a"
            raise PackingError(
                f"students of architecture {architecture!r} cannot be packed: {where} {type(module).__name__}, of "
                "which it is not known that it keeps channels apart. Run these trials alone, without packing"
            )


def set_buffer(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Set the buffer with a dotted name to `tensor`."""
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, tensor)
