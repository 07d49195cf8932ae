"""Checks of a user space: a search may vary each field, and the values are within the field's limits.

Later, `study.plan.bounds_checks` checks that the study's methods read the fields, and that combinations are valid.
"""

from collections.abc import Sequence

from search_spaces import Bounds, MethodComparison, Parameter, SearchSpace
from search_spaces.bounds import in_words
from search_spaces.comparison import TunedParameter
from study.plan.methods import BASELINE
from study.plan.spaces import typed_space
from trainables.process.errors import UsageError
from trainables.spec.naming import unknown_name
from trainables.spec.searchable import FIXED_IN_A_STUDY, FieldKind, FieldLimits, limits_of, searchable_fields
from trainables.user_code.reference import is_canonical, looks_like_reference

# Parameter kinds with values for a field.
_KINDS: dict[FieldKind, tuple[str, ...]] = {
    "float": ("float", "categorical"),
    "int": ("int", "categorical"),
    "bool": ("categorical",),
    "choice": ("categorical",),
    "name": ("categorical",),
}


def check_own_space(space: SearchSpace | MethodComparison | None, name: str, methods: Sequence[str] = ()) -> None:
    """Check the fields in a user space.

    Args:
        space: the space; None if the name is unknown.
        name: space name. Project spaces are not checked.
        methods: names of the study's methods. Method settings are fields too.

    Raises:
        UsageError: a field is unknown, is equal in all trials of a study, or does not accept a value.
    """
    if space is None or not is_canonical(name):
        return
    shown = f"--space {typed_space(name)}"
    if isinstance(space, MethodComparison):
        for tuned in space.tuned:
            _check_field(tuned.name, f"{shown}: it tunes", methods)
            _check_tuned(tuned, f"{shown}: {tuned.name}", limits_of(tuned.name, *methods))
        if space.arms and BASELINE not in space.arms:
            raise UsageError(
                f"{shown}: its arms are {', '.join(space.arms)}, and every method is compared with {BASELINE}: add an "
                f"arm {BASELINE!r}"
            )
        return
    for each in space.parameters:
        _check_field(each.name, f"{shown}: it {'fixes' if each.role == 'fixed' else 'searches'}", methods)
        _check_values(each, f"{shown}: {each.name}", limits_of(each.name, *methods))


def _check_field(field: str, begin: str, methods: Sequence[str]) -> None:
    if field in FIXED_IN_A_STUDY:
        raise UsageError(f"{begin} {field}, which no space can: {FIXED_IN_A_STUDY[field]}")
    known = searchable_fields(*methods)
    if field not in known:
        raise UsageError(f"{begin} {field}: {unknown_name('field', field, known)}")


def _check_tuned(tuned: TunedParameter | Bounds, begin: str, limits: FieldLimits) -> None:
    if isinstance(tuned, Bounds):
        _check_values(tuned.parameter(tuned.extremes[0], "nuisance"), begin, limits)
        return
    if tuned.kind not in _KINDS[limits.kind]:
        raise UsageError(f"{begin} is of kind {tuned.kind!r}, and the field has {limits.in_words}")
    if tuned.per:
        if tuned.per not in searchable_fields() or limits_of(tuned.per).kind not in ("float", "int"):
            raise UsageError(f"{begin} has bounds per {tuned.per!r}, which is no field with numbers, such as ce_weight")
        return
    _check_numbers((tuned.low, tuned.high), begin, limits)
    if not 0 < tuned.low < tuned.high:
        raise UsageError(
            f"{begin} has the bounds {tuned.low:g} and {tuned.high:g}: give 0 < low < high, for a log scale"
        )


def _check_values(parameter: Parameter, begin: str, limits: FieldLimits) -> None:
    if parameter.kind not in _KINDS[limits.kind]:
        kinds = " or ".join(map(repr, _KINDS[limits.kind]))
        raise UsageError(
            f"{begin} is of kind {parameter.kind!r}, and the field has {limits.in_words}: give kind {kinds}"
        )
    ends = tuple(each for each in (parameter.low, parameter.high) if each is not None)
    if ends:
        _check_numbers(ends, begin, limits)
    for value in (*parameter.choices, parameter.value):
        if not _accepts(value, limits):
            raise UsageError(f"{begin} has the value {value!r}, which is not allowed; allowed are {limits.in_words}")
        if limits.kind == "name" and looks_like_reference(str(value)) and not is_canonical(str(value)):
            raise UsageError(
                f"{begin} names code of your own, {value}: give it by --search {parameter.name}={value}, which keeps "
                "its source with the study"
            )


def _check_numbers(ends: Sequence[float], begin: str, limits: FieldLimits) -> None:
    for end in ends:
        if not limits.contains(end):
            raise UsageError(
                f"{begin} has the bound {in_words(end)}, which is not allowed; allowed are {limits.in_words}"
            )


def _accepts(value: object, limits: FieldLimits) -> bool:
    match limits.kind:
        case "bool":
            return isinstance(value, bool)
        case "choice":
            return value in limits.choices
        case "name":
            return isinstance(value, str)
        case "int":
            return type(value) is int and limits.contains(value)
        case "float":
            return type(value) is float and limits.contains(value)
