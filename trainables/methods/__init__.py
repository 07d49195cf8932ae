"""Distillation methods by name; a method is one module that defines `METHOD`, and one entry here.

Looking a name up imports its module (and torch with it); listing names and reading entries imports nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trainables.methods.method import Method

_DISTILLATION = frozenset({"ce_weight", "kd_weight", "temperature"})
_ADAPTER = frozenset(
    {
        "adapter_ce_weight",
        "adapter_kind",
        "adapter_width",
        "adapter_init",
        "detach_adapter_target",
        "adapter_learning_rate",
        "adapter_momentum",
        "adapter_weight_decay",
        "adapter_schedule",
    }
)


@dataclass(frozen=True)
class MethodEntry:
    """What is known of a method before its module is imported.

    Args:
        module: defines `METHOD`.
        fields: fields of a trial's config that this method reads and others may not.
        has_adapter: whether an adapter is trained beside the student.
        needs_teacher: whether the student is taught by a teacher.
    """

    module: str
    fields: frozenset[str] = frozenset()
    has_adapter: bool = False
    needs_teacher: bool = True


_ENTRIES: Final = {
    "ce": MethodEntry("trainables.methods.ce", needs_teacher=False),
    "kd": MethodEntry("trainables.methods.kd", _DISTILLATION),
    "pesf_kd": MethodEntry("trainables.methods.pesf_kd", _DISTILLATION | _ADAPTER, has_adapter=True),
}


class MethodRegistry(Mapping[str, "Method"]):
    """Methods by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> "Method":
        method: Method = import_module(_ENTRIES[name].module).METHOD
        return method

    def __iter__(self) -> Iterator[str]:
        return iter(_ENTRIES)

    def __len__(self) -> int:
        return len(_ENTRIES)

    def __contains__(self, name: object) -> bool:
        return name in _ENTRIES

    def entry(self, name: str) -> MethodEntry:
        """What is known of a method without importing it."""
        return _ENTRIES[name]


METHODS: Final = MethodRegistry()
