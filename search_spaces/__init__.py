"""What a study may vary, by name: `SPACES["adapter_width"].suggest(trial)` gives fields of a trial's config.

Importing this package imports no optimiser and no tensor library.
"""

import difflib

from search_spaces import adapter_training, adapter_width, joint, loss_weights, temperature
from search_spaces.space import Parameter, SearchSpace

__all__ = ["SPACES", "Parameter", "SearchSpace", "find_space"]

SPACES: dict[str, SearchSpace] = {
    module.SPACE.name: module.SPACE for module in (adapter_width, temperature, loss_weights, adapter_training, joint)
}


def find_space(name: str) -> SearchSpace:
    """The space of that name.

    Raises:
        ValueError: if there is none, naming the nearest and all that there are.
    """
    if name not in SPACES:
        nearest = difflib.get_close_matches(name, SPACES, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown search space {name!r}{hint} Known: {', '.join(SPACES)}")
    return SPACES[name]
