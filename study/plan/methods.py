"""Methods in a comparison, with the starting point of each.

A method that works with and without an adapter appears twice: alone and as `METHOD+adapter`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from search_spaces import Parameter
from study.plan.validation import describe_validation
from trainables.process.errors import UsageError
from trainables.spec.methods import METHOD_SPECS, method_spec
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    import optuna


BASELINE: Final = "kd"
_WITH_ADAPTER: Final = "+adapter"


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
    return f"{config.method}{_WITH_ADAPTER}" if config.adapter else config.method


def known_methods(dataset: str) -> dict[str, ComparedMethod]:
    """Return every registered method with published settings for the dataset's modality, by row name."""
    return {method.name: method for method in _all_methods(on_text=is_text(dataset))}


def _all_methods(*, on_text: bool) -> Iterator[ComparedMethod]:
    for name in METHOD_SPECS:
        entry = method_spec(name)
        published = (on_text and entry.published_on_text) or entry.published
        for adapter in (False, True) if entry.takes_adapter else (False,):
            fields: dict[str, Any] = {"method": name, "adapter": adapter, **published}
            yield ComparedMethod(name=f"{name}{_WITH_ADAPTER}" if adapter else name, fields=fields)


def choose_methods(
    asked: Sequence[str] | None, base: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[ComparedMethod, ...]:
    """Return the methods of a new comparison, always including the baseline.

    Args:
        asked: row names given by the user. None for every method that can run with these models.
        base: config fields of every trial.
        overrides: config fields fixed in every trial.

    Raises:
        UsageError: a method is unknown, or was named by the user and cannot run with these models.
    """
    known = known_methods(base.get("dataset", TrialConfig.model_fields["dataset"].default))
    for name in asked or ():
        if name not in known:
            raise UsageError(f"--methods: {unknown_name('method', name, list(known))}")
    wanted = dict.fromkeys([*([] if asked is None or BASELINE in asked else [BASELINE]), *(asked or known)])
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
        TrialConfig(**{**base, **method.fields, **overrides})
    except ValidationError as error:
        return describe_validation(error)
    return None
