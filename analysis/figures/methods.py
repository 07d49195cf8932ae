"""Figures for compared methods: accuracies, and accuracy against cost."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.drawing import BLUE, GREY, INK, ORANGE, bars, capitalised, new_figure, score_label
from analysis.figures.robust import Window, limit_axes, mark_outliers, outlier_note, row_window
from analysis.questions.costs import ConfigCost
from analysis.questions.methods import split_of
from analysis.reading.trials import BASELINE, ConfigSummary, objective_of_all
from analysis.statistics.estimates import Estimate
from trainables.display.numbers import format_number

_INCHES_PER_METHOD = 0.22
_LABELS_HIGH = 30  # number of names to fill the panel height
_COLLAPSED = 10.0  # interquartile ranges below the lower quartile
_LEAST_FALL = 0.05  # a smaller drop is no collapse, however close the other methods are
_FEWEST = 3  # among two methods, neither can be called the outlier
_EDGE = 0.05  # distance from the floor to the other points, as a fraction of the panel height
_RATIOS = (1, 1.5, 2, 3, 5, 7, 10, 20, 50, 100)
_LEAST_TICKS = 3
_SAME_COST = 1.25  # points with a cost ratio up to this value share a column of names


def draw_methods(summaries: Sequence[ConfigSummary], *, baseline: str = BASELINE) -> Figure:
    """Draw accuracy and interval for every method, best on top, and a line at the baseline."""
    window = row_window((each.accuracy for each in summaries), scores=True)
    caption = f"n = {_seeds(summaries)} seeds per method; {_how(summaries)}."
    caption += outlier_note([each.accuracy.value for each in summaries], window, objective_of_all(summaries))
    figure, (axes,) = new_figure("Methods", caption)
    figure.set_figheight(2.0 + _INCHES_PER_METHOD * max(6, len(summaries)))
    for row, summary in enumerate(reversed(summaries)):
        colour = ORANGE if summary.method == baseline else BLUE
        lengths = bars(summary.accuracy)
        if mark_outliers(axes, [summary.accuracy.value], [row], (window, Window()), colour=colour).any():
            continue
        axes.errorbar([summary.accuracy.value], [row], xerr=lengths, fmt="o", color=colour, capsize=3)
        if summary.method == baseline:
            axes.axvline(summary.accuracy.value, color=INK, linestyle=":", linewidth=1.2)
    limit_axes(axes, x=window)
    axes.set_yticks(range(len(summaries)), [summary.method for summary in reversed(summaries)], fontsize=8)
    axes.set_xlabel(score_label(objective_of_all(summaries), split_of(summaries)))
    return figure


def _seeds(summaries: Sequence[ConfigSummary]) -> str:
    counts = sorted({summary.accuracy.n for summary in summaries})
    return " to ".join(str(count) for count in (counts if len(counts) < 3 else [counts[0], counts[-1]])) or "0"


def _how(summaries: Sequence[ConfigSummary]) -> str:
    return "; ".join(dict.fromkeys(each.accuracy.method for each in summaries)) or "no finished trial"


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Return the points not beaten by another point at least as cheap and as accurate, cheapest first."""
    front: list[int] = []
    for number in sorted(range(len(costs)), key=lambda i: (costs[i], -accuracies[i])):
        if not front or accuracies[number] > accuracies[front[-1]]:
            front.append(number)
    return front


def draw_accuracy_against_cost(
    summaries: Sequence[ConfigSummary], costs: Mapping[str, ConfigCost], *, baseline: str = BASELINE
) -> Figure:
    """Draw every method's accuracy over training FLOPs, with the front: the methods not beaten by a cheaper one.

    Args:
        summaries: one summary per method.
        costs: costs by `config_id`. Methods without a known cost are left out, and the caption gives their number.
        baseline: method to highlight.
    """
    ratios = {config_id: cost.flops_to_ce for config_id, cost in costs.items() if cost.flops_to_ce is not None}
    points = [(ratios[summary.config_id], summary) for summary in summaries if summary.config_id in ratios]
    caption = (
        "FLOPs of training as a ratio to cross-entropy on the same student. The passes of a stored teacher are divided "
        f"among the trials of this study. n = {_seeds(summaries)} seeds each; {_how(summaries)}. Line: methods with no "
        "better mean at equal or lower cost. Intervals of methods on and off the line may overlap."
    )
    accuracies = [summary.accuracy.value for _, summary in points]
    floor = floor_of([summary.accuracy for _, summary in points])
    below = [
        f"{summary.method} at {format_number(summary.accuracy.value)}"
        for _, summary in points
        if summary.accuracy.value < floor
    ]
    caption += f" Triangles at the lower edge mark methods below the axis: {', '.join(below)}." if below else ""
    missing = len(summaries) - len(points)
    caption += f" Not drawn, because the cost is unknown: {missing}." if missing else ""
    words = objective_of_all(summaries)
    figure, (axes,) = new_figure(f"{capitalised(words)} against training cost", caption, width=9.0)
    axes.set_xlabel("training FLOPs relative to ce (log scale)")
    axes.set_ylabel(score_label(words, split_of(summaries)))
    if not points:
        return figure
    figure.set_figheight(5.6)
    front = pareto_front([cost for cost, _ in points], accuracies)
    axes.set_xscale("log")
    axes.step([points[i][0] for i in front], [accuracies[i] for i in front], where="post", color=GREY, linewidth=1.2)
    for number, (cost, summary) in enumerate(points):
        colour = ORANGE if summary.method == baseline else BLUE
        if summary.accuracy.value < floor:
            axes.plot([cost], [floor], marker="v", color=colour, markersize=6)
            continue
        axes.errorbar(
            [cost], [summary.accuracy.value], yerr=bars(summary.accuracy), fmt="o" if number in front else "x",
            color=colour, capsize=2, linewidth=0.8, markersize=5,
        )  # fmt: skip
    if below:
        axes.set_ylim(bottom=floor - _EDGE * (axes.get_ylim()[1] - floor))
    low, high = axes.get_ylim()
    leaders = []
    for column in _columns([cost for cost, _ in points]):
        ordered = sorted(column, key=lambda i: accuracies[i])
        shown = [max(accuracies[i], floor) for i in ordered]
        least, collapsed = (high - low) / _LABELS_HIGH, sum(accuracies[i] < floor for i in ordered)
        # There is no room to move down at the lower edge.
        heights = [floor + number * least for number in range(collapsed)] + _apart(shown[collapsed:], least)
        side = max(points[i][0] for i in column)
        for number, at, height in zip(ordered, shown, heights, strict=True):
            cost, summary = points[number]
            mean = f" {format_number(summary.accuracy.value)}" if summary.accuracy.value < floor else ""
            axes.text(side * 1.06, height, summary.method + mean, fontsize=7, va="center", color=INK)
            leaders.append([(cost, at), (side * 1.05, height)])
    # Annotations with arrows would take two thirds of the figure's time.
    axes.add_collection(LineCollection(leaders, colors=GREY, linewidths=0.4, zorder=2), autolim=False)
    cheapest, dearest = min(cost for cost, _ in points), max(cost for cost, _ in points)
    axes.set_xlim(cheapest / 1.1, dearest * 1.6)
    ticks = ratio_ticks(cheapest / 1.1, dearest * 1.6, _RATIOS)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return figure


def floor_of(accuracies: Sequence[Estimate]) -> float:
    """Return the height for drawing collapsed methods, below all other intervals; −inf if none has collapsed.

    Drawn to scale, collapsed methods would leave the other methods no room. Methods below the floor are therefore
    drawn at the floor, with their value.
    """
    values = sorted(each.value for each in accuracies if math.isfinite(each.value))
    if len(values) < _FEWEST:
        return -math.inf
    low, high = np.quantile(values[1:], [0.25, 0.75])  # with few values, the collapsed one would shift the quartiles
    cut = low - max(_COLLAPSED * (high - low), _LEAST_FALL)
    if values[0] >= cut:
        return -math.inf
    bottom, top = reach([each for each in accuracies if each.value >= cut])
    return bottom - _EDGE * max(top - bottom, _LEAST_FALL)


def reach(accuracies: Sequence[Estimate]) -> tuple[float, float]:
    """Return the lowest and the highest interval end; an estimate without an interval counts as a point."""
    ends = [each.value + side for each in accuracies for side in _sides(each) if math.isfinite(each.value)]
    return min(ends), max(ends)


def _sides(estimate: Estimate) -> tuple[float, float]:
    (below,), (above,) = bars(estimate) or [[0.0], [0.0]]
    return -below, above


def ratio_ticks(low: float, high: float, usual: Sequence[float]) -> list[float]:
    """Choose ticks for a logarithmic ratio axis: the usual ones, or finer ones if fewer than three usual ticks fit.

    Args:
        low: lower axis end.
        high: upper axis end.
        usual: ticks in ascending order.
    """
    ticks = [tick for tick in usual if low <= tick <= high]
    if len(ticks) >= _LEAST_TICKS:
        return ticks
    finer = MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in finer if low <= tick <= high]


def _columns(costs: Sequence[float]) -> list[list[int]]:
    """Group point indices by similar cost, cheapest first."""
    columns: list[list[int]] = []
    for number in sorted(range(len(costs)), key=lambda i: costs[i]):
        if columns and costs[number] <= costs[columns[-1][0]] * _SAME_COST:
            columns[-1].append(number)
        else:
            columns.append([number])
    return columns


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Spread ascending heights to a distance of at least `least`, by one upward pass and a common shift down."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    shift = sum(after - before for after, before in zip(moved, heights, strict=True)) / max(1, len(moved))
    return [height - shift for height in moved]
