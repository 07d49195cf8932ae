"""Fixed config fields of a study (`--set`, `--temperature`), and the matching space."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from search_spaces import MethodComparison
from study.plan.options import names_into
from trainables.process.errors import UsageError
from trainables.spec.naming import unknown_name
from trainables.user_code.errors import UserCodeError

if TYPE_CHECKING:
    from search_spaces import SearchSpace

# Config fields set by other flags, so `--set` is rejected for them.
_OTHER_FLAGS: Final = {
    "precision": "precision",
    "teacher_digest": "teacher-checkpoint",
    "teacher_number": "teachers",
    "split_number": "splits",
}


def fixed_fields(
    settings: list[str],
    temperature: float | None,
    space: str,
    searched: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> dict[str, Any]:
    """Return fixed config fields, validated and converted to the field types.

    A released PESF-KD variant also fixes the released settings, except those given here or varied by the search.
    """
    from pydantic import ValidationError

    from study.plan.methods import own_settings
    from study.plan.validation import describe_validation
    from trainables.spec.trial import TrialConfig, config_fields

    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    for setting in settings:
        field, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"--set {setting!r}: use the form FIELD=VALUE, such as --set ce_weight=0.5")
        name = field.strip()
        if name in given:
            earlier = "--temperature" if temperature is not None and name == "temperature" else "another --set"
            raise UsageError(f"--set {setting}: {name} is given by {earlier} as well: leave out one of the two")
        given[name] = value.strip()
    flags = {**{field: field.replace("_", "-") for field in names_into("config")}, **_OTHER_FLAGS}
    with_flags = sorted(given.keys() & flags.keys())
    if with_flags:
        raise UsageError(f"--set {with_flags[0]}: use the option --{flags[with_flags[0]]} instead")
    released = _released_settings(given, space)
    given = {field: value for field, value in released.items() if field not in searched} | given
    flag_of = partial(_flag_of_setting, temperature is not None)
    own = own_settings(given, methods, name=flag_of)
    if unknown := [field for field in given if field not in config_fields(*methods)]:
        raise UsageError(unknown_name("field", unknown[0], config_fields(*methods)))
    try:
        config = TrialConfig(**{field: value for field, value in given.items() if field not in own})
    except ValidationError as error:
        raise UsageError(describe_validation(error, name=flag_of)) from None
    return {field: own[field] if field in own else getattr(config, field) for field in given}


def _released_settings(given: Mapping[str, Any], space: str) -> dict[str, Any]:
    """Return the settings of the given PESF-KD variant, except those varied by the space."""
    from trainables.spec.methods.pesf_variants import PESF_VARIANTS

    name = given.get("pesf_variant")
    if name is None:
        return {}
    varied_in = space_asked(space)
    if isinstance(varied_in, MethodComparison):
        raise UsageError(
            f"--set pesf_variant: space {space!r} compares several methods; name the variant in --methods, such as "
            "--methods ce,kd,pesf_kd+released-vision"
        )
    varied = () if varied_in is None else varied_in.varied
    released = PESF_VARIANTS[name].settings if name in PESF_VARIANTS else {}
    return {field: value for field, value in released.items() if field not in varied}


def space_asked(name: str | None) -> "SearchSpace | MethodComparison | None":
    """Return the space with a name; None if there is none, which the plan reports.

    Raises:
        UsageError: a user space cannot be loaded.
    """
    from study.plan.spaces import space_named

    try:
        return space_named(name) if name else None
    except UserCodeError as error:
        raise UsageError(f"--space: {error}") from None
    except ValueError:
        return None


def comparison_asked(name: str | None) -> MethodComparison | None:
    """Return the comparison with a name; None for a search space, or if there is none."""
    found = space_asked(name)
    return found if isinstance(found, MethodComparison) else None


def _flag_of_setting(has_temperature: bool, location: Sequence[int | str]) -> str:
    field = str(location[-1])
    return "--temperature" if has_temperature and field == "temperature" else f"--set {field}"
