"""Registry of distillation methods by name."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Final

from trainables.methods.method import Method
from trainables.methods.own_losses import checked_losses
from trainables.spec.methods import METHOD_SPECS, is_known_method, is_own, method_spec
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import load
from trainables.user_code.reference import canonical


class MethodRegistry(Mapping[str, Method]):
    """Mapping from name to method; a lookup imports the method's module.

    Iteration covers the registered methods. A lookup also finds a user method by canonical name.
    """

    def __getitem__(self, name: str) -> Method:
        if is_own(name):
            return _own_method(name)
        method: Method = import_module(f"trainables.methods.{METHOD_SPECS[name].name}").METHOD
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(METHOD_SPECS)

    def __len__(self) -> int:
        return len(METHOD_SPECS)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and is_known_method(name)


def _own_method(name: str) -> Method:
    """Return a user method by canonical name.

    Raises:
        UserCodeError: the code cannot be loaded, or does not define a method.
    """
    spec, method, own = method_spec(name), load(name), canonical(name)
    if not isinstance(method, Method):
        raise UserCodeError(
            f"{own.title}:{own.name} is a {type(method).__name__}, and a method must be a "
            "trainables.methods.method.Method: define it as METHOD = Method(MethodSpec(...), losses)"
        )
    return replace(method, spec=spec, losses=checked_losses(method.losses, f"{own.title}:{own.name}"))


METHODS: Final = MethodRegistry()
