"""A comparison of distillation methods: each as published, or each with what it reads tuned within the same bounds.

Which methods there are, what each reads and what was published for it the study knows; here stands only how far
around that a search may go, and why.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from search_spaces.space import Parameter, Value


@dataclass(frozen=True, kw_only=True)
class TunedParameter:
    """A field that is tuned for every method that reads it, on a log scale.

    Args:
        name: the field of the trial's config.
        kind: of its values.
        why: the reason for its bounds, in words.
        low: smallest value, or, where `relative`, smallest multiple of the method's own.
        high: largest.
        relative: whether the bounds are multiples of where the method starts.
    """

    name: str
    kind: Literal["float", "int"]
    why: str
    low: float
    high: float
    relative: bool = False

    @property
    def domain(self) -> str:
        """The bounds in words, e.g. `[1, 16], log`."""
        if self.relative:
            return f"[{self.low:g}, {self.high:g}] x published, log"
        return f"[{self.low:g}, {self.high:g}], log"

    def around(self, value: Value) -> Parameter:
        """The parameter of a method that starts at `value`, which widens absolute bounds that it lies outside of."""
        assert isinstance(value, int | float)
        low, high = (value * self.low, value * self.high) if self.relative else (self.low, self.high)
        return Parameter(
            name=self.name,
            kind=self.kind,
            role="nuisance",
            why=self.why,
            value=value,
            low=min(low, value),
            high=max(high, value),
            log=True,
        )


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """A question about methods, and what of each is tuned before they are compared.

    Args:
        name: the space's name, as on the command line.
        question: what a study asks, in one sentence.
        tuned: what is searched for each method that reads it; nothing where methods stand as published.
        replicates: fresh seeds of each method if nobody says otherwise: an interval takes four, a table in the
            literature has five.

    Raises:
        ValueError: for a field named twice, or without a question.
    """

    name: str
    question: str
    tuned: tuple[TunedParameter, ...] = ()
    replicates: int = 5

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.tuned]
        if len(set(names)) < len(names):
            raise ValueError(f"space {self.name!r} tunes a field more than once: {', '.join(names)}")
        if not self.question.strip().endswith("?"):
            raise ValueError(f"space {self.name!r} states its question, ending in a question mark")

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the fields that samplers choose."""
        return tuple(parameter.name for parameter in self.tuned)

    @property
    def scientific(self) -> tuple[str, ...]:
        """Names of the tuned fields that the question is about: none, it is about the method."""
        return ()

    def default_point(self) -> dict[str, Value]:
        """Fields that all methods start from in common: none, each has its own."""
        return {}

    def parameters_for(self, values: Mapping[str, Value], read: Collection[str]) -> tuple[Parameter, ...]:
        """What is searched for one method.

        Args:
            values: where it starts, a value for every field.
            read: the fields that it reads beside its student's, which every method does.
        """
        return tuple(
            parameter.around(values[parameter.name])
            for parameter in self.tuned
            if parameter.name in read or parameter.name.startswith("student_")
        )
