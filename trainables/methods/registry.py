"""Registry of distillation methods by name."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from trainables.methods.method import Method
from trainables.spec.methods import METHOD_SPECS


class MethodRegistry(Mapping[str, Method]):
    """Mapping from name to method; a lookup imports the method's module."""

    def __getitem__(self, name: str) -> Method:
        method: Method = import_module(f"trainables.methods.{METHOD_SPECS[name].name}").METHOD
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(METHOD_SPECS)

    def __len__(self) -> int:
        return len(METHOD_SPECS)

    def __contains__(self, name: object) -> bool:
        return name in METHOD_SPECS


METHODS: Final = MethodRegistry()
