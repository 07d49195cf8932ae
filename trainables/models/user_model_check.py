"""Checks of a user network on noise samples, before a study starts.

A network is accepted if it can be distilled and if trials are reproducible to the bit. Equal seeds must give equal
weights and equal passes. Passes in eval mode must use no random numbers. In train and in eval mode, the logits must be
the last linear layer's output for the penultimate feature.
"""

import copy
import sys
from contextlib import nullcontext, redirect_stdout
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from trainables.models.interface import DistillationModel
from trainables.models.user_model import UserModel, build_user_model, call_maker, recorded_stages
from trainables.process.global_generators import misuse_of_generators, use_of_generators
from trainables.process.randomness import seeded
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import describe
from trainables.user_code.reference import canonical

_SEED: Final = 40_961  # unlikely to be set by anyone
_ANOTHER_SEED: Final = 1
_DRAW_BY_TORCH: Final = "draw by torch's global generator, and leave its seed as it is"


def user_model_problem(name: str, samples: Tensor, *, num_classes: int, trains: bool) -> str | None:
    """Return why a user network cannot be used, or None if it can.

    Args:
        name: the callable's canonical name.
        samples: (B, channels, H, W), two or more.
        num_classes: number of classes, C.
        trains: whether the network is trained, rather than only evaluated.
    """
    with torch.no_grad(), redirect_stdout(sys.stderr):  # stdout is for results
        try:
            return _problem(name, samples, num_classes, trains=trains)
        except UserCodeError as error:
            return str(error)


def _problem(name: str, samples: Tensor, num_classes: int, *, trains: bool) -> str | None:
    shape = {"num_classes": num_classes, "in_channels": samples.shape[1]}
    with seeded(_SEED):
        network = call_maker(name, **shape)
        if torch.initial_seed() != _SEED:
            return (
                f"{canonical(name).name} sets torch's seed, so all seeds of a study would begin with equal "
                "weights: leave out torch.manual_seed"
            )
    with seeded(_SEED):
        again = call_maker(name, **shape)
    if not _equal(network.state_dict(), again.state_dict()):
        return (
            f"{canonical(name).name} returns other weights for the same seed, so no trial could run again: draw "
            "them by torch's global generator alone, and load files in full"
        )
    built = use_of_generators(lambda: call_maker(name, **shape))
    if misuse := misuse_of_generators(built, remedy=_DRAW_BY_TORCH, resets=False):
        return f"{canonical(name).name} {misuse}"
    try:
        copy.deepcopy(network)
    except Exception as error:  # of any attribute
        return f"it cannot be copied, as its evaluation needs ({type(error).__name__}: {error}): leave out what cannot"
    if trains and not any(each.requires_grad for each in network.parameters()):
        return "it has no parameter that could be trained"
    for training in (True, False) if trains else (False,):
        reason = _wrong_pass(network, samples, num_classes, training=training)
        if reason is not None:
            return f"in {_mode(training)} mode {reason}"
        used = use_of_generators(partial(_pass, network, samples, training=training, seed=None))
        if misuse := misuse_of_generators(used, remedy=_DRAW_BY_TORCH):
            return f"in {_mode(training)} mode it {misuse}"
    if trains and (changed := _changed_numbers(network, samples)):
        return (
            f"{' and '.join(changed)} changes in a pass, and a checkpoint would not have it: register it as a buffer, "
            "or leave it out"
        )
    with seeded(_SEED):
        split = build_user_model(name, **shape)
    if isinstance(split, UserModel):
        return _wrong_head(split, network, samples, trains=trains) or _wrong_stages(split, samples)
    return None


def _mode(training: bool) -> str:
    return "train" if training else "eval"


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, rtol=0.0, atol=0.0, equal_nan=True)


def _pass(model: nn.Module, samples: Tensor, *, training: bool, seed: int | None = 0) -> object:
    """Return the output of a network copy.

    Args:
        model: the network.
        samples: (B, channels, H, W).
        training: whether in train mode.
        seed: seed of torch's global generators; None to use them as they are.

    Raises:
        UserCodeError: the network raised an error; the message has the user's traceback.
    """
    trial = copy.deepcopy(model).train(training)
    try:
        with nullcontext() if seed is None else seeded(seed):
            return trial(samples.clone())
    except (Exception, SystemExit) as error:
        shape = " x ".join(map(str, samples.shape))
        raise UserCodeError(f"in {_mode(training)} mode it fails on images ({shape}):\n{describe(error)}") from None


def _wrong_pass(network: nn.Module, samples: Tensor, classes: int, *, training: bool) -> str | None:
    """Return the problem with a network's output, or None."""
    logits = _pass(network, samples, training=training)
    expected = (len(samples), classes)
    if not isinstance(logits, Tensor):
        which = "" if not isinstance(logits, tuple | list | dict) else f" of {len(logits)}"
        return f"it returns a {type(logits).__name__}{which}; return the logits {expected} alone, as one tensor"
    if tuple(logits.shape) != expected:
        what = (
            f"build it with num_classes = {classes}"
            if logits.ndim == 2 and len(logits) == len(samples)
            else "return one row of logits per image"
        )
        return f"its logits have shape {tuple(logits.shape)} instead of {expected}: {what}"
    if logits.dtype != torch.float32:
        return f"its logits are {logits.dtype}, and must be torch.float32"
    if not bool(logits.isfinite().all()):
        return "its logits are not finite"
    again = _pass(network, samples, training=training, seed=0 if training else _ANOTHER_SEED)
    if not (isinstance(again, Tensor) and torch.equal(logits, again)):
        return (
            "two passes with the same seed differ, so no trial could run again: draw by torch's global generator alone"
            if training
            else "two passes over the same images differ: give training=self.training to functional.dropout, and draw "
            "nothing in eval mode"
        )
    if not training and not _is_rowwise(network, samples):
        return "its logits have another shape for a single image than for two: keep the first dimension"
    return None


def _changed_numbers(network: nn.Module, samples: Tensor) -> list[str]:
    """Return the names of plain numbers in a network's modules changed by a pass in train mode."""
    trial = copy.deepcopy(network).train()
    before = _numbers_in(trial)
    with seeded(0):
        trial(samples.clone())
    after = _numbers_in(trial)
    return [name for name in after if before.get(name) != after[name]]


def _numbers_in(network: nn.Module) -> dict[str, float]:
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in network.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float)
    }


def _is_rowwise(network: nn.Module, samples: Tensor) -> bool:
    one = _pass(network, samples[:1], training=False)
    return isinstance(one, Tensor) and one.ndim == 2 and len(one) == 1


def _wrong_head(split: UserModel, network: nn.Module, samples: Tensor, *, trains: bool) -> str | None:
    """Return why the network's logits differ from the last linear layer's output, or None if they are equal."""
    for training in (True, False) if trains else (False,):
        expected = _pass(network, samples, training=training)
        try:
            trial = copy.deepcopy(split).train(training)
            with seeded(0):
                feature = trial.features(samples.clone())
            fits = isinstance(feature, Tensor) and tuple(feature.shape) == (len(samples), split.head.in_features)
            logits = trial.head(feature) if fits else None
            reason = "" if fits else f", whose input would be {_describe(feature)}"
        except Exception as error:  # the network uses the layer for more than the call
            logits, reason = None, f" (without it the network fails: {type(error).__name__}: {error})"
        assert isinstance(expected, Tensor)
        if logits is None or not torch.equal(logits, expected):
            return (
                f"in {_mode(training)} mode its output is not that of the linear layer {split.head_path!r} for one "
                f"feature per image{reason}. The last linear layer must be used once, and its output returned "
                "unchanged, without softmax or scale. If another layer is the last one, name it on the module, such as "
                'self.head = "fc"'
            )
    return None


def _describe(feature: object) -> str:
    return f"of shape {tuple(feature.shape)}" if isinstance(feature, Tensor) else f"a {type(feature).__name__}"


def _wrong_stages(split: UserModel, samples: Tensor) -> str | None:
    """Return why the named stages' outputs are no maps, or None if they are."""
    if not split.stage_names:
        return None
    trial = copy.deepcopy(split).eval()
    try:
        with recorded_stages(trial.network, split.stage_names) as passed, seeded(0):
            versions = _watch_versions(trial.network, split.stage_names)
            trial.features(samples.clone())
    except ValueError as error:
        return f"it cannot give the maps in stages: {error}"
    named = [("the input of " + repr(split.stage_names[0]), passed[0].given)]
    named += [(repr(name), each.output) for name, each in zip(split.stage_names, passed, strict=True)]
    for name, maps in named:
        if maps.ndim != 4 or len(maps) != len(samples):
            return (
                f"stages: {name} has shape {tuple(maps.shape)}, and maps are (B, C, H, W): name modules that give "
                "feature maps of images"
            )
    for name, maps in named:
        if maps._version != versions[id(maps)]:
            return (
                f"stages: {name} is changed in place after the stage: use inplace=False there, or name a later module"
            )
    return None


def _watch_versions(network: nn.Module, names: tuple[str, ...]) -> dict[int, int]:
    """Return a dict, to be filled by a pass with each map's version, by id, at the time of the layer's output."""
    versions: dict[int, int] = {}

    def note_input(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        versions.setdefault(id(given[0]), given[0]._version)

    def note_output(_module: nn.Module, _given: object, output: Tensor) -> None:
        versions.setdefault(id(output), output._version)

    network.get_submodule(names[0]).register_forward_pre_hook(note_input)
    for name in names:
        network.get_submodule(name).register_forward_hook(note_output)
    return versions


def has_stages(model: DistillationModel) -> bool:
    """Return whether a network gives stage maps."""
    return not isinstance(model, UserModel) or bool(model.stage_names)
