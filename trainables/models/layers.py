"""Building blocks shared by several architectures: stages of blocks, pooling and initialisation.

ReLUs and shortcut sums run in place if no other module reads the map, because these operations are memory-bound on
CIFAR's maps.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional


def activated_stages(
    stem: Tensor, stages: Iterable[Iterable[nn.Module]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Run a network's stages and apply the last ReLU after every block.

    Args:
        stem: the stem's activated output, (B, C_0, H, W).
        stages: stages of one or more blocks. Each block maps activated maps to pre-activations.

    Returns:
        The maps after the stem and after each stage, (B, C_i, H_i, W_i), and the same maps before the last ReLU. The
        stem is activated in both, as in the literature's lists of pre-activations.
    """
    maps, preactivations = [stem], [stem]
    for blocks in stages:
        *inner, last = blocks
        current = maps[-1]
        for block in inner:
            current = functional.relu_(block(current))
        preactivations.append(last(current))
        maps.append(functional.relu(preactivations[-1]))
    return tuple(maps), tuple(preactivations)


def global_average(maps: Tensor) -> Tensor:
    """Average maps (B, C, H, W) over all positions to (B, C), for any image size."""
    return maps.mean((2, 3))


def channel_shuffle(maps: Tensor, groups: int) -> Tensor:
    """Interleave the channels of maps (B, C, H, W) across `groups`.

    The next grouped convolution then sees channels of every group.
    """
    return maps.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def initialise_he(model: nn.Module, *, linear_std: float | None = None) -> None:
    """Initialise every convolution with He's normal distribution by fan-out, as in the CIFAR literature.

    Args:
        model: model to initialise, in place. Batch norms keep PyTorch's 1 and 0.
        linear_std: standard deviation of linear weights, with zero biases. None keeps PyTorch's initialisation.

    Source: He et al. 2015, equation 14 (the backward-propagation form).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
