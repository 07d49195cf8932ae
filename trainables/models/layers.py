"""What several architectures share: stages of blocks, pooling, and how weights start.

Wherever nobody else sees a map, ReLU and the sum of a shortcut work in place: on CIFAR's maps they are bound by memory.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional


def activated_stages(
    stem: Tensor, stages: Iterable[Iterable[nn.Module]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Runs stages whose blocks leave their last ReLU to it.

    Args:
        stem: (B, C_0, H, W), activated.
        stages: each of at least one block, each block mapping activated maps to pre-activations.

    Returns:
        The maps after the stem and after each stage, (B, C_i, H_i, W_i), and the same before the last ReLU.
        The stem is activated in both, as in the literature's lists of pre-activations.
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
    """(B, C, H, W) averaged over positions to (B, C), whatever the image size."""
    return maps.mean((2, 3))


def channel_shuffle(maps: Tensor, groups: int) -> Tensor:
    """Channels (B, C, H, W) dealt out over `groups`, so that a next grouped convolution sees them all."""
    return maps.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def initialise_he(model: nn.Module, *, linear_std: float | None = None) -> None:
    """He's normal initialisation by fan-out of every convolution, as the CIFAR literature starts.

    Args:
        model: changed in place; batch norms stay at PyTorch's 1 and 0.
        linear_std: standard deviation of linear weights, with zero biases; None leaves PyTorch's.

    Source: He et al. 2015, equation 14 (its backward-propagation form).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
