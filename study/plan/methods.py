"""Methods in a comparison, with the starting point of each.

If a method works with and without an adapter, it appears twice: alone and as `METHOD+adapter`. Some rows are compared
only if the user names them: adapters added to feature-matching methods, for example `crd+adapter`, and the released
PESF-KD variants, for example `pesf_kd+released-vision`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from search_spaces import Parameter
from study.plan.two_classes import two_class_refusal
from study.plan.validation import describe_validation
from trainables.process.errors import UsageError
from trainables.spec.methods import METHOD_SPECS, check_settings, is_own, method_spec
from trainables.spec.methods.pesf_variants import PESF_VARIANTS, PesfVariant
from trainables.spec.methods.registry import own_spec
from trainables.spec.methods.row_names import NAMING_FIELDS, method_name, short_name
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.trial import TrialConfig, config_fields, own_fields

if TYPE_CHECKING:
    import optuna


BASELINE: Final = "kd"
_WITH_ADAPTER: Final = "+adapter"
# Methods with two rows in a default comparison. Rows for all other adapters would make it half as long again.
_TWICE: Final = ("dkd", "dist", "logit_standardisation")


class ComparedMethod(BaseModel):
    """Method in a comparison. Stored with the plan, because published settings in the code may be revised later.

    Args:
        name: row name in tables, for example `dkd` or `dkd+adapter`.
        fields: config fields to set instead of the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fields: dict[str, bool | int | float | str]


class Search(NamedTuple):
    """Search by one sampler: over the study's space, or over the tuned fields of one compared method.

    Args:
        name: search name: the method's row name, plus a number if the search is a further one. Empty for a search over
            the study's space.
        start: config fields shared by all configs in the search.
        parameters: varied and fixed parameters, applied on top of `start`.
        first: point to try first. None if the sampler chooses.
        method: row name of the searched method. Empty for a search over the study's space.
        number: search number within the method, from 0.
    """

    name: str
    start: dict[str, Any]
    parameters: tuple[Parameter, ...]
    first: dict[str, Any] | None = None
    method: str = ""
    number: int = 0

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Any]:
        """Return all fields of this search for a trial."""
        return {**self.start, **{parameter.name: parameter.suggest(trial) for parameter in self.parameters}}


def row_name(config: TrialConfig) -> str:
    """Return the row name of a config's method in tables."""
    return method_name({name: getattr(config, name) for name in NAMING_FIELDS})


class _Row(NamedTuple):
    """Possible row of a comparison.

    Args:
        method: the method with published settings.
        on_request: whether the row is compared only if the user names it.
    """

    method: ComparedMethod
    on_request: bool


def _rows(dataset: str) -> list[_Row]:
    """Return all rows with published settings for the dataset's modality, from the methods' specifications.

    Rows on request are adapters for methods with one row in a default comparison, and the PESF-KD variant released by
    the authors for the modality.
    """
    rows = [row for name in METHOD_SPECS for row in _rows_of(name, dataset)]
    released: PesfVariant = "released-language" if is_text(dataset) else "released-vision"
    fields: dict[str, Any] = {
        "method": "pesf_kd",
        "adapter": False,
        "pesf_variant": released,
        **PESF_VARIANTS[released].settings,
    }
    rows.append(_Row(ComparedMethod(name=f"pesf_kd+{released}", fields=fields), on_request=True))
    return rows


def _rows_of(name: str, dataset: str) -> list[_Row]:
    """Return the rows for one method, alone and with an adapter, with published settings."""
    spec, rows = method_spec(name), []
    published = (is_text(dataset) and spec.published_on_text) or spec.published
    published = {**published, **spec.published_on_task.get(dataset, {})}
    for adapter in (False, True) if spec.takes_adapter else (False,):
        own = spec.published_adapter if adapter else {}
        fields: dict[str, Any] = {"method": name, "adapter": adapter, **published, **own}
        method = ComparedMethod(
            name=f"{short_name(name)}{_WITH_ADAPTER}" if adapter else short_name(name), fields=fields
        )
        rows.append(_Row(method, on_request=is_own(name) or (adapter and name not in _TWICE)))
    return rows


def named_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Return the user's own methods among the rows named by a comparison, by canonical name."""
    methods = (name.removesuffix(_WITH_ADAPTER) for name in names)
    return tuple(dict.fromkeys(filter(is_own, methods)))


def check_own_methods(methods: Sequence[str], flag: str) -> None:
    """Check that the user's own methods can be loaded, and that their settings do not contradict each other.

    Args:
        methods: canonical names.
        flag: flag with these names.

    Raises:
        UsageError: with the user's traceback, if the code raises an error.
    """
    try:
        for method in methods:
            own_spec(method)
        config_fields(*methods)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def own_settings(
    given: Mapping[str, Any], methods: Sequence[str], *, name: Callable[[Sequence[int | str]], str]
) -> dict[str, Any]:
    """Return the given settings for the user's own methods, converted to the field types.

    Args:
        given: fields by name, including fields of other methods.
        methods: canonical names.
        name: function from an error's location to a displayed field name.

    Raises:
        UsageError: a value is not allowed.
    """
    found: dict[str, Any] = {}
    for method in methods:
        fields = config_fields(method).keys() - config_fields().keys()
        own = {field: value for field, value in given.items() if field in fields}
        values, errors = check_settings(method, own)
        if errors:
            raise UsageError("\n".join(describe_validation(each, name=name) for each in errors))
        found |= {field: values[field] for field in own}
    return found


def row_of(name: str) -> str:
    """Return the row name for a name in --methods, which may be the canonical name of a user's own method."""
    method = name.removesuffix(_WITH_ADAPTER)
    return short_name(method) + name[len(method) :]


def known_methods(dataset: str) -> dict[str, ComparedMethod]:
    """Return a default comparison's methods with published settings for the dataset's modality, by row name."""
    return {row.method.name: row.method for row in _rows(dataset) if not row.on_request}


def _arm(name: str, fields: Mapping[str, Any]) -> ComparedMethod:
    return ComparedMethod(name=name, fields={"adapter": False, **fields})


def choose_methods(
    asked: Sequence[str] | None,
    base: Mapping[str, Any],
    overrides: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[ComparedMethod, ...]:
    """Return the methods in a new comparison, always including the baseline.

    Args:
        asked: row names given by the user. None for every method that can run with these models.
        base: config fields in every trial.
        overrides: config fields fixed in every trial.
        arms: config fields by row name, if the comparison is about these methods only; None for any methods.

    Raises:
        UsageError: a method is unknown, or was named by the user and cannot run with these models.
    """
    dataset = base.get("dataset", TrialConfig.model_fields["dataset"].default)
    usual = known_methods(dataset) if not arms else {name: _arm(name, fields) for name, fields in arms.items()}
    own = named_methods(asked or ())
    known = usual if arms else usual | {row.method.name: row.method for row in _rows(dataset)}
    known |= {} if arms else {row.method.name: row.method for each in own for row in _rows_of(each, dataset)}
    asked = None if asked is None else [row_of(name) for name in asked]
    for name in asked or ():
        if name not in known:
            raise UsageError(f"--methods: {unknown_name('method', name, list(known))}")
    wanted = dict.fromkeys([*([] if asked is None or BASELINE in asked else [BASELINE]), *(asked or usual)])
    chosen = []
    for name in wanted:
        reason = why_not(known[name], base, overrides, own)
        if reason is None:
            chosen.append(known[name])
        elif name == BASELINE or asked is not None:
            raise UsageError(reason if name == BASELINE else f"--methods {name}: {reason}")
    return tuple(chosen)


def why_not(
    method: ComparedMethod, base: Mapping[str, Any], overrides: Mapping[str, Any], own: Sequence[str] = ()
) -> str | None:
    """Return why a method cannot run with these config fields, or None if it can.

    Args:
        method: the method.
        base: config fields in every trial.
        overrides: config fields fixed in every trial.
        own: the user's own methods in the study. Their settings may be among the fields.
    """
    values = {**base, **method.fields, **overrides}
    try:
        config = TrialConfig(**own_fields(str(method.fields["method"]), values, own))
    except ValidationError as error:
        return describe_validation(error)
    return two_class_refusal(config)
