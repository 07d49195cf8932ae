"""Study parameters with bounds, scale, role and reason, and search spaces built from these parameters.

The roles follow the design of experiments. A *scientific* parameter is the subject of the question. A *nuisance*
parameter must be tuned so that scientific values are compared fairly, because the best nuisance value may depend on
them. A *fixed* parameter is held constant, and the results hold only at that value.

This module imports no optimiser and no tensor library, so a plan can be checked and printed without delay.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

if TYPE_CHECKING:
    import optuna

Kind: TypeAlias = Literal["float", "int", "categorical"]
Role: TypeAlias = Literal["scientific", "nuisance", "fixed"]
Value: TypeAlias = bool | int | float | str

_ROUNDING = 1e-9  # tolerance for a number of steps
_STEPS = {"float": "a number above 0", "int": "a whole number"}
KINDS: tuple[Kind, ...] = ("float", "int", "categorical")
ROLES: tuple[Role, ...] = ("scientific", "nuisance", "fixed")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """Trial config field with domain, scale, role and reason.

    Args:
        name: field name in the trial's config.
        kind: `float` and `int` have values in [low, high]; `categorical` has one of `choices`, booleans included.
        role: `scientific`, `nuisance` or `fixed`.
        why: reason for bounds, scale and role.
        value: value if fixed, otherwise a study's start value, within the bounds.
        low: smallest value, inclusive. None for categorical and fixed parameters.
        high: largest value, inclusive. None for categorical and fixed parameters.
        choices: allowed values for a varying categorical parameter, otherwise empty.
        log: whether to sample uniformly on a log scale.
        step: distance between two values of a numeric parameter; None for all values in between.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    name: str
    kind: Kind
    role: Role
    why: str
    value: Value
    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"{self.name!r} is not a valid name of a config field")
        if self.kind not in KINDS or self.role not in ROLES:
            raise ValueError(
                f"{self.name}: kind must be one of {KINDS} and role one of {ROLES}, not {self.kind} and {self.role}"
            )
        if not self.why.strip():
            raise ValueError(f"{self.name}: give the reason for its bounds, scale and role in `why`")
        if self.role == "fixed":
            if self.low is not None or self.high is not None or self.choices or self.log or self.step is not None:
                raise ValueError(
                    f"{self.name}: a fixed parameter must have a value, without bounds, choices, log or step"
                )
        elif self.kind == "categorical":
            self._check_choices()
        else:
            self._check_bounds()
        if not self.contains(self.value):
            raise ValueError(f"{self.name}: value {self.value!r} is not a {self.kind} within {self.domain}")

    def _check_choices(self) -> None:
        if self.low is not None or self.high is not None or self.log or self.step is not None:
            raise ValueError(f"{self.name}: a categorical parameter must have choices, without bounds, log or step")
        if len(self.choices) < 2 or len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"{self.name}: give at least two different choices, not {self.choices}")

    def _check_bounds(self) -> None:
        low, high = self._bounds()
        if self.choices:
            raise ValueError(f"{self.name}: a parameter of kind {self.kind} must have bounds, without choices")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{self.name}: bounds must be finite with low < high, not {low}, {high}")
        if self.log and low <= 0:
            raise ValueError(f"{self.name}: a log scale must start above 0, not at {low}")
        if self.kind == "int" and not (type(low) is int and type(high) is int):
            raise ValueError(f"{self.name}: an int parameter must have int bounds, not {low!r}, {high!r}")
        if self.step is not None:
            self._check_step(low, high, self.step)

    def _check_step(self, low: float, high: float, step: float) -> None:
        if self.log:
            raise ValueError(f"{self.name}: a log scale has no steps")
        if not (math.isfinite(step) and 0 < step <= high - low) or (self.kind == "int" and type(step) is not int):
            raise ValueError(f"{self.name}: a step must be {_STEPS[self.kind]} up to {high - low:g}, not {step!r}")
        steps = (high - low) / step
        if abs(steps - round(steps)) > _ROUNDING * max(1.0, steps):
            raise ValueError(f"{self.name}: {high:g} must be a whole number of steps of {step:g} above {low:g}")

    def _bounds(self) -> tuple[float, float]:
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: a parameter of kind {self.kind} needs low and high")
        return self.low, self.high

    @property
    def domain(self) -> str:
        """Allowed values as text, e.g. `[2, 256], log`."""
        if self.role == "fixed":
            return f"{self.value!r}"
        if self.kind == "categorical":
            return "{" + ", ".join(str(choice) for choice in self.choices) + "}"
        scale = ", log" if self.log else "" if self.step is None else f", step {self.step:g}"
        return f"[{self.low:g}, {self.high:g}]{scale}"

    def contains(self, value: object) -> bool:
        """Check whether `value` has exactly this parameter's type and lies within the bounds or choices."""
        if self.kind == "float" and not (type(value) is float and math.isfinite(value)):
            return False
        if self.kind == "int" and type(value) is not int:
            return False
        if self.role == "fixed":
            return type(value) is type(self.value) and value == self.value
        if isinstance(value, float | int) and self.low is not None and self.high is not None:
            return self.low <= value <= self.high
        # True == 1, so the types must match as well.
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Value:
        """Return this parameter's value for a trial; a fixed parameter does not call the sampler."""
        if self.role == "fixed":
            return self.value
        if self.kind == "categorical":
            return cast("Value", trial.suggest_categorical(self.name, self.choices))
        low, high = self._bounds()
        if self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.name, int(low), int(high), step=step, log=self.log)
        return trial.suggest_float(self.name, low, high, step=self.step, log=self.log)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Question, and the parameters varied or fixed in a study to answer the question.

    Args:
        name: space name on the command line.
        question: question answered by a study over this space, in one sentence.
        parameters: all varied or fixed fields. Other fields (method, dataset, models, epochs, seeds, ...) are set by
            the study.
        needs_bounds: whether bounds must be added before anything is searched (`search_spaces.bounds`).

    Raises:
        ValueError: if a field occurs twice, or if there is no scientific parameter or no question.
    """

    name: str
    question: str
    parameters: tuple[Parameter, ...]
    needs_bounds: bool = False

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"space {self.name!r} names {', '.join(twice)} more than once")
        if not self.scientific and not self.needs_bounds:
            raise ValueError(f"space {self.name!r} has no scientific parameter: give at least one that varies")
        if not self.question.strip().endswith("?"):
            raise ValueError(f"space {self.name!r} needs a question that ends in a question mark")

    @property
    def scientific(self) -> tuple[str, ...]:
        """Names of the scientific parameters, the subject of the question."""
        return tuple(parameter.name for parameter in self.parameters if parameter.role == "scientific")

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the parameters chosen by a sampler, ordered as in the space."""
        return tuple(parameter.name for parameter in self.parameters if parameter.role != "fixed")

    @property
    def definition(self) -> dict[str, dict[str, object]]:
        """Parameters by name, each with kind, role, start value and domain, without the explanation in words."""
        return definition_of(self.parameters)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Value]:
        """Return the values for all fields in this space for a trial, including fixed fields."""
        return {parameter.name: parameter.suggest(trial) for parameter in self.parameters}

    def default_point(self) -> dict[str, Value]:
        """Return every field's start value: the baseline shared by all spaces."""
        return {parameter.name: parameter.value for parameter in self.parameters}


def definition_of(parameters: Iterable[Any]) -> dict[str, dict[str, object]]:
    """Return the parameters' fields by name, without `why`: a reworded reason must not change any digest.

    A step of None is left out as well, because earlier versions had no steps.

    Args:
        parameters: dataclasses with fields `name` and `why`.
    """
    return {
        each.name: {
            field: value
            for field, value in asdict(each).items()
            if field not in ("name", "why") and (field, value) != ("step", None)
        }
        for each in parameters
    }
