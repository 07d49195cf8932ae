"""Methods in a comparison, with the starting point of each.

A method that works with and without an adapter appears twice: alone and as `METHOD+adapter`. Some rows are compared
only if the user names them: adapters beside methods that match features, such as `crd+adapter`, and the released
variants of PESF-KD, such as `pesf_kd+released-vision`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from search_spaces import Parameter
from study.plan.two_classes import two_class_refusal
from study.plan.validation import describe_validation
from trainables.process.errors import UsageError
from trainables.spec.methods import METHOD_SPECS
from trainables.spec.methods.pesf_variants import PESF_VARIANTS, PesfVariant
from trainables.spec.methods.row_names import NAMING_FIELDS, method_name
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    import optuna


BASELINE: Final = "kd"
_WITH_ADAPTER: Final = "+adapter"
# Methods that a comparison has twice by default. Rows for all other adapters would make it half as long again.
_TWICE: Final = ("dkd", "dist", "logit_standardisation")


class ComparedMethod(BaseModel):
    """Method in a comparison. Stored with the plan, because published settings in the code may be revised later.

    Args:
        name: row name in tables, such as `dkd` or `dkd+adapter`.
        fields: config fields that replace the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fields: dict[str, bool | int | float | str]


class Search(NamedTuple):
    """Search by one sampler: over the study's space, or over the tuned fields of one compared method.

    Args:
        name: name of the search: the method's row name, with the number of a further search. Empty for a search over
            the study's space.
        start: config fields shared by all configs of the search.
        parameters: varied and fixed parameters, applied on top of `start`.
        first: point to try first. None if the sampler chooses.
        method: row name of the searched method. Empty for a search over the study's space.
        number: number of the search among those of the method, from 0.
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
    """Row that a comparison can have.

    Args:
        method: the method with published settings.
        on_request: whether the row is compared only if the user names it.
    """

    method: ComparedMethod
    on_request: bool


def _rows(dataset: str) -> list[_Row]:
    """Return all rows with published settings for the dataset's modality, from the methods' specifications.

    Rows on request are adapters beside methods that a default comparison has once, and the variant of PESF-KD that its
    authors released for the modality.
    """
    rows = []
    for name, spec in METHOD_SPECS.items():
        published = (is_text(dataset) and spec.published_on_text) or spec.published
        published = {**published, **spec.published_on_task.get(dataset, {})}
        for adapter in (False, True) if spec.takes_adapter else (False,):
            own = spec.published_adapter if adapter else {}
            fields: dict[str, Any] = {"method": name, "adapter": adapter, **published, **own}
            method = ComparedMethod(name=f"{name}{_WITH_ADAPTER}" if adapter else name, fields=fields)
            rows.append(_Row(method, on_request=adapter and name not in _TWICE))
    released: PesfVariant = "released-language" if is_text(dataset) else "released-vision"
    fields = {"method": "pesf_kd", "adapter": False, "pesf_variant": released, **PESF_VARIANTS[released].settings}
    rows.append(_Row(ComparedMethod(name=f"pesf_kd+{released}", fields=fields), on_request=True))
    return rows


def known_methods(dataset: str) -> dict[str, ComparedMethod]:
    """Return the methods of a default comparison with published settings for the dataset's modality, by row name."""
    return {row.method.name: row.method for row in _rows(dataset) if not row.on_request}


def _arm(name: str, fields: Mapping[str, Any]) -> ComparedMethod:
    return ComparedMethod(name=name, fields={"adapter": False, **fields})


def choose_methods(
    asked: Sequence[str] | None,
    base: Mapping[str, Any],
    overrides: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[ComparedMethod, ...]:
    """Return the methods of a new comparison, always including the baseline.

    Args:
        asked: row names given by the user. None for every method that can run with these models.
        base: config fields of every trial.
        overrides: config fields fixed in every trial.
        arms: config fields of the only methods that the comparison is about, by row name; None for any methods.

    Raises:
        UsageError: a method is unknown, or was named by the user and cannot run with these models.
    """
    dataset = base.get("dataset", TrialConfig.model_fields["dataset"].default)
    usual = known_methods(dataset) if not arms else {name: _arm(name, fields) for name, fields in arms.items()}
    known = usual if arms else usual | {row.method.name: row.method for row in _rows(dataset)}
    for name in asked or ():
        if name not in known:
            raise UsageError(f"--methods: {unknown_name('method', name, list(known))}")
    wanted = dict.fromkeys([*([] if asked is None or BASELINE in asked else [BASELINE]), *(asked or usual)])
    chosen = []
    for name in wanted:
        reason = why_not(known[name], base, overrides)
        if reason is None:
            chosen.append(known[name])
        elif name == BASELINE or asked is not None:
            raise UsageError(reason if name == BASELINE else f"--methods {name}: {reason}")
    return tuple(chosen)


def why_not(method: ComparedMethod, base: Mapping[str, Any], overrides: Mapping[str, Any]) -> str | None:
    """Return why a method cannot run with these config fields, or None if it can."""
    try:
        config = TrialConfig(**{**base, **method.fields, **overrides})
    except ValidationError as error:
        return describe_validation(error)
    return two_class_refusal(config)
