"""Search spaces by name: `SPACES["adapter_width"].suggest(trial)` returns fields for a trial's config."""

import difflib

from search_spaces import (
    adapter_training,
    adapter_why,
    adapter_width,
    gap_target,
    joint,
    loss_weights,
    method,
    method_tuned,
    none,
    temperature,
)
from search_spaces.bounds import Bounds, with_bounds
from search_spaces.comparison import MethodComparison
from search_spaces.space import Parameter, SearchSpace
from search_spaces.text import on_text

__all__ = [
    "COMPARISONS",
    "OWN",
    "SPACES",
    "Bounds",
    "MethodComparison",
    "Parameter",
    "SearchSpace",
    "find_space",
    "space_names",
    "with_bounds",
]

SPACES: dict[str, SearchSpace] = {
    module.SPACE.name: module.SPACE
    for module in (adapter_width, temperature, loss_weights, adapter_training, gap_target, joint)
}
COMPARISONS: dict[str, MethodComparison] = {
    module.COMPARISON.name: module.COMPARISON for module in (method, method_tuned, adapter_why)
}
# Space for a study searching only the fields given by the user.
OWN: SearchSpace = none.SPACE


def space_names() -> tuple[str, ...]:
    """Return all names accepted by `find_space`."""
    return (*SPACES, *COMPARISONS, OWN.name)


def find_space(name: str, *, text: bool = False) -> SearchSpace | MethodComparison:
    """Return the search space or method comparison with the given name.

    Args:
        name: space or comparison name.
        text: whether to return the version for text.

    Raises:
        ValueError: for an unknown name, with the nearest name and all known names.
    """
    known = space_names()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown search space {name!r}{hint} Known: {', '.join(known)}")
    space = OWN if name == OWN.name else SPACES[name] if name in SPACES else COMPARISONS[name]
    return on_text(space) if text else space
