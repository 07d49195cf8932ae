"""The methods that a study compares: which, where each starts, and what has to be said beside the comparison.

A method that could do without an adapter is there twice, alone and as `METHOD+adapter`.
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
    """A method as a study compares it, written down with the plan: what is published for it may be revised later.

    Args:
        name: of its row in tables, such as `dkd` or `dkd+adapter`.
        fields: of the trial's config, in place of their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fields: dict[str, bool | int | float | str]


class Search(NamedTuple):
    """What one sampler searches: the study's space, or what is tuned of one of its methods.

    Args:
        name: of the method, where the study compares several.
        start: fields that all its configs have.
        parameters: what it varies and holds beside them.
        first: the point that is tried first, if the sampler does not choose it.
    """

    name: str
    start: dict[str, Any]
    parameters: tuple[Parameter, ...]
    first: dict[str, Any] | None = None

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Any]:
        """Every field of this search for that trial."""
        return {**self.start, **{parameter.name: parameter.suggest(trial) for parameter in self.parameters}}


def row_name(config: TrialConfig) -> str:
    """The method of a config as tables call it."""
    return f"{config.method}{_WITH_ADAPTER}" if config.adapter else config.method


def known_methods(dataset: str) -> dict[str, ComparedMethod]:
    """Every method of the registry at what is published for it on such data, by the names of their rows."""
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
    """The methods of a new study, with the baseline among them.

    Args:
        asked: names of rows; None for every method that can run with these nets.
        base: fields of every trial's config.
        overrides: fields that hold in every trial.

    Raises:
        UsageError: a method is unknown, or was asked for by name and cannot run with these nets.
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
    """Why a method cannot run on this base; None if it can."""
    try:
        TrialConfig(**{**base, **method.fields, **overrides})
    except ValidationError as error:
        return describe_validation(error)
    return None
