"""Overview figures for a study, each split into the data shown (`compute_…`) and the drawing (`draw_…`).

Computed data are plain arrays and estimates, so tests can check values. Each drawing is a separate matplotlib `Figure`
outside pyplot's global state, so a server without a display can draw it. Every caption contains n and the method.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from analysis.figures.drawing import (
    BLUE,
    GAP_LABEL,
    GREY,
    INK,
    VERMILION,
    add_legend,
    bars,
    draw_reference,
    new_figure,
    score_label,
    style_of,
)
from analysis.figures.robust import Window, find_window, limit_axes, mark_outliers, outlier_note, score_window
from analysis.questions.association import between_configs, rank_association
from analysis.reading.landmark import GAPS, Landmark, at_epoch, at_landmark, config_means
from analysis.reading.trials import (
    SEARCH,
    StudyRecords,
    control_name,
    numbers,
    objective,
    objective_measure,
    possible_range,
    select,
    summarise_configs,
    survivor_note,
    trial_scores,
    varied_fields,
)
from analysis.statistics.estimates import MIN_UNITS, Estimate
from analysis.statistics.resampling import Floats, complete, line_band, line_values
from trainables.display.numbers import GAP_PLACES, format_settings

_NOT_POOLED: Final = Estimate(math.nan, math.nan, math.nan, 0, "rank correlation: arms of imposed gaps are not pooled")


@dataclass(frozen=True)
class History:
    """Search history: trials in start order.

    Args:
        order: (n,) 1 for the first trial.
        accuracy: (n,) each trial's validation accuracy at the last epoch, as a fraction; nan for a failed trial without
            accuracy.
        best: (n,) best accuracy over the finished trials so far; nan before the first one.
        status: (n,) finished, pruned or failed.
        objective: name of the objective used as accuracy, here and in the classes below.
        labels: (n,) trial, config and seed in lines, for hover boxes.
    """

    order: NDArray[np.int64]
    accuracy: Floats
    best: Floats
    status: tuple[str, ...]
    objective: str = "accuracy"
    labels: tuple[str, ...] = ()

    @property
    def window(self) -> Window:
        """Window for the accuracy axis."""
        return score_window(self.accuracy.tolist())


@dataclass(frozen=True)
class ParameterEffect:
    """Config parameter against accuracy.

    Args:
        parameter: config field.
        categories: values for a non-numeric field, numbered from 0 in `searched` and `repeated`; empty for a numeric
            field.
        searched: (n, 2) parameter and final accuracy for the finished search trials.
        repeated: parameter, mean accuracy and config name for each promising config repeated on fresh seeds.
        references: mean control accuracy, by method.
        correlation: exploratory rank correlation over all search configs at the landmark (see
            `analysis.reading.landmark`), not only over the drawn survivors; None for categories.
        note: note on survivors and on the trials behind the correlation; or None.
        log: whether the search sampled the parameter on a logarithmic scale.
        labels: (n,) trial, config and seed for the search trials in lines, for hover boxes.
    """

    parameter: str
    categories: tuple[str, ...]
    searched: Floats
    repeated: tuple[tuple[float, Estimate, str], ...]
    references: dict[str, Estimate]
    correlation: Estimate | None
    note: str | None
    objective: str = "accuracy"
    log: bool = False
    labels: tuple[str, ...] = ()

    @property
    def window(self) -> Window:
        """Window for the accuracy axis."""
        repeated = [estimate.value for _, estimate, _ in self.repeated]
        return score_window([*self.searched[:, 1].tolist(), *repeated, *_values(self.references.values())])

    @property
    def is_log(self) -> bool:
        """Whether the parameter axis is logarithmic: the search used this scale, and every value is positive."""
        values = [*self.searched[:, 0].tolist(), *(at for at, _, _ in self.repeated if math.isfinite(at))]
        return self.log and not self.categories and bool(values) and min(values) > 0


@dataclass(frozen=True)
class GapAgainstAccuracy:
    """Sharpness gap against accuracy over the search configs at the landmark, with a fitted line.

    Args:
        gap: (n,) nats, by config.
        accuracy: (n,) fractions.
        grid: (m,) gaps for evaluating the line.
        line: (m,) least-squares line.
        low: (m,) lower end of the pointwise 95% bootstrap band; nan if there are too few trials.
        high: (m,) upper end.
        references: mean gap and mean accuracy by method for each control with a gap, at the same epoch.
        correlation: exploratory rank correlation, from `analysis.questions.association.between_configs`.
        note: trials and epoch, if some trials did not finish; else None.
        epoch: the landmark, if it is not the last epoch for all trials; else None.
        is_imposed: whether the search imposed gaps. The arms are then not pooled: there is no line and no correlation.
        objective: objective name.
        labels: (n,) trial, config and seed in lines, for hover boxes.
        fitted: number of configs behind the line. Only configs within `windows` enter, as a diverged trial would define
            the line.
    """

    gap: Floats
    accuracy: Floats
    grid: Floats
    line: Floats
    low: Floats
    high: Floats
    references: dict[str, tuple[Estimate, Estimate]]
    correlation: Estimate
    note: str | None
    epoch: int | None = None
    is_imposed: bool = False
    objective: str = "accuracy"
    labels: tuple[str, ...] = ()
    fitted: int = 0

    @property
    def windows(self) -> tuple[Window, Window]:
        """Windows for the gap axis and the accuracy axis."""
        gaps, accuracies = zip(*self.references.values(), strict=True) if self.references else ((), ())
        return (
            find_window([*self.gap.tolist(), *_values(gaps)]),
            score_window([*self.accuracy.tolist(), *_values(accuracies)]),
        )


def _values(estimates: Iterable[Estimate]) -> list[float]:
    return [estimate.value for estimate in estimates]


def trial_labels(trials: pa.Table) -> tuple[str, ...]:
    """Return trial, config and seed in lines for each trial, for hover boxes. Numbers have three digits.

    The lines describe the config by the fields varied in the search.
    """
    fields = [name for name in varied_fields(trials) if name in trials.column_names]
    names = [name.replace("_", " ") for name in fields]
    columns = [trials[name].to_pylist() for name in ("name", "trial_id", "config_id", "replicate")]
    settings = zip(*(trials[name].to_pylist() for name in fields), strict=True) if fields else [()] * trials.num_rows
    labels = []
    for name, trial_id, config_id, replicate, values in zip(*columns, settings, strict=True):
        given = {each: value for each, value in zip(names, values, strict=True) if value is not None}
        lines = [f"trial {name} ({trial_id})", f"config {config_id}, seed {replicate}"]
        labels.append("\n".join([*lines, *([format_settings(given)] if given else [])]))
    return tuple(labels)


def compute_history(trials: pa.Table) -> History:
    """Return the search trials in start order; only finished trials count as best so far."""
    searched = select(trials, stages=[SEARCH], statuses=None)
    searched = searched.sort_by([("started", "ascending"), ("trial_id", "ascending")])
    accuracy, status = trial_scores(searched), tuple(searched["status"].to_pylist())
    counted = np.where(np.array(status, dtype=object) == "finished", accuracy, math.nan)
    # fmax ignores nan, unlike maximum.
    return History(
        np.arange(1, len(status) + 1), accuracy, np.fmax.accumulate(counted), status, objective(searched),
        trial_labels(searched),
    )  # fmt: skip


def compute_parameter_effect(records: StudyRecords, parameter: str, *, seed: int = 0) -> ParameterEffect:
    """Collect a parameter and the accuracy for search trials, repeated configs and controls.

    Args:
        records: study records.
        parameter: config field.
        seed: random seed for the bootstrap.

    Raises:
        ValueError: if the records have no column with this name.
    """
    trials = records.trials
    if parameter not in trials.column_names:
        known = ", ".join(trials.column_names)
        raise ValueError(f"the records have no column {parameter!r}; they have {known}")
    searched = select(trials, stages=[SEARCH])
    values = searched[parameter].to_pylist()
    summaries = summarise_configs(trials)
    promising = [s for s in summaries if s.stage == "replicate" and parameter in s.varied]
    given = [*values, *(s.varied[parameter] for s in promising)]
    categories: tuple[str, ...] = ()
    if any(isinstance(value, bool | str) for value in given):
        categories = tuple(sorted({str(value) for value in given}))
    position = [float(categories.index(str(v))) if categories else _number(v) for v in given]
    own, scores = np.array(position[: len(values)], dtype=np.float64), trial_scores(searched)
    points, _ = complete([own, scores])
    landmark, survivors = at_landmark(records, searched=True), survivor_note(trials)
    return ParameterEffect(
        parameter=parameter,
        categories=categories,
        searched=points,
        repeated=tuple((at, s.accuracy, s.name) for at, s in zip(position[len(values) :], promising, strict=True)),
        references={control_name(s): s.accuracy for s in summaries if s.stage == "control"},
        correlation=None if categories else _parameter_correlation(landmark, parameter, seed),
        note=survivors and f"{survivors} The rank correlation uses all configs: {landmark.note}.",
        objective=objective(trials),
        log=parameter in records.searched_in_logs,
        labels=trial_labels(searched.filter(pa.array(np.isfinite(own) & np.isfinite(scores), pa.bool_()))),
    )


def _parameter_correlation(landmark: Landmark, parameter: str, seed: int) -> Estimate:
    values = [numbers(landmark.trials, parameter), trial_scores(landmark.trials)]
    (x, y), _ = config_means(values, landmark.trials["config_id"].to_pylist())
    return rank_association(x, y, seed=seed)


def _number(value: bool | int | float | str | None) -> float:
    return math.nan if value is None else float(value)


def compute_gap_against_accuracy(records: StudyRecords, *, seed: int = 0) -> GapAgainstAccuracy:
    """Collect the search configs' sharpness gap and accuracy, and fit a line.

    All configs enter, at the last epoch reached by every search trial, because finished trials were selected by
    accuracy (see `analysis.reading.landmark`). Repeated configs are excluded from the line, because they would count
    the promising region twice. If the search imposed gaps, there is no line and no correlation, because the arms answer
    different questions (`analysis.questions.intervention`).

    Args:
        records: study records.
        seed: random seed for the bootstrap and the permutations.
    """
    landmark = at_landmark(records, searched=True)
    values = [GAPS["paper"](landmark.trials), trial_scores(landmark.trials)]
    (gap, accuracy), first = config_means(values, landmark.trials["config_id"].to_pylist())
    inside = ~(find_window(gap).outside(gap) | score_window(accuracy).outside(accuracy))
    columns, units = complete([gap[inside], accuracy[inside]])
    arms = "gap_control" in varied_fields(landmark.trials)
    spread = bool(len(columns)) and np.ptp(columns[:, 0]) > 0 and not arms
    grid = np.linspace(columns[:, 0].min(), columns[:, 0].max(), 50) if spread else np.empty(0)
    line = line_values(columns, np.ones((1, len(columns))), grid)[0] if spread else np.empty(0)
    low = high = np.full_like(line, math.nan)
    if spread and len(columns) >= MIN_UNITS:
        band = line_band(columns, units, grid, seed)
        low, high = (np.clip(each, *possible_range(objective_measure(records.trials))) for each in band)
    trials = records.trials if landmark.is_last else at_epoch(records.trials, records.epochs, landmark.epoch)
    controls = [s for s in summarise_configs(_with_controls(trials)) if s.stage == "control" and s.gap.n]
    return GapAgainstAccuracy(
        gap=gap,
        accuracy=accuracy,
        grid=grid,
        line=line,
        low=low,
        high=high,
        references={control_name(s): (s.gap, s.accuracy) for s in controls},
        correlation=_NOT_POOLED if arms else between_configs(landmark, "paper", seed=seed).estimate,
        note=None if landmark.is_last else f"{landmark.note}.",
        epoch=None if landmark.is_last else landmark.epoch,
        is_imposed=arms,
        objective=objective(records.trials),
        labels=trial_labels(landmark.trials.take(pa.array(first, pa.int64()))),
        fitted=len(columns) if spread else 0,
    )


def _with_controls(trials: pa.Table) -> pa.Table:
    """Keep the search and the controls' trials: the intervals of all other configs would take most of the time."""
    controls = select(trials, stages=["control"])["config_id"].combine_chunks()
    return trials.filter(pc.or_(pc.equal(trials["stage"], SEARCH), pc.is_in(trials["config_id"], controls)))


def draw_history(history: History) -> Figure:
    """Draw the optimisation history: all search trials, and the best finished one so far."""
    counts = {status: history.status.count(status) for status in ("finished", "pruned", "failed")}
    caption = (
        f"n = {len(history.status)} search trials in the order of their start: "
        + ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        + ". One seed per trial: the best of many is biased upwards."
        + outlier_note(history.accuracy, history.window, history.objective)
    )
    figure, (axes,) = new_figure("Optimisation history", caption)
    finished = np.array([status == "finished" for status in history.status], dtype=bool)
    axes.step(history.order, history.best, where="post", color=VERMILION, linewidth=1.6, label="best so far")
    windows = (Window(), history.window)
    out = mark_outliers(axes, history.order.astype(np.float64), history.accuracy, windows, colour=VERMILION)
    shown = finished & ~out
    axes.scatter(history.order[shown], history.accuracy[shown], s=28, color=BLUE, zorder=3, label="finished")
    stopped = ~finished & np.isfinite(history.accuracy) & ~out
    if stopped.any():
        axes.scatter(
            history.order[stopped],
            history.accuracy[stopped],
            s=28,
            facecolors="none",
            edgecolors=GREY,
            zorder=3,
            label="pruned or failed, at the last epoch",
        )
    limit_axes(axes, y=windows[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, len(history.order) + 1)
    axes.set_xlabel("search trial (order of start)")
    axes.set_ylabel(score_label(history.objective))
    add_legend(axes)
    return figure


def draw_parameter_effect(effect: ParameterEffect) -> Figure:
    """Draw a parameter against accuracy: search trials, repeated configs with intervals, and controls."""
    label = effect.parameter.replace("_", " ")
    caption = f"n = {len(effect.searched)} search trials, one seed each; {_exploratory(effect.correlation)}."
    if effect.repeated:
        caption += f" Bars: {effect.repeated[0][1].method}, repeated on fresh seeds."
    values, accuracy = effect.searched.T
    caption += outlier_note(accuracy, effect.window, effect.objective)
    figure, (axes,) = new_figure(f"{label.capitalize()} and {effect.objective}", _joined(caption, effect.note))
    methods = tuple(effect.references)
    for method, estimate in effect.references.items():
        draw_reference(axes, estimate, method, style_of(method, methods))
    shown = ~mark_outliers(axes, values, accuracy, (Window(), effect.window), colour=VERMILION)
    axes.scatter(
        values[shown], accuracy[shown], s=26, facecolors="none", edgecolors=BLUE, label="search trial (one seed)",
        zorder=3,
    )  # fmt: skip
    for number, (at, estimate, _) in enumerate(effect.repeated):
        axes.errorbar(
            [at],
            [estimate.value],
            yerr=bars(estimate),
            fmt="o",
            color=BLUE,
            capsize=3,
            markersize=7,
            zorder=4,
            label=f"promising config, mean of {estimate.n}" if number == 0 else None,
        )
    _scale_parameter(axes, effect)
    limit_axes(axes, y=effect.window)
    axes.set_xlabel(label)
    axes.set_ylabel(score_label(effect.objective))
    add_legend(axes)
    return figure


def draw_gap_against_accuracy(found: GapAgainstAccuracy) -> Figure:
    """Draw the sharpness gap against accuracy, with the fitted line, the band and the exploratory rank correlation."""
    caption = f"n = {len(found.gap)} configs of the search, one seed each; {_exploratory(found.correlation)}."
    banded = bool(np.isfinite(found.low).any())
    if len(found.line):
        caption += " Line: least squares" + (", pointwise 0.95 bootstrap band" if banded else ", no band")
        caption += "." if found.fitted == len(found.gap) else f", over the {found.fitted} configs within the axes."
    windows = found.windows
    caption += outlier_note(found.gap, windows[0], "gap", GAP_PLACES)
    caption += outlier_note(found.accuracy, windows[1], found.objective)
    figure, (axes,) = new_figure(f"Sharpness gap and {found.objective}", _joined(caption, found.note))
    if len(found.line):
        axes.plot(found.grid, found.line, color=INK, linewidth=1.4)
    if banded:
        axes.fill_between(found.grid, found.low, found.high, color=INK, alpha=0.10, linewidth=0)
    shown = ~mark_outliers(axes, found.gap, found.accuracy, windows, colour=VERMILION)
    axes.scatter(found.gap[shown], found.accuracy[shown], s=28, color=BLUE, zorder=3, label="search trial (one seed)")
    for method, (gap, accuracy) in found.references.items():
        style = style_of(method, tuple(found.references))
        axes.errorbar(
            [gap.value],
            [accuracy.value],
            xerr=bars(gap),
            yerr=bars(accuracy),
            fmt=style.marker,
            color=style.colour,
            capsize=3,
            markersize=8,
            zorder=4,
            label=f"{method}, mean of {accuracy.n}",
        )
    limit_axes(axes, *windows)
    axes.set_xlabel(GAP_LABEL)
    axes.set_ylabel(score_label(found.objective))
    add_legend(axes)
    return figure


def _exploratory(correlation: Estimate | None) -> str:
    if correlation is None:
        return "categories, so no rank correlation"
    if math.isnan(correlation.value):
        return f"exploratory {correlation.method} (n = {correlation.n})"
    return f"exploratory {correlation.method}: {correlation}"


def _joined(caption: str, note: str | None) -> str:
    return caption if note is None else f"{caption} {note}"


def _scale_parameter(axes: Axes, effect: ParameterEffect) -> None:
    """Label a categorical axis with names; use a log scale if the search did."""
    if effect.categories:
        axes.set_xticks(range(len(effect.categories)), effect.categories)
        axes.set_xlim(-0.5, len(effect.categories) - 0.5)
        return
    if effect.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
