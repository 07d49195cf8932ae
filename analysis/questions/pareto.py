"""Front of a study with several objectives or limits, as tables; read from `summary.json`."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from analysis.questions.deployment import latency_range
from analysis.statistics.estimates import Estimate, interval_methods
from trainables.display.markdown import markdown_rows
from trainables.display.numbers import counted, format_estimate, format_latency, listed
from trainables.spec.quantities import QUANTITIES, Quantity

LATENCY: Final = "latency"
_MOST_PAIRS: Final = 3


@dataclass(frozen=True)
class FrontPoint:
    """Searched config with values.

    Args:
        label: readable name.
        values: value by quantity name, from the search.
        is_within: whether it is within all limits.
        is_on_front: whether it is on the front.
        fresh: means by name, on fresh seeds and the validation split.
        confirmed: confirmed means, by name; the dataset's objective is on the test split.
        is_on_confirmed_front: whether it is on the front of confirmed means; None if it is not confirmed.
        student: architecture; empty if not recorded.
        latency_range: 10th and 90th percentile over the runs of the student's program; nan if not recorded.
    """

    label: str
    values: Mapping[str, float]
    is_within: bool
    is_on_front: bool
    fresh: Mapping[str, Estimate]
    confirmed: Mapping[str, Estimate]
    is_on_confirmed_front: bool | None
    student: str = ""
    latency_range: tuple[float, float] = (math.nan, math.nan)

    def text(self, quantity: Quantity) -> str:
        """Return a quantity's value in the search; a latency with the range over runs."""
        value = self.values[quantity.name]
        return format_latency(value, *self.latency_range) if quantity.name == LATENCY else quantity.text(value)


@dataclass(frozen=True)
class Front:
    """Searched configs in a study, with the front.

    Args:
        objectives: objectives; empty for a study with limits alone.
        quantities: all quantities, the dataset's objective first.
        limits: limits in words.
        points: searched configs, the front first, each part sorted from the best in the dataset's objective.
        latency_limit: upper limit of the latency in seconds; nan without one.
    """

    objectives: tuple[Quantity, ...]
    quantities: tuple[Quantity, ...]
    limits: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    latency_limit: float = math.nan

    @property
    def on_front(self) -> list[FrontPoint]:
        """Configs on the front."""
        return [each for each in self.points if each.is_on_front]


def read_front(summary: Mapping[str, Any]) -> Front | None:
    """Return the front in a study's summary, or None for a study with neither objectives nor limits."""
    content = summary.get("pareto")
    if not content:
        return None
    quantities = tuple(QUANTITIES[name] for name in content["quantities"])
    measured = summary.get("students", {})
    only = next(iter(measured)) if len(measured) == 1 else ""
    students = [str(row["fields"].get("student") or only) for row in content["configs"]]
    points = [
        FrontPoint(
            row["label"],
            {name: _number(value) for name, value in row["values"].items()},
            row["is_within_limits"],
            row["is_on_front"],
            _estimates(row["fresh"]),
            _estimates(row["confirmed"]),
            row["is_on_confirmed_front"],
            student,
            latency_range(measured.get(student, {})),
        )
        for row, student in zip(content["configs"], students, strict=True)
    ]
    first = quantities[0].name
    points.sort(
        key=lambda each: (
            not each.is_on_front,
            -each.values[first] if each.values[first] == each.values[first] else 0.0,
        )
    )
    return Front(
        tuple(QUANTITIES[each["name"]] for each in content["objectives"]),
        quantities,
        tuple(each["words"] for each in content["limits"]),
        tuple(points),
        next((each["value"] for each in content["limits"] if each.get("name") == LATENCY), math.nan),
    )


def _estimates(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    return {
        name: Estimate(_number(each["value"]), _number(each["low"]), _number(each["high"]), each["n"], each["method"])
        for name, each in found.items()
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def front_cells(front: Front) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of a front table; columns without a value are left out."""
    shown = front.on_front
    fresh = _names(each.fresh for each in shown)
    confirmed = _names(each.confirmed for each in shown)
    heads = [
        "config",
        *(f"{each.words}{'' if each.is_of_architecture else ' (search)'}" for each in front.quantities),
        *(f"{_words(name)} (fresh seeds)" for name in fresh),
        *(f"{_words(name)} (confirmed)" for name in confirmed),
        *(["still on front"] if confirmed and front.objectives else []),
    ]
    rows = []
    for each in shown:
        cells = [each.label, *(each.text(quantity) for quantity in front.quantities)]
        for names, estimates in ((fresh, each.fresh), (confirmed, each.confirmed)):
            cells += [format_estimate(estimates[name]) if name in estimates else "" for name in names]
        if confirmed and front.objectives:
            cells.append({True: "yes", False: "no", None: ""}[each.is_on_confirmed_front])
        rows.append(tuple(cells))
    return tuple(heads), rows


def _names(found: Any) -> list[str]:
    return list(dict.fromkeys(name for each in found for name in each))


def _words(name: str) -> str:
    return QUANTITIES[name].words if name in QUANTITIES else name.replace("/", " ")


def front_title(front: Front) -> str:
    """Return the title for table and figure."""
    if not front.objectives:
        return "Configs within the limits"
    return f"Pareto front of {listed([each.words for each in front.objectives])}"


def front_notes(front: Front, *, above: Sequence[str] = ()) -> list[str]:
    """Return notes on the table, and the number of configs within the limits.

    Args:
        front: the front.
        above: interval methods already named above the table.
    """
    total, within = len(front.points), sum(each.is_within for each in front.points)
    notes = []
    if front.limits:
        notes.append(
            f"{within} of {counted(total, 'searched config')} {'is' if within == 1 else 'are'} within the limits "
            f"({'; '.join(front.limits)}). Only those are repeated and confirmed."
        )
        if not within:
            notes.append("No config is within the limits: nothing could be repeated. Raise a limit, or search further.")
    if front.objectives and front.on_front:
        notes.append(
            f"{counted(len(front.on_front), 'config')} of {total} on the front: no other config is at least as good in "
            "all objectives and better in one. Values of the search are of single seeds and selected the front, so "
            "they are biased towards the better; the columns on fresh seeds are not."
        )
    notes += _latency_notes(front)
    counts = {estimate.n for each in front.on_front for estimate in each.confirmed.values()}
    repeated = {estimate.n for each in front.on_front for estimate in each.fresh.values()}
    methods = interval_methods(
        each.method
        for point in front.on_front
        for each in (*point.fresh.values(), *point.confirmed.values())
        if each.n > 1
    )
    methods = [each for each in methods if each not in above]
    for what, numbers in (("fresh seeds", repeated), ("confirmed", counts)):
        if numbers:
            low, high = min(numbers), max(numbers)
            notes.append(f"Columns “{what}”: n = {low if low == high else f'{low} to {high}'} seeds.")
    confirmed = sum(bool(each.confirmed) for each in front.on_front)
    if 0 < confirmed < len(front.on_front):
        notes.append(
            f"{confirmed} of {counted(len(front.on_front), 'config')} were confirmed, as many as --confirm asked for: "
            "without a number, study.confirm confirms the whole front."
        )
    return [*notes, *(f"{method[:1].upper()}{method[1:]}." for method in methods)]


def _latency_notes(front: Front) -> list[str]:
    """Describe where the spread in measured latency leaves the student order, or a limit, open."""
    within = [each for each in front.points if each.is_within and not math.isnan(sum(each.latency_range))]
    if LATENCY not in [each.name for each in front.quantities] or not within:
        return []
    ranges = {each.student: each.latency_range for each in within}
    on_front = {each.student for each in front.on_front}
    pairs = [
        f"{one} with {other}"
        for one, other in itertools.combinations(sorted(ranges, key=lambda student: ranges[student]), 2)
        if on_front & {one, other} and ranges[one][0] <= ranges[other][1] and ranges[other][0] <= ranges[one][1]
    ]
    notes = []
    if pairs and LATENCY in [each.name for each in front.objectives]:
        more = [f"{len(pairs) - _MOST_PAIRS} more pairs"] if len(pairs) > _MOST_PAIRS else []
        notes.append(
            f"Latency is a median, with the 10th and 90th percentile of single runs. These ranges overlap: "
            f"{', '.join([*pairs[:_MOST_PAIRS], *more])}. Another measurement may order them otherwise, and "
            "give another front."
        )
    known = {each.student: each.latency_range for each in front.points}
    crossing = [student for student, (low, high) in known.items() if low <= front.latency_limit < high]
    if crossing:
        notes.append(
            f"The limit of {format_latency(front.latency_limit)} lies within the range of single runs of "
            f"{listed(crossing)}: another measurement may decide otherwise."
        )
    return notes


def front_markdown(front: Front | None) -> str:
    """Format title, table and notes as Markdown; empty without a front."""
    if front is None:
        return ""
    heads, rows = front_cells(front)
    lines = "\n".join(markdown_rows(heads, rows)) if rows else ""
    return "\n\n".join(part for part in (f"**{front_title(front)}**", lines, *front_notes(front)) if part)
