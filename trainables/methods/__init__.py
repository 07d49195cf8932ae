"""Distillation methods by name; a method is one module that defines `METHOD`, and one entry here.

Looking a name up imports its module (and torch with it); listing names imports nothing.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.methods.method import Method

_MODULES = {
    "ce": "trainables.methods.ce",
    "kd": "trainables.methods.kd",
    "pesf_kd": "trainables.methods.pesf_kd",
}


class _Methods(Mapping[str, "Method"]):
    def __getitem__(self, name: str) -> "Method":
        method: Method = import_module(_MODULES[name]).METHOD
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)

    def __contains__(self, name: object) -> bool:
        return name in _MODULES


METHODS: Mapping[str, "Method"] = _Methods()
