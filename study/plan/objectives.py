"""Several objectives or limits of a study, and the measurements they need before the search.

A study with several objectives searches for the Pareto front: the configs not dominated by any other config. A limit is
a constraint on the search. A trial beyond a limit is kept and recorded, but it is never on the front, never repeated
and never confirmed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

from trainables.display.numbers import counted, listed
from trainables.spec.measures import ACCURACY, OBJECTIVES, objective_of
from trainables.spec.modality import is_text
from trainables.spec.quantities import QUANTITIES, Quantity, limit_in, objectives_in
from trainables.spec.trial import TrialConfig

# Samplers with support for several objectives and constraints.
ABLE: Final = ("tpe", "nsga2")
_WHY_NOT: Final = {
    "random": "ignores all results",
    "qmc": "ignores all results",
    "gp": "models one objective without constraints here",
    "cmaes": "ranks configs by one objective without constraints",
}


class Limit(BaseModel):
    """Upper limit on a quantity.

    Args:
        name: quantity name.
        value: largest allowed value, in the unit of the records.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    value: float = Field(gt=0)

    @property
    def quantity(self) -> Quantity:
        """The limited quantity."""
        return QUANTITIES[self.name]

    @property
    def text(self) -> str:
        """The limit as typed on the command line, in the unit of the records."""
        unit = self.quantity.unit if self.quantity.unit in self.quantity.units else ""
        return f"{self.name}={self.value!r}{unit}"

    @property
    def words(self) -> str:
        """The limit as readable text, for example `latency at most 5 ms`."""
        return f"{self.quantity.words} at most {self.quantity.text(self.value)}"


class ObjectivesPlan(Protocol):
    """Study plan with the attributes needed here; implemented by `study.plan.plan.StudyPlan`."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of several objectives; empty for one."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Limits on the search."""

    @property
    def latency(self) -> int | None:
        """Number of threads for measuring students, if given."""

    @property
    def compared(self) -> Sequence[object]:
        """Compared methods."""

    @property
    def space(self) -> str:
        """Space name."""

    @property
    def scheduler(self) -> str:
        """Scheduler name."""

    @property
    def sampler(self) -> str:
        """Sampler name."""

    @property
    def objective(self) -> str:
        """The dataset's objective."""

    @property
    def students(self) -> tuple[str, ...]:
        """Student architectures."""

    @property
    def base(self) -> TrialConfig:
        """Config values shared by all trials."""


def given_objectives(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given plan values for `--objectives` and `--limit`.

    Args:
        values: options by name; the dataset may be absent at a resume.

    Raises:
        ValueError: an argument is wrong.
    """
    found: dict[str, Any] = {}
    if (text := values.get("objectives")) is not None:
        dataset, names = values.get("dataset"), [each.strip() for each in text.split(",")]
        usual = next((name for name in names if name in OBJECTIVES), ACCURACY)
        found["objectives"] = objectives_in(text, usual if dataset is None else objective_of(dataset))
    if values.get("limit"):
        limits = [limit_in(each) for each in values["limit"]]
        names = [name for name, _ in limits]
        if len(set(names)) < len(names):
            raise ValueError(f"--limit gives a quantity more than once: {', '.join(names)}")
        found["limits"] = tuple(Limit(name=name, value=value) for name, value in limits)
    return found


def quantities_of(plan: ObjectivesPlan) -> tuple[Quantity, ...]:
    """Return the objectives' quantities, then those limited but not objectives."""
    names = (*plan.objectives, *(each.name for each in plan.limits))
    return tuple(QUANTITIES[name] for name in dict.fromkeys(names))


def measures_students(plan: ObjectivesPlan) -> bool:
    """Return whether students are measured before the search."""
    return plan.latency is not None or any(each.is_of_architecture for each in quantities_of(plan))


def threads_of(plan: ObjectivesPlan) -> int | None:
    """Return the number of threads for measuring latency, or None if no program is needed."""
    if plan.latency is not None:
        return plan.latency
    return 1 if any(each.needs_program for each in quantities_of(plan)) else None


def check_objectives(plan: ObjectivesPlan) -> None:
    """Check that a study supports the given objectives, limits and measurements.

    Raises:
        ValueError: it does not. The message names the option.
    """
    if measures_students(plan) and is_text(plan.base.dataset):
        named = [each.name for each in quantities_of(plan) if each.is_of_architecture]
        what = f"{named[0]} is" if named else "--latency: latency and size are"
        raise ValueError(
            f"{what} measured for students of images alone, and {plan.base.dataset} has text: leave it out"
        )
    if not (plan.objectives or plan.limits):
        return
    flag = "--objectives" if plan.objectives else "--limit"
    if plan.compared:
        raise ValueError(
            f"{flag} is for a search of one method; space {plan.space!r} compares methods by {plan.objective}: leave "
            "it out, or choose another space"
        )
    if plan.scheduler != "none":
        raise ValueError(
            f"{flag}: --scheduler {plan.scheduler} ends trials by {plan.objective} alone, so trials that are good in "
            "another objective would be lost: leave out --scheduler"
        )
    if plan.sampler not in ABLE:
        raise ValueError(
            f"{flag}: --sampler {plan.sampler} {_WHY_NOT[plan.sampler]}: choose {' or '.join(ABLE)}, or leave it out"
        )
    fixed = [name for name in plan.objectives if QUANTITIES[name].is_of_architecture]
    if fixed and len(plan.students) == 1:
        are = "is" if len(fixed) == 1 else "are"
        raise ValueError(
            f"--objectives {','.join(plan.objectives)}: {listed(fixed)} {are} the same for all configs, because all "
            f"have the student {plan.base.student}: add --search student=A,B,..., or leave out {', '.join(fixed)}"
        )


def objective_lines(plan: ObjectivesPlan) -> list[tuple[str, str]]:
    """Return the preview lines on objectives, limits and student measurement: name and text of each line."""
    lines = []
    if plan.objectives:
        ways = ", ".join(
            f"{name} ({'highest' if QUANTITIES[name].direction == 'maximize' else 'lowest'})"
            for name in plan.objectives
        )
        lines.append(("objectives", f"Pareto front of: {ways}"))
    lines += [("limits", "; ".join(each.words for each in plan.limits))] if plan.limits else []
    if measures_students(plan):
        threads = threads_of(plan)
        what = (
            "parameters and FLOPs"
            if threads is None
            else f"size and latency in ONNX Runtime ({counted(threads, 'thread')})"
        )
        lines.append(("measures", f"{what}, of {', '.join(plan.students)}, before the trials"))
    return lines
