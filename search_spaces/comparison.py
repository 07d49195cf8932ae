"""Comparison of distillation methods, either at published settings or with each method tuned within the same bounds.

The study knows the methods, the fields read by each method, and the published values. This module only defines the
maximum distance of a search from these values, and the reasons.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from search_spaces.bounds import Bounds
from search_spaces.space import Parameter, Value, definition_of


@dataclass(frozen=True, kw_only=True)
class TunedParameter:
    """Field tuned on a log scale for every method reading this field.

    Args:
        name: field name in the trial's config.
        kind: type of the values.
        why: reason for the bounds.
        low: smallest value or, with `per`, smallest ratio to the value in the `per` field.
        high: largest value or ratio.
        per: field for scaling the bounds, e.g. `ce_weight`. The bounds are multiplied by the field's value in the
            method's start config, where 0 counts as 1. Empty for plain bounds.
    """

    name: str
    kind: Literal["float", "int"]
    why: str
    low: float
    high: float
    per: str = ""

    @property
    def domain(self) -> str:
        """Bounds as text, e.g. `[1, 16], log`."""
        return f"[{self.low:g}, {self.high:g}]{f' x {self.per}' if self.per else ''}, log"

    def around(self, value: Value, unit: Value = 1) -> Parameter:
        """Return the parameter for a method, with bounds extended to include the start value.

        Args:
            value: start value of the method.
            unit: value of the field `per`, multiplied with the bounds.
        """
        assert isinstance(value, int | float)
        assert isinstance(unit, int | float)
        low, high = (self.low * (unit or 1.0), self.high * (unit or 1.0)) if self.per else (self.low, self.high)
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
    """Question about distillation methods, and the fields tuned for each method before the comparison.

    Args:
        name: space name on the command line.
        question: the study's question, in one sentence.
        tuned: fields searched for each method, if read by the method; empty if methods run at published settings.
            Bounds given by the user are not extended to a method's start value.
        arms: config fields for the compared methods by row name, if the question is about these methods alone. Empty
            for a comparison of any methods, each at published settings.
        replicates: default number of fresh seeds per method. Tables in the literature have five seeds. With five, no
            paired test can fall below p = 0.06. Ten seeds can show a difference of one paired standard deviation with
            power 0.8, and fall below p = 0.05 after correction for 25 comparisons.
        searches: default number of searches per tuned method. The difference between two searches shows the part of a
            method's result due to search luck.

    Raises:
        ValueError: if a field occurs twice or the question is missing.
    """

    name: str
    question: str
    tuned: tuple[TunedParameter | Bounds, ...] = ()
    arms: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    replicates: int = 10
    searches: int = 2

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.tuned]
        if len(set(names)) < len(names):
            raise ValueError(f"space {self.name!r} tunes a field more than once: {', '.join(names)}")
        if not self.question.strip().endswith("?"):
            raise ValueError(f"space {self.name!r} needs a question that ends in a question mark")

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the fields chosen by samplers."""
        return tuple(parameter.name for parameter in self.tuned)

    @property
    def definition(self) -> dict[str, dict[str, object]]:
        """Tuned fields by name, each with kind and bounds, without the explanation in words."""
        return definition_of(self.tuned)

    def with_bounds(self, bounds: Sequence[Bounds]) -> "MethodComparison":
        """Return this comparison with other bounds for some tuned fields, and with further fields.

        Args:
            bounds: bounds given by the user, at most one per field.
        """
        given = {each.field: each for each in bounds}
        kept = tuple(given.pop(each.name, each) for each in self.tuned)
        return replace(self, tuned=(*kept, *given.values()))

    @property
    def scientific(self) -> tuple[str, ...]:
        """Names of the tuned fields in the question: none, because the question is about the method."""
        return ()

    def default_point(self) -> dict[str, Value]:
        """Return the start values common to all methods: none, because each method has separate start values."""
        return {}

    def parameters_for(self, values: Mapping[str, Value], read: Collection[str]) -> tuple[Parameter, ...]:
        """Return the parameters to search for one method.

        Args:
            values: the method's start values, with all tuned fields and the fields named by `per`.
            read: fields read by the method. Student fields (`student_*`) are searched for every method.
        """
        return tuple(
            parameter.around(values[parameter.name], values[parameter.per] if parameter.per else 1)
            for parameter in self.tuned
            if parameter.name in read or parameter.name.startswith("student_")
        )
