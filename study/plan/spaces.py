"""Search spaces for a study: the project's own, and spaces in a user's file or package."""

import re
from collections.abc import Sequence
from typing import Final

from search_spaces import Bounds, MethodComparison, Parameter, SearchSpace, find_space
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import load
from trainables.user_code.reference import canonical, is_canonical

_UNUSUAL: Final = re.compile("[^A-Za-z0-9._-]+")
_LONGEST_NAME: Final = 60


def space_named(name: str, *, text: bool = False) -> SearchSpace | MethodComparison:
    """Return the search space or method comparison with a name.

    Args:
        name: name of a project space, or canonical name of a user space, as in `my_space.py:SPACE@0123456789abcdef`.
        text: whether to return the version for text. A user space has one version.

    Raises:
        ValueError: the name is unknown, or the user's code does not define a space.
    """
    if not is_canonical(name):
        return find_space(name, text=text)
    found, own = load(name), canonical(name)
    if isinstance(found, SearchSpace | MethodComparison):
        return found
    what = found.__name__ if isinstance(found, type) else f"a {type(found).__name__}"
    raise UserCodeError(
        f"{own.title}:{own.name} is {what}, and a space must be a search_spaces.SearchSpace, or a "
        "search_spaces.MethodComparison: name such an object"
    )


def typed_space(name: str) -> str:
    """Return a space name without the source digest, for messages."""
    return f"{canonical(name).title}:{canonical(name).name}" if is_canonical(name) else name


def study_name_of(name: str) -> str:
    """Return the space's part of a study's default name."""
    if not is_canonical(name):
        return name
    return _UNUSUAL.sub("-", space_named(name).name).strip("-._")[:_LONGEST_NAME] or "own"


def bounds_in(name: str) -> tuple[Bounds, ...]:
    """Return the bounds in a user space. Empty for a project space, because those bounds are known.

    Args:
        name: space name, as for `space_named`.
    """
    if not is_canonical(name):
        return ()
    space = space_named(name)
    if isinstance(space, MethodComparison):
        return tuple(each for each in space.tuned if isinstance(each, Bounds))
    return tuple(_bounds(each) for each in space.parameters if each.role != "fixed")


def with_space_bounds(name: str, search: Sequence[Bounds]) -> tuple[Bounds, ...]:
    """Return all bounds given by the user: first those from --search, then the others from a user space.

    Args:
        name: space name, as for `space_named`.
        search: bounds given by --search.
    """
    given = {each.field for each in search}
    return (*search, *(each for each in bounds_in(name) if each.field not in given))


def _bounds(parameter: Parameter) -> Bounds:
    convert = float if parameter.kind == "float" else int
    low, high, step = (None if each is None else convert(each) for each in
                       (parameter.low, parameter.high, parameter.step))  # fmt: skip
    return Bounds(
        field=parameter.name, kind=parameter.kind, low=low, high=high, log=parameter.log, step=step,
        choices=parameter.choices,
    )  # fmt: skip
