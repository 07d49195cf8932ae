"""Standing of a config against another one, in the same words everywhere.

`better` and `worse` need an interval without 0 and a corrected test in agreement. *No better* needs evidence as well:
the difference must be shown to be smaller than a stated smallest effect (`analysis.statistics.equivalence`). Without
either, the two configs are not distinguishable, which leaves the difference open.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE
from trainables.display.numbers import counted, format_number

Standing: TypeAlias = Literal["better", "worse", "equivalent", "open"]

_LEVEL: Final = 1 - CONFIDENCE
_MOST_NAMED: Final = 6


def standing_of(
    difference: Estimate, corrected_p: float | None = None, corrected_equivalence: float | None = None
) -> Standing:
    """Classify a score difference.

    Args:
        difference: first config minus second.
        corrected_p: p-value corrected for multiple tests. Default: the difference's own p-value.
        corrected_equivalence: corrected equivalence test p-value. Default: the difference's own equivalence p-value.
    """
    p_value = difference.p_value if corrected_p is None else corrected_p
    if p_value is not None and p_value <= _LEVEL and (difference.low > 0 or difference.high < 0):
        return "better" if difference.low > 0 else "worse"
    return "equivalent" if difference.is_equivalent(corrected_equivalence) else "open"


def standing_in_words(
    difference: Estimate,
    against: str,
    corrected_p: float | None = None,
    corrected_equivalence: float | None = None,
    *,
    test: str = "the corrected p-value",
) -> str:
    """Describe a score difference as a predicate, such as `is better than kd`.

    Args:
        difference: first config minus second.
        against: second config's name.
        corrected_p: see `standing_of`.
        corrected_equivalence: see `standing_of`.
        test: name of the test that can contradict the interval.
    """
    standing = standing_of(difference, corrected_p, corrected_equivalence)
    if standing in ("better", "worse"):
        return f"is {standing} than {against}"
    if standing == "equivalent":
        assert difference.smallest_effect is not None
        return f"is no better and no worse than {against} by {format_effect(difference.smallest_effect)} or more"
    side = "above" if difference.low > 0 else "below" if difference.high < 0 else ""
    aside = f" by {test}, though the interval of the difference lies {side} 0" if side else ""
    return f"is not distinguishable from {against}{aside}"


def all_standings_in_words(compared: Sequence[tuple[str, Estimate, float | None, float | None]], against: str) -> str:
    """Count the methods in a comparison by standing, as a sentence.

    Args:
        compared: name, difference, corrected p-value and corrected equivalence p-value for each method.
        against: baseline name.
    """
    if not compared:
        return f"No other method can be compared with {against}."
    named: dict[Standing, list[str]] = {"better": [], "worse": [], "equivalent": [], "open": []}
    for name, difference, corrected_p, corrected_equivalence in compared:
        named[standing_of(difference, corrected_p, corrected_equivalence)].append(name)
    better = named["better"]
    first = f"{_listed(better)} {_are(better)} better than {against}" if better else ""
    first = first or f"No method is shown to be better than {against}"
    phrases: dict[Standing, str] = {
        "worse": f"worse than {against}",
        "equivalent": f"no better and no worse than {against} by {format_effect(SMALLEST_EFFECT)} or more",
        "open": f"not distinguishable from {against}",
    }
    others = [
        f"{len(names)} {_are(names)} {phrase}{f' ({_listed(names)})' if standing != 'open' else ''}"
        for standing, phrase in phrases.items()
        if (names := named[standing])
    ]
    rest = f"; of {counted(len(compared), 'other method')}, {', '.join(others)}" if others else ""
    return f"{first}{rest}, by p-values corrected by Holm."


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def format_effect(smallest_effect: float) -> str:
    """Format a smallest effect, such as `0.005`; nan is not allowed."""
    assert math.isfinite(smallest_effect)
    return format_number(smallest_effect, 3)
