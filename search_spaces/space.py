"""What a study may vary: parameters with their bounds, scale, role and reason, and the space that they span.

The roles are those of a designed experiment. A *scientific* parameter is what the question is about. A
*nuisance* parameter has to be tuned for the comparison between scientific values to be fair, because its best
value may move with them. A *fixed* parameter is held, and what is found holds at that value only.

Nothing here imports an optimiser or a tensor library: a plan can be checked and printed at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

if TYPE_CHECKING:
    import optuna

Kind: TypeAlias = Literal["float", "int", "categorical"]
Role: TypeAlias = Literal["scientific", "nuisance", "fixed"]
Value: TypeAlias = bool | int | float | str

KINDS: tuple[Kind, ...] = ("float", "int", "categorical")
ROLES: tuple[Role, ...] = ("scientific", "nuisance", "fixed")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One field of a trial's config: where it may go, on which scale, in which role and why.

    Args:
        name: the field of the trial's config.
        kind: `float` and `int` lie in [low, high]; `categorical` is one of `choices`, booleans included.
        role: `scientific`, `nuisance` or `fixed`.
        why: the reason for the bounds, the scale and the role, in words.
        value: what a fixed parameter is held at; for the others, where a study starts (within the bounds).
        low: smallest value, included. None for categorical and fixed parameters.
        high: largest value, included. None for categorical and fixed parameters.
        choices: the allowed values of a categorical parameter that varies, else empty.
        log: sample the logarithm uniformly.

    Raises:
        ValueError: for a description that contradicts itself.
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

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a parameter is named after a config field, not {self.name!r}")
        if self.kind not in KINDS or self.role not in ROLES:
            raise ValueError(
                f"{self.name}: kind is one of {KINDS} and role one of {ROLES}, not {self.kind}, {self.role}"
            )
        if not self.why.strip():
            raise ValueError(f"{self.name}: give the reason for its bounds, scale and role in `why`")
        if self.role == "fixed":
            if self.low is not None or self.high is not None or self.choices or self.log:
                raise ValueError(f"{self.name}: a fixed parameter has a value and neither bounds, choices nor log")
        elif self.kind == "categorical":
            self._check_choices()
        else:
            self._check_bounds()
        if not self.contains(self.value):
            raise ValueError(f"{self.name}: value {self.value!r} is not a {self.kind} within {self.domain}")

    def _check_choices(self) -> None:
        if self.low is not None or self.high is not None or self.log:
            raise ValueError(f"{self.name}: a categorical parameter has choices and neither bounds nor log")
        if len(self.choices) < 2 or len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"{self.name}: give at least two different choices, not {self.choices}")

    def _check_bounds(self) -> None:
        low, high = self._bounds()
        if self.choices:
            raise ValueError(f"{self.name}: a parameter of kind {self.kind} has bounds and no choices")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{self.name}: bounds are finite with low < high, not {low}, {high}")
        if self.log and low <= 0:
            raise ValueError(f"{self.name}: a log scale starts above 0, not at {low}")
        if self.kind == "int" and not (type(low) is int and type(high) is int):
            raise ValueError(f"{self.name}: an int parameter has int bounds, not {low!r}, {high!r}")

    def _bounds(self) -> tuple[float, float]:
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: a parameter of kind {self.kind} has low and high")
        return self.low, self.high

    @property
    def domain(self) -> str:
        """The allowed values in words, e.g. `[2, 256], log`."""
        if self.role == "fixed":
            return f"{self.value!r}"
        if self.kind == "categorical":
            return "{" + ", ".join(str(choice) for choice in self.choices) + "}"
        return f"[{self.low:g}, {self.high:g}]" + (", log" if self.log else "")

    def contains(self, value: object) -> bool:
        """Whether `value` has exactly this parameter's type and lies within its bounds or choices."""
        if self.kind == "float" and not (type(value) is float and math.isfinite(value)):
            return False
        if self.kind == "int" and type(value) is not int:
            return False
        if self.role == "fixed":
            return type(value) is type(self.value) and value == self.value
        if isinstance(value, float | int) and self.low is not None and self.high is not None:
            return self.low <= value <= self.high
        # True == 1, so the type has to agree as well.
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Value:
        """This parameter's value in that trial; a fixed one does not ask the sampler."""
        if self.role == "fixed":
            return self.value
        if self.kind == "categorical":
            return cast("Value", trial.suggest_categorical(self.name, self.choices))
        low, high = self._bounds()
        if self.kind == "int":
            return trial.suggest_int(self.name, int(low), int(high), log=self.log)
        return trial.suggest_float(self.name, low, high, log=self.log)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A question, and the parameters that a study varies and holds to answer it.

    Args:
        name: the space's name, as on the command line.
        question: what a study over this space asks, in one sentence.
        parameters: every field that the space varies or holds. The fields that it does not name (method,
            dataset, models, epochs, seeds, ...) belong to the study.

    Raises:
        ValueError: for a field named twice, or a space without a scientific parameter or without a question.
    """

    name: str
    question: str
    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"space {self.name!r} names {', '.join(twice)} more than once")
        if not self.scientific:
            raise ValueError(f"space {self.name!r} has no scientific parameter: give at least one that varies")
        if not self.question.strip().endswith("?"):
            raise ValueError(f"space {self.name!r} states its question, ending in a question mark")

    @property
    def scientific(self) -> tuple[str, ...]:
        """Names of the parameters that the question is about."""
        return self._with_role("scientific")

    @property
    def nuisance(self) -> tuple[str, ...]:
        """Names of the parameters that are tuned so that the comparison is fair."""
        return self._with_role("nuisance")

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the parameters that a sampler chooses, in the order of the space."""
        return tuple(parameter.name for parameter in self.parameters if parameter.role != "fixed")

    def _with_role(self, role: Role) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters if parameter.role == role)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Value]:
        """Every field of this space for that trial, the fixed ones included."""
        return {parameter.name: parameter.suggest(trial) for parameter in self.parameters}

    def default_point(self) -> dict[str, Value]:
        """Every field at the value where a study starts: the baseline that each space shares."""
        return {parameter.name: parameter.value for parameter in self.parameters}

    def contains(self, values: Mapping[str, object]) -> bool:
        """Whether `values` has every field of this space within its bounds, whatever else it has."""
        return all(
            parameter.name in values and parameter.contains(values[parameter.name]) for parameter in self.parameters
        )
