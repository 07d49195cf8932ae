"""Searchable config fields: types and limits, and why the other fields are equal in all trials."""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import annotated_types

from trainables.spec.architectures import LAYERS_PATTERN
from trainables.spec.trial import TrialConfig, config_fields

FieldKind = Literal["float", "int", "bool", "choice", "name"]

# Name endings of fields for training alone. They are tuned to make comparisons fair.
NUISANCE_ENDINGS: Final = ("_learning_rate", "_schedule", "_momentum", "_weight_decay")

# Fields read by every method. `TrialConfig.method_spec` lists the others.
ALWAYS_READ: Final = frozenset(
    {"student", "student_layers", "batch_size", "optimiser", "clip_norm", "rate_warmup", "augmentation"}
    | {name for name in TrialConfig.model_fields if name.startswith("student_")}
)

_SEED: Final = "seeds are derived from --seed and the number of the repetition, and no search may choose a lucky one"
_TEACHER: Final = "a study has one teacher: start a study for each teacher, and pool them"
FIXED_IN_A_STUDY: Final[Mapping[str, str]] = {
    "method": "methods are compared by --space method_tuned --methods kd,dkd,..., each tuned alike and paired by seed",
    "adapter": "methods with and without an adapter are compared by --space method_tuned --methods dkd,dkd+adapter",
    "dataset": "a study has one dataset: start a study for each dataset, and pool them",
    "epochs": "all trials of a search have the same number of epochs, by which they are compared and stopped early: "
    "give --epochs, and --confirm-epochs for a longer confirmation",
    "precision": "all trials of a study have one precision: give --precision",
    **dict.fromkeys(("teacher", "teacher_recipe", "teacher_epochs", "teacher_digest"), _TEACHER),
    **dict.fromkeys(("teacher_seed", "teacher_number", "split_seed", "split_number", "data_seed", "seed"), _SEED),
}


class FieldLimits(NamedTuple):
    """Type and limits of a config field.

    Args:
        kind: type of the values; `choice` has the values in `choices`, and `name` any name accepted by the config.
        low: smallest value, or the limit below it; None without one.
        high: largest value, or the limit above it; None without one.
        above_low: whether `low` itself is not allowed.
        below_high: whether `high` itself is not allowed.
        choices: allowed values of a field of kind `choice`.
    """

    kind: FieldKind
    low: float | None = None
    high: float | None = None
    above_low: bool = False
    below_high: bool = False
    choices: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """Allowed values in words, such as `numbers from 0 to below 1`."""
        if self.kind == "bool":
            return "true and false"
        if self.kind == "choice":
            return ", ".join(self.choices)
        if self.kind == "name":
            return "names"
        what = "whole numbers" if self.kind == "int" else "numbers"
        first = "" if self.low is None else f" {'above' if self.above_low else 'from'} {self.low:g}"
        last = "" if self.high is None else f" {'to below' if self.below_high else 'to'} {self.high:g}"
        return f"{what}{first}{last}"

    def contains(self, value: float) -> bool:
        """Check whether a number is finite and within the limits."""
        if not math.isfinite(value):
            return False
        above = self.low is None or (value > self.low if self.above_low else value >= self.low)
        below = self.high is None or (value < self.high if self.below_high else value <= self.high)
        return above and below


def searchable_fields(*methods: str) -> tuple[str, ...]:
    """Return the names of all searchable config fields.

    Args:
        methods: user methods. Their settings are fields too.
    """
    return tuple(name for name in config_fields(*methods) if name not in FIXED_IN_A_STUDY)


def limits_of(name: str, *methods: str) -> FieldLimits:
    """Return a config field's type and limits.

    Args:
        name: field name in `config_fields`.
        methods: user methods. Their settings are fields too.
    """
    field = config_fields(*methods)[name]
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        return FieldLimits("choice", choices=tuple(map(str, get_args(annotation))))
    if annotation is bool:
        return FieldLimits("bool")
    if annotation is str:
        return FieldLimits("name")
    limits: dict[str, Any] = {}
    for bound in field.metadata:
        match bound:
            case annotated_types.Ge():
                limits["low"] = bound.ge
            case annotated_types.Gt():
                limits |= {"low": bound.gt, "above_low": True}
            case annotated_types.Le():
                limits["high"] = bound.le
            case annotated_types.Lt():
                limits |= {"high": bound.lt, "below_high": True}
    return FieldLimits("int" if annotation is int else "float", **limits)


def is_nuisance(name: str) -> bool:
    """Return whether a field only controls training: rates, schedules, momenta and decay."""
    return name.endswith(NUISANCE_ENDINGS)


def fields_read(config: TrialConfig) -> frozenset[str]:
    """Return the searchable fields read by a trial's training."""
    read = config.method_spec.fields | ALWAYS_READ
    if LAYERS_PATTERN.fullmatch(config.student) is None:
        read -= {"student_layers"}
    return read - config.method_spec.teacher_fields - FIXED_IN_A_STUDY.keys()
