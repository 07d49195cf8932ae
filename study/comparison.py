"""The methods that a study compares: which, where each starts, and what has to be said beside the comparison.

A method that could do without an adapter is there twice, alone and as `METHOD+adapter`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from search_spaces import Parameter
from study.errors import UsageError
from study.validation import describe_validation
from trainables.methods import METHODS
from trainables.modality import is_text
from trainables.models.names import LITERATURE_NAMES
from trainables.naming import unknown_name
from trainables.trial import TrialConfig

if TYPE_CHECKING:
    import optuna

    from study.plan import StudyPlan

BASELINE: Final = "kd"
_WITH_ADAPTER: Final = "+adapter"
_TOO_HEAVY: Final = ("at", "fitnet", "sp")  # at their published weights, for nets of a few channels


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
    for name in METHODS:
        entry = METHODS.entry(name)
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


def left_out(plan: "StudyPlan") -> dict[str, list[str]]:
    """The methods that cannot run with the study's nets, by the reason."""
    from study.network_checks import misfit

    base = plan.base.model_dump()
    there = {method.name for method in plan.compared}
    reasons: dict[str, list[str]] = {}
    for name, method in known_methods(plan.base.dataset).items():
        if name in there:
            continue
        if (reason := why_not(method, base, plan.overrides)) is not None:
            reason = reason.removeprefix(f"method {method.fields['method']!r} ").partition(": ")[0]
        else:
            reason = misfit(plan, method)
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    return reasons


def left_out_lines(plan: "StudyPlan") -> list[str]:
    """The methods that a comparison does without as they cannot run with its nets, a line for each reason."""
    if not plan.compared:
        return []
    return [f"{', '.join(names)}: {reason}" for reason, names in left_out(plan).items()]


def _example(plan: "StudyPlan") -> str:
    heavy = [method.name for method in plan.compared if method.name in _TOO_HEAVY]
    if not heavy:
        return ""
    return (
        f": those of {', '.join(heavy)} are far too heavy for tiny nets (at on digits, cnn_32_64 to cnn_3_4, n = 5: "
        "accuracy 0.467 at its published weight 1000, 0.841 at weight 1)"
    )


def comparison_notes(plan: "StudyPlan") -> list[str]:
    """What a reader of the comparison has to know, before it runs and beside its result."""
    configs = {method.name: plan.configure(method.fields) for method in plan.compared}
    notes = []
    if plan.base.dataset != "cifar100" or not {plan.base.student, plan.base.teacher} <= set(LITERATURE_NAMES):
        on_text = is_text(plan.base.dataset)
        elsewhere = ", those of pesf_kd, pkd and pea_kd for GLUE and BERT; on others" if on_text else ", and on others"
        notes.append(
            f"Published settings are for CIFAR-100 and its nets{elsewhere} a method may do badly for its settings "
            f"alone{_example(plan)}. "
            + (
                "Here each search begins at them."
                if plan.searches
                else "--space method_tuned tunes each method equally."
            )
        )
    long = [
        f"{name} ({field} {getattr(config, field)})"
        for name, config in configs.items()
        for field in sorted(config.method_entry.fields)
        if field.endswith("_epochs") and getattr(config, field) > config.epochs
    ]
    if long:
        notes.append(
            f"Published for longer trainings: {', '.join(long)} would take longer than the {plan.base.epochs} epochs "
            "of a trial; --set changes a field for all."
        )
    others, floor = len(plan.compared) - 1, 2 / 2**plan.replicates
    if others and floor * others >= 0.05:
        notes.append(
            f"Over {plan.replicates} fresh seed(s) no paired p-value can fall below {floor:.3g}, nor below "
            f"{min(1.0, floor * others):.3g} when corrected for {others} differences: read the intervals, or take more "
            "--replicates."
        )
    return notes
