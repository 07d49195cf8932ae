"""Names of code in installed packages: entry points declared by a distribution for this project.

| group | names for | object |
| --- | --- | --- |
| `pesfkd.methods` | `--method`, `--methods` | a `Method` |
| `pesfkd.models` | `--student`, `--teacher`, `--search student=` | a callable returning a network |
| `pesfkd.datasets` | `--dataset` | a callable returning a dataset |
| `pesfkd.spaces` | `--space` | a `SearchSpace` or `MethodComparison` |

A name stands for a reference `package.module:OBJECT`, declared by the entry point. The name is then treated like a
typed reference: the source is read, not imported, and kept with the study. If a package is broken or missing on a
cluster node, only studies using the package fail.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Literal

from trainables.user_code.errors import UserCodeError
from trainables.user_code.reference import looks_like_reference

Kind = Literal["method", "model", "dataset", "space"]
GROUPS: Final[dict[Kind, str]] = {
    "method": "pesfkd.methods",
    "model": "pesfkd.models",
    "dataset": "pesfkd.datasets",
    "space": "pesfkd.spaces",
}


@cache
def _declared(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def installed_names(kind: Kind) -> tuple[str, ...]:
    """Return the names declared by installed packages, sorted."""
    return tuple(sorted({each.name for each in _declared(GROUPS[kind])}))


def installed_reference(kind: Kind, name: str, *, is_ours: Callable[[str], bool]) -> str | None:
    """Return the reference for a name of an installed package, or None if no package declares the name.

    Args:
        kind: kind of object, such as a method or a dataset.
        name: name as typed.
        is_ours: whether a name belongs to this project.

    Raises:
        UserCodeError: several packages declare the name, it is also a name of this project, or the entry point names no
            object in a module.
    """
    group = GROUPS[kind]
    found = [each for each in _declared(group) if each.name == name]
    if not found:
        return None
    if is_ours(name):
        raise UserCodeError(
            f"{name!r} is a {kind} of pesfkd, and {_distributions(found)} declares it too, in {group}: ask its authors "
            f"for another name, and name it by {found[0].value} until then, or uninstall it"
        )
    if len({each.value for each in found}) > 1:
        raise UserCodeError(
            f"several packages declare the {kind} {name!r} in {group}: {_distributions(found)}; name one of them by "
            f"{' or '.join(sorted({each.value for each in found}))}, or uninstall the other"
        )
    if not looks_like_reference(found[0].value):
        raise UserCodeError(
            f"{_distributions(found)} declares the {kind} {name!r} as {found[0].value!r} in {group}, which must "
            "have the form package.module:OBJECT: ask its authors to mend it"
        )
    return found[0].value


def explain(kind: Kind, name: str, error: UserCodeError) -> UserCodeError:
    """Return an error from a package's code, with the package named."""
    found = [each for each in _declared(GROUPS[kind]) if each.name == name]
    return UserCodeError(f"{name!r} of {_distributions(found)} cannot be used: {error}")


def _distributions(found: list[EntryPoint]) -> str:
    """Return names and versions of distributions with entry points."""
    named = {f"{each.dist.name} {each.dist.version}" if each.dist is not None else each.value for each in found}
    return " and ".join(sorted(named))
