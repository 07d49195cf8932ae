"""User networks: `make(num_classes=..., in_channels=...)` in a file, split into feature and head.

`trainables.models.user_model_check` checks a user network before a study starts.
"""

import copy
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from trainables.display.nearest import did_you_mean
from trainables.models.interface import DistillationModel, StageOutputs
from trainables.process.randomness import generator_from, seeded
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import describe, load_callable
from trainables.user_code.reference import canonical

_NAME_THE_HEAD: Final = 'name the last linear layer by an attribute of the module, such as self.head = "fc"'
# The data's size is unknown here. Which layer is last does not depend on it.
_SIZES: Final = (32, 28, 64, 8, 16, 48, 96, 128, 224, 256)
_MOST_NAMED: Final = 6


class UserModel(DistillationModel):
    """User network, with the last linear layer taken out.

    Args:
        network: the network; each occurrence of the head is replaced by an identity.
        head: last linear layer.
        head_paths: the head's names in the network; several if it has several names.
        stage_names: names of the stage modules. Their outputs are the stage maps. The stem's map is the input of the
            first stage module.
    """

    def __init__(
        self, network: nn.Module, head: nn.Linear, *, head_paths: Sequence[str], stage_names: Sequence[str] = ()
    ) -> None:
        super().__init__()
        for path in head_paths:
            parent, _, attribute = path.rpartition(".")
            setattr(network.get_submodule(parent), attribute, nn.Identity())
        self.network = network
        self._head = head
        self._head_paths = tuple(head_paths)
        self.stage_names = tuple(stage_names)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self._head

    @property
    def head_path(self) -> str:
        """The head's name in the user's network."""
        return self._head_paths[0]

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate feature (B, D)."""
        feature: Tensor = self.network(images)
        return feature

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the first named stage's input, all stage outputs, and the feature (B, D)."""
        if not self.stage_names:
            return StageOutputs((), (), self.features(images))
        with recorded_stages(self.network, self.stage_names) as passed:
            feature = self.features(images)
        maps = (passed[0].given, *(each.output for each in passed))
        return StageOutputs(maps, maps, feature)

    def resume(self, index: int, maps: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse to run a part of the network, because only the whole network can run."""
        raise ValueError("a network of your own cannot resume from the output of a stage: choose another method")

    def own_key(self, key: str) -> str:
        """Map a key of the user's network to ours: `fc.weight` to `_head.weight`, all others to `network.KEY`."""
        for path in self._head_paths:
            if key.startswith(f"{path}."):
                return f"_head.{key.removeprefix(f'{path}.')}"
        return f"network.{key}"


class Passed(NamedTuple):
    """Input and output tensors of a stage."""

    given: Tensor
    output: Tensor


@contextmanager
def recorded_stages(network: nn.Module, names: Sequence[str]) -> Iterator[list[Passed]]:
    """Record the passes through the named modules within the block, in name order.

    The hooks exist only within the block, so copies of the network have none.

    Raises:
        ValueError: a module did not run exactly once, or gave no tensor.
    """
    seen: dict[str, list[Passed]] = {name: [] for name in names}
    ordered: list[Passed] = []

    def hook_of(name: str) -> Any:
        def record(_module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            first = next(iter(given), None)
            if not isinstance(first, Tensor) or not isinstance(output, Tensor):
                raise ValueError(f"stage {name!r} maps no tensor to a tensor")
            seen[name].append(Passed(first, output))

        return record

    hooks = [network.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    try:
        yield ordered
    finally:
        for hook in hooks:
            hook.remove()
    for name, passes in seen.items():
        if len(passes) != 1:
            raise ValueError(f"stage {name!r} runs {len(passes)} times in a pass: name modules that run once")
    ordered += [passes[0] for passes in seen.values()]


def build_user_model(name: str, *, num_classes: int, in_channels: int) -> DistillationModel:
    """Build a user network, with weights from torch's global generator.

    Args:
        name: canonical name of the callable.
        num_classes: number of classes, C.
        in_channels: image channels.

    Raises:
        UserCodeError: the callable cannot be loaded or called, or returns no network with a last linear layer.
    """
    network = call_maker(name, num_classes=num_classes, in_channels=in_channels)
    if isinstance(network, DistillationModel):
        return network
    what = canonical(name).name
    stages = _stage_names(network, what)  # read before the head is replaced
    paths = _head_paths(network, what, num_classes=num_classes, in_channels=in_channels)
    head = network.get_submodule(paths[0])
    assert isinstance(head, nn.Linear)
    return UserModel(network, head, head_paths=paths, stage_names=stages).train()


def call_maker(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Call the user's callable, and return the network in train mode.

    Raises:
        UserCodeError: the callable cannot be loaded or called, or returns no network in float32 on the CPU.
    """
    with seeded(0):  # random draws on import must not change the caller's draws
        make = load_callable(name)
    own = canonical(name)
    given = {"num_classes": num_classes, "in_channels": in_channels}
    called = f"{own.name}(num_classes={num_classes}, in_channels={in_channels})"
    try:
        inspect.signature(make).bind(**given)
    except TypeError as error:
        raise UserCodeError(
            f"{own.title}: {own.name}{_signature(make)} cannot be called as {called} ({error}): let it take "
            "num_classes and in_channels"
        ) from None
    except ValueError:  # builtins without a signature
        pass
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            network = make(**given)
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{called} raised an error:\n{describe(error)}") from None
    _check_network(network, called)
    return network.train()


def _signature(make: Any) -> str:
    try:
        return str(inspect.signature(make))
    except ValueError:
        return "(...)"


def _check_network(network: Any, called: str) -> None:
    if not isinstance(network, nn.Module):
        extra = " (the class itself: call it)" if isinstance(network, type) else ""
        raise UserCodeError(f"{called} returned a {type(network).__name__}{extra}; return a torch.nn.Module")
    if isinstance(network, torch.jit.ScriptModule):
        raise UserCodeError(f"{called} returned a scripted module; return the torch.nn.Module before torch.jit")
    if isinstance(network, nn.DataParallel) or type(network).__module__.startswith("torch._dynamo"):
        raise UserCodeError(f"{called} returned a {type(network).__name__} around a module; return the module itself")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            raise UserCodeError(f"{called}: {name} has no size yet; give the sizes instead of using lazy layers")
        if tensor.device.type != "cpu":
            raise UserCodeError(
                f"{called}: {name} is on {tensor.device}; build the network on the CPU, it is moved later"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise UserCodeError(
                f"{called}: {name} is {tensor.dtype}; build the network in float32, and choose with --precision"
            )
        if tensor.is_complex() or tensor.is_quantized:
            raise UserCodeError(f"{called}: {name} is {tensor.dtype}; weights must be float32")
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserCodeError(
                f"{called}: {name} is a {type(value).__name__} in the state dict; files hold tensors alone"
            )


def _head_paths(network: nn.Module, what: str, *, num_classes: int, in_channels: int) -> list[str]:
    """Return all names of the last linear layer in a network."""
    if isinstance(network, nn.Linear):
        raise UserCodeError(f"{what} returned a single linear layer; put it into a module, as in nn.Sequential")
    named = getattr(network, "head", None)
    if isinstance(named, str):
        head = _named_head(network, named, what)
    else:
        head = _found_head(network, what, num_classes=num_classes, in_channels=in_channels)
    if head.out_features != num_classes:
        raise UserCodeError(
            f"the last linear layer of {what} gives {head.out_features} logits, and the data have {num_classes} "
            "classes: build it with num_classes"
        )
    return [path for path, module in network.named_modules(remove_duplicate=False) if module is head]


def _named_head(network: nn.Module, path: str, what: str) -> nn.Linear:
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    try:
        head = network.get_submodule(path)
    except AttributeError:
        hint = did_you_mean(path, linears, repr)
        raise UserCodeError(f'{what}: head = "{path}" names no module{hint} {_listed(linears)}') from None
    if not path or not isinstance(head, nn.Linear):
        raise UserCodeError(f'{what}: head = "{path}" is a {type(head).__name__}, not an nn.Linear. {_listed(linears)}')
    return head


def _listed(linears: Sequence[str]) -> str:
    if not linears:
        return "The network has no linear layer"
    more = ", ..." if len(linears) > _MOST_NAMED else ""
    return f"Linear layers: {', '.join(linears[-_MOST_NAMED:])}{more}"


def _found_head(network: nn.Module, what: str, *, num_classes: int, in_channels: int) -> nn.Linear:
    """Find the last linear layer: the only one with as many outputs as classes, or the one with the model's output."""
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    fitting = {name: module for name, module in linears.items() if module.out_features == num_classes}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if not fitting:
        sizes = ", ".join(f"{name} ({module.out_features})" for name, module in [*linears.items()][-_MOST_NAMED:])
        raise UserCodeError(
            f"the network of {what} has no nn.Linear with {num_classes} outputs, one per class, as distillation needs "
            f"for the penultimate feature. Linear layers: {sizes or 'none'}"
        )
    found = _last_in_a_pass(network, [*fitting], in_channels=in_channels)
    if found is None:
        raise UserCodeError(
            f"the network of {what} has several linear layers with {num_classes} outputs ({', '.join(fitting)}), and "
            f"it did not show which of them gives the logits: {_NAME_THE_HEAD}"
        )
    return fitting[found]


@torch.no_grad()
def _last_in_a_pass(network: nn.Module, names: Sequence[str], *, in_channels: int) -> str | None:
    """Return the named layer with the same output as the network, or None."""
    for size in _SIZES:
        trial = copy.deepcopy(network).eval()
        outputs: dict[str, Any] = {}
        for name in names:
            trial.get_submodule(name).register_forward_hook(partial(_keep_output, outputs, name))
        images = torch.randn(2, in_channels, size, size, generator=generator_from(0))
        try:
            with seeded(0):
                logits = trial(images)
        except Exception:  # noqa: S112 - the network takes other sizes; all errors of it are reported by the check
            continue
        if isinstance(logits, Tensor):
            return next((name for name, each in outputs.items() if torch.equal(each, logits)), None)
        return None
    return None


def _keep_output(outputs: dict[str, Any], name: str, _module: nn.Module, _given: Any, output: Any) -> None:
    outputs[name] = output


def _stage_names(network: nn.Module, what: str) -> tuple[str, ...]:
    """Return the names in the attribute `stages`; an attribute of another kind, such as a module, names none."""
    names = getattr(network, "stages", None)
    if isinstance(names, str):
        raise UserCodeError(f'{what}: stages = "{names}" is a single name; give a list, such as ["{names}"]')
    if not isinstance(names, list | tuple) or not names:
        return ()
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if not isinstance(name, str):
            raise UserCodeError(f"{what}: stages has a {type(name).__name__}; give names of modules, such as 'layer1'")
        if name not in known:
            hint = did_you_mean(name, known, repr) or f". Modules: {', '.join(known[:_MOST_NAMED])}"
            raise UserCodeError(f"{what}: stages names no module {name!r}{hint}")
    if len(set(names)) < len(names):
        raise UserCodeError(f"{what}: stages names a module twice: {', '.join(names)}")
    return tuple(names)
