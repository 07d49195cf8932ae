"""Faster evaluation: fold each BatchNorm into the preceding convolution.

In eval mode a BatchNorm is an affine map per channel, which the preceding convolution can absorb in weight and bias.
With folding, a forward pass on one core takes 0.65 of the time for resnet20, and 0.78 for resnet32x4 (500 images of
32 × 32, float32).
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from trainables.process.randomness import generator_from

_EXACT = 1e-9  # float64, relative to the largest output


class FoldedCopy:
    """Copy of a network for evaluation, with foldable BatchNorms removed.

    Args:
        model: network to copy; it may continue to train.
        example: images of the network's input shape, (B, channels, H, W). B = 2 is enough.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._model = model
        self.pairs = _exact_pairs(model, example)
        self._copy = copy.deepcopy(model).eval().requires_grad_(False)
        _remove_norms(self._copy, self.pairs)

    @torch.no_grad()
    def current(self) -> nn.Module:
        """Return the copy, updated to the network's present weights."""
        source = self._model.state_dict()
        own = self._copy.state_dict()
        for name, tensor in own.items():
            if name in source:
                tensor.copy_(source[name])
        for conv_name, norm_name in self.pairs:
            conv, norm = self._model.get_submodule(conv_name), self._model.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            weight, bias = _folded(conv, norm)
            own[f"{conv_name}.weight"].copy_(weight)
            own[f"{conv_name}.bias"].copy_(bias)
        return self._copy


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _remove_norms(model: nn.Module, pairs: list[tuple[str, str]]) -> None:
    for conv_name, norm_name in pairs:
        conv = model.get_submodule(conv_name)
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(len(conv.weight)), requires_grad=False)
        parent, _, child = norm_name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())


def _exact_pairs(model: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Return pairs of a convolution and the only BatchNorm applied to the convolution's output, by name.

    Folding is tested on a copy in float64, with statistics far from the neutral ones of a fresh BatchNorm. The list is
    empty if folding changes the output.
    """
    trial = copy.deepcopy(model).double().eval()
    images = example.double()
    random = generator_from(0)
    for norm in trial.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats:
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                assert tensor is not None
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=random, dtype=torch.float64))
    with torch.no_grad():
        pairs = _adjacent(trial, images)
        expected = trial(images)
        for conv_name, norm_name in pairs:
            conv, norm = trial.get_submodule(conv_name), trial.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            weight, bias = _folded(conv, norm)
            conv.weight.data, conv.bias = weight, nn.Parameter(bias)
        _remove_norms(trial, pairs)
        exact = (trial(images) - expected).abs().max() <= _EXACT * expected.abs().max()
    return pairs if exact else []


class _UseCounter(TorchFunctionMode):
    """Counter of the operations on given tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[int, int] = {}  # by id of a tensor, which the caller must keep alive

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(value, Tensor) for value in tree_leaves(result)):  # skip queries, for example dim()
            for value in tree_leaves((args, kwargs)):
                if id(value) in self.counts:
                    self.counts[id(value)] += 1
        return result


def _adjacent(model: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Return pairs of a convolution and the only BatchNorm applied to the convolution's output.

    Modules that run several times in a pass are left out.
    """
    outputs: dict[str, list[Tensor]] = {}
    inputs: dict[str, list[Tensor]] = {}
    uses = _UseCounter()
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):

            def record_output(_module: nn.Module, _given: Any, output: Tensor, name: str = name) -> None:
                outputs.setdefault(name, []).append(output)
                uses.counts[id(output)] = 0

            hooks.append(module.register_forward_hook(record_output))
        elif isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats:

            def record_input(_module: nn.Module, given: tuple[Tensor], name: str = name) -> None:
                inputs.setdefault(name, []).append(given[0])

            hooks.append(module.register_forward_pre_hook(record_input))
    try:
        with uses:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (conv, norm)
        for conv, computed_outputs in outputs.items()
        for norm, given in inputs.items()
        if len(computed_outputs) == len(given) == 1
        and given[0] is computed_outputs[0]
        and uses.counts[id(given[0])] == 1
    ]
