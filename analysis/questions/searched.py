"""Parameters and points of a search, and names of the importance evaluators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

from analysis.questions.wider import Range
from analysis.statistics.resampling import Floats

EvaluatorName = Literal["PED-ANOVA", "fANOVA"]
Point: TypeAlias = Mapping[str, Any]
# Map points and accuracies (n,) to unnormalised importances (parameters,).
Evaluation: TypeAlias = Callable[[Sequence[Point], Floats], Floats]

TREES: Final = 32
# PED-ANOVA needs at least this many configs at the top. The top is a tenth of all configs if this is more.
_TOP: Final = 5
_TOP_SHARE: Final = 0.1


class Dimension(Range, Protocol):
    """Interface of a searched parameter; `search_spaces.Parameter` implements it."""

    @property
    def choices(self) -> tuple[Any, ...]: ...  # noqa: D102


def top_quantile(n: int) -> float:
    """Return the fraction of n configs that PED-ANOVA takes as the best ones."""
    return min(0.5, max(_TOP_SHARE, _TOP / n))
