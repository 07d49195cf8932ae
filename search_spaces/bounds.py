"""Bounds given by the user. They replace a space's bounds, or add a field to the search.

A study stores these bounds in the plan, next to the space name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from search_spaces.space import Kind, Parameter, Role, SearchSpace, Value

_WHY: Final = "given by --search"
_SIGNIFICANT: Final = 12  # significant digits of values on a grid of steps


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Allowed values for one field of the trial configs in a search.

    Args:
        field: field name in the trial's config.
        kind: `float` and `int` have values in [low, high]; `categorical` has one of `choices`.
        low: smallest value, inclusive.
        high: largest value, inclusive; with `step`, a number of steps above `low`.
        log: whether to sample uniformly on a log scale.
        step: distance between two values; None for all values in between.
        choices: values of a categorical field, at least two.
    """

    # Read by pydantic, which validates bounds as part of a plan.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    field: str
    kind: Kind
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[bool | int | float | str, ...] = ()

    def __post_init__(self) -> None:
        self._as_parameter()  # checks the bounds
        if self.kind == "float" and not all(type(each) is float for each in self._numbers):
            raise ValueError(f"{self.field}: bounds of a float must be floats, not {self._numbers}")

    @property
    def name(self) -> str:
        """Field name, as in a parameter."""
        return self.field

    @property
    def why(self) -> str:
        """Reason for the bounds."""
        return _WHY

    @property
    def per(self) -> str:
        """Field that multiplies the bounds: none."""
        return ""

    @property
    def domain(self) -> str:
        """Allowed values as text, e.g. `[1, 32], log`."""
        return self._as_parameter().domain

    @property
    def text(self) -> str:
        """The bounds as an argument of `--search`, e.g. `temperature=1:32:log`."""
        if self.kind == "categorical":
            return f"{self.field}={','.join(map(in_words, self.choices))}"
        assert self.low is not None
        assert self.high is not None
        scale = ":log" if self.log else "" if self.step is None else f":{in_words(self.step)}"
        return f"{self.field}={in_words(self.low)}:{in_words(self.high)}{scale}"

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Smallest and largest value, or all choices."""
        if self.kind == "categorical":
            return self.choices
        assert self.low is not None
        assert self.high is not None
        return (self.low, self.high)

    def start(self, value: Value) -> Value:
        """Return the nearest allowed value to `value`; for choices, `value` itself or else the first choice."""
        if self.kind == "categorical":
            known = (each for each in self.choices if type(each) is type(value) and each == value)
            return next(known, self.choices[0])
        assert self.low is not None
        assert self.high is not None
        assert isinstance(value, int | float)
        near = min(max(value, self.low), self.high)
        if self.step is not None:
            near = self.low + round((near - self.low) / self.step) * self.step
            near = min(float(f"{near:.{_SIGNIFICANT}g}"), self.high)
        return round(near) if self.kind == "int" else float(near)

    def parameter(self, value: Value, role: Role) -> Parameter:
        """Return the parameter with these bounds, starting next to `value`."""
        return replace(self._as_parameter(), role=role, value=self.start(value))

    def around(self, value: Value, unit: Value = 1) -> Parameter:  # noqa: ARG002
        """Return the parameter for one compared method. The bounds are never extended to a start value.

        Args:
            value: start value of the method.
            unit: not used, because the bounds are not multiples of another field.
        """
        return self.parameter(value, "nuisance")

    @property
    def _numbers(self) -> tuple[int | float, ...]:
        return tuple(each for each in (self.low, self.high, self.step) if each is not None)

    def _as_parameter(self) -> Parameter:
        first = self.choices[0] if self.choices else self.low
        return Parameter(
            name=self.field,
            kind=self.kind,
            role="scientific",
            why=_WHY,
            value=0 if first is None else first,
            low=self.low,
            high=self.high,
            choices=self.choices,
            log=self.log,
            step=self.step,
        )


def in_words(value: Value) -> str:
    """Format a value as on the command line: `true`, `0.5`, `1e-05`, `serial`; whole numbers without a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def with_bounds(
    space: SearchSpace, bounds: Sequence[Bounds], values: Mapping[str, Value], is_nuisance: Callable[[str], bool]
) -> SearchSpace:
    """Return a space with the bounds of some fields replaced, and with further fields.

    A field already varied by the space keeps the role. An added field is scientific, because the user asks about it. A
    field that only controls training is added as a nuisance parameter, if another parameter is scientific.

    Args:
        space: search space in this project.
        bounds: bounds given by the user, at most one per field.
        values: values for all fields not named by the space.
        is_nuisance: returns whether the field with this name only controls training.
    """
    given = {each.field: each for each in bounds}
    own = {each.name: each for each in space.parameters}
    others = [each for each in bounds if each.field not in space.varied]
    asks = bool(space.scientific) or any(not is_nuisance(each.field) for each in bounds)
    kept = [each for each in space.parameters if each.name in space.varied or each.name not in given]
    parameters = [given[each.name].parameter(each.value, each.role) if each.name in given else each for each in kept]
    for each in others:
        role: Role = "nuisance" if asks and is_nuisance(each.field) else "scientific"
        start = own[each.field].value if each.field in own else values[each.field]
        parameters.append(each.parameter(start, role))
    question = space.question
    if space.needs_bounds:
        question = f"Which values of {_listed([each.field for each in bounds])} make the best student?"
    return replace(space, question=question, parameters=tuple(parameters), needs_bounds=False)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
