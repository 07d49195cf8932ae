"""Quantities that a search may optimise or limit: accuracy, calibration, gap, and a student's deployment costs.

Quantities of the architecture alone are known before the search (`trainables.students.deployment`). The others are
measures on the validation split at a trial's last epoch. The gap is the absolute value of the sharpness gap, because a
student may also be sharper than the teacher.
"""

import math
import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from trainables.display.numbers import format_latency
from trainables.spec.measures import (
    DEPLOY_FLOPS,
    DEPLOY_LATENCY,
    DEPLOY_PARAMETERS,
    DEPLOY_SIZE,
    OBJECTIVES,
    SHARPNESS_GAP,
)
from trainables.spec.naming import unknown_name

_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES: Final = {
    "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip
_COUNTS: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_PLAIN: Final = {"": 1.0}
_LIMIT: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-zµ]*)")


class Quantity(NamedTuple):
    """Quantity of a trial.

    Args:
        name: name in `--objectives` and `--limit`.
        column: measure or fact of a trial, as in the records.
        direction: whether a search maximises or minimises it.
        unit: unit in the records; empty for numbers.
        units: factors for the units of a limit.
        example: example limit.
        words: name for tables.
    """

    name: str
    column: str
    direction: Literal["maximize", "minimize"]
    unit: str
    units: Mapping[str, float]
    example: str
    words: str

    @property
    def is_of_architecture(self) -> bool:
        """Whether the quantity depends on the architecture alone, and is known before the search."""
        return self.column.startswith("deploy/")

    @property
    def needs_program(self) -> bool:
        """Whether the quantity is measured with the exported program."""
        return self.column in (DEPLOY_LATENCY, DEPLOY_SIZE)

    def value_in(self, values: Mapping[str, float | None]) -> float:
        """Return the quantity of a trial from measures and facts by name; NaN if unknown."""
        found = values.get(self.column)
        if found is None:
            return math.nan
        return abs(found) if self.column == SHARPNESS_GAP else found

    def text(self, value: float) -> str:
        """Return a value with the unit."""
        match self.unit:
            case "s":
                return format_latency(value)
            case "B":
                return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"
            case "FLOP" | "numbers":
                return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value:,.0f}"
        return f"{value:.4f}"


_ACCURACIES: Final = tuple(
    Quantity(name, name, "maximize", "", {}, "", name.replace("val/", "val ")) for name in OBJECTIVES
)
_COSTS: Final = (
    Quantity("latency", DEPLOY_LATENCY, "minimize", "s", _SECONDS, "5ms", "latency"),
    Quantity("size", DEPLOY_SIZE, "minimize", "B", _BYTES, "2MB", "size"),
    Quantity("flops", DEPLOY_FLOPS, "minimize", "FLOP", _COUNTS, "50M", "FLOPs"),
    Quantity("parameters", DEPLOY_PARAMETERS, "minimize", "numbers", _COUNTS, "100k", "parameters"),
    Quantity("val/ece", "val/ece_student", "minimize", "", _PLAIN, "0.05", "val ECE"),
    Quantity("gap", SHARPNESS_GAP, "minimize", "", _PLAIN, "0.1", "|gap|"),
)
QUANTITIES: Final[Mapping[str, Quantity]] = {each.name: each for each in (*_ACCURACIES, *_COSTS)}
LIMITED: Final = tuple(each.name for each in _COSTS)


def names_for(objective: str) -> tuple[str, ...]:
    """Return the names of the optimisable quantities for an objective of a study, as in `val/accuracy`."""
    return (objective, *LIMITED)


def objectives_in(text: str, objective: str) -> tuple[str, ...]:
    """Return the objectives in an argument of `--objectives`.

    Args:
        text: names, separated by commas.
        objective: the dataset's objective.

    Raises:
        ValueError: a name is unknown or repeated, or the dataset's objective is missing.
    """
    names = [each.strip() for each in text.split(",") if each.strip()]
    allowed = names_for(objective)
    for name in names:
        if name in OBJECTIVES and name != objective:
            raise ValueError(f"--objectives {name}: the objective of this dataset is {objective}, not {name}")
        if name not in allowed:
            raise ValueError(f"--objectives: {unknown_name('objective', name, allowed)}")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"--objectives names {repeated[0]} more than once: name each objective once")
    if len(names) < 2:
        raise ValueError(
            f"--objectives {text}: give two or more, such as --objectives {objective},latency. A study without the "
            f"option maximises {objective} alone"
        )
    if objective not in names:
        raise ValueError(
            f"--objectives {text}: {objective} must be one of them, because configs are compared with the controls "
            f"by it: --objectives {objective},{','.join(names)}"
        )
    return tuple(names)


def limit_in(text: str) -> tuple[str, float]:
    """Parse an argument of `--limit`, as in `latency=5ms`, to a name and a value in the records' unit.

    Raises:
        ValueError: the name or the unit is unknown, or the value is no positive number.
    """
    name, separator, value = (part.strip() for part in text.partition("="))
    if not separator:
        raise ValueError(f"--limit {text}: use the form NAME=VALUE, such as --limit latency=5ms")
    if name in OBJECTIVES:
        raise ValueError(
            f"--limit {text}: a limit is an upper one, and {name} is maximised: limit one of {', '.join(LIMITED)}"
        )
    if name not in LIMITED:
        raise ValueError(f"--limit {text}: {unknown_name('quantity', name, LIMITED)}")
    quantity = QUANTITIES[name]
    units = ", ".join(filter(None, quantity.units))
    allowed = f"a number above 0 with one of the units {units}" if units else "a number above 0"
    if "" in quantity.units and units:
        allowed = f"a number above 0, alone or followed by {units}"
    found = _LIMIT.fullmatch(value)
    if found is None or found[2] not in quantity.units or not 0 < (number := float(found[1])) < math.inf:
        raise ValueError(f"--limit {text}: give {allowed}, such as --limit {name}={quantity.example}")
    return name, number * quantity.units[found[2]]
