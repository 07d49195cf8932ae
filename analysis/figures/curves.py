"""Learning curves: mean and spread of accuracy and gap per epoch.

Up to `MOST_TOGETHER` curves share a panel for each measure. More curves become small multiples: one panel per curve,
with the name and the last mean as the title, and all other curves in grey behind.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.drawing import GAP_LABEL, GREY, INK, add_legend, new_figure, new_grid, score_label, style_of
from analysis.figures.robust import Window, find_window, limit_axes, score_window
from analysis.reading.trials import (
    BASELINE,
    CONFIRM,
    REPEATED,
    SEARCH,
    SHARPNESS_GAP,
    STUDENT,
    method_names,
    numbers,
    objective,
    objective_measure,
    possible_range,
    select,
)
from analysis.statistics.resampling import Floats
from trainables.display.numbers import GAP_PLACES, SCORE_PLACES, format_number

Measure: TypeAlias = Literal["accuracy", "gap"]
MEASURES: Final[tuple[Measure, ...]] = ("accuracy", "gap")
MOST_TOGETHER: Final = 5  # curves that readers can tell apart in one panel
_ACROSS: Final = 4  # small multiples in a row
_PLACES: Final[Mapping[Measure, int]] = {"accuracy": SCORE_PLACES, "gap": GAP_PLACES}


@dataclass(frozen=True)
class LearningCurve:
    """Mean and standard deviation per epoch over the trials of one method.

    Args:
        method: distillation method, with the student if the study has several, or name of a confirmed config.
        stage: `repeated` (controls and promising configs on fresh seeds), `search` if nothing was repeated, or
            `confirm`.
        n: number of trials.
        configs: number of different configs among the trials.
        epoch: (E,) from 1.
        accuracy: (E, 2) mean and standard deviation, as fractions.
        gap: (E, 2) mean and standard deviation, in nats; nan for a method without a gap.
        objective: name of the objective used as accuracy.
        possible: smallest and largest possible value of the objective.
    """

    method: str
    stage: str
    n: int
    configs: int
    epoch: NDArray[np.int64]
    accuracy: Floats
    gap: Floats
    objective: str = "accuracy"
    possible: tuple[float, float] = (0.0, 1.0)

    def band(self, measure: Measure) -> tuple[Floats, Floats, Floats]:
        """Return the mean, and the lower and upper end of one standard deviation (E,), cut to the possible range."""
        mean, spread = (self.accuracy if measure == "accuracy" else self.gap).T
        least, most = self.possible if measure == "accuracy" else (-math.inf, math.inf)
        return mean, np.clip(mean - spread, least, most), np.clip(mean + spread, least, most)

    def last(self, measure: Measure) -> float:
        """Return the mean at the last epoch that has one; nan without any."""
        mean = self.band(measure)[0]
        known = mean[np.isfinite(mean)]
        return float(known[-1]) if len(known) else math.nan


def compute_learning_curves(
    trials: pa.Table, epochs: pa.Table, confirmed: Mapping[str, str] | None = None
) -> list[LearningCurve]:
    """Compute accuracy and gap per epoch of each method, over finished repetitions on fresh seeds.

    If nothing was repeated, the curves are of the finished search trials, and `stage` is `search`.

    Args:
        trials: trials of a study.
        epochs: epoch records of these trials.
        confirmed: names of confirmed configs by `config_id`. If given, there is one curve per confirmed config, over
            finished trials of the confirmation.
    """
    shown, stage = select(trials, stages=REPEATED), "repeated"
    if confirmed is not None:
        shown, stage = select(trials, stages=[CONFIRM]), CONFIRM
        shown = shown.filter(pc.is_in(shown["config_id"], pa.array(list(confirmed), pa.string())))
    elif not shown.num_rows:
        shown, stage = select(trials, stages=[SEARCH]), SEARCH
    trial_ids, configs = (shown[name].to_pylist() for name in ("trial_id", "config_id"))
    methods = method_names(shown)
    students = shown[STUDENT].to_pylist() if STUDENT in shown.column_names else []
    if len(set(students)) > 1:
        methods = [f"{method} ({student})" for method, student in zip(methods, students, strict=True)]
    if confirmed is not None:
        methods = [confirmed[config] for config in configs]
    owners = np.array(epochs["trial_id"].to_pylist(), dtype=object)
    numbered = numbers(epochs, "epoch").astype(np.int64)
    measure = objective_measure(shown)
    measures = {name: numbers(epochs, name) for name in (measure, SHARPNESS_GAP)}
    curves = []
    for method in dict.fromkeys(methods):
        own = {trial for trial, of in zip(trial_ids, methods, strict=True) if of == method}
        rows = np.isin(owners, list(own))
        grid = np.unique(numbered[rows])
        curves.append(
            LearningCurve(
                method=method,
                stage=stage,
                n=len(own),
                configs=len({c for c, of in zip(configs, methods, strict=True) if of == method}),
                epoch=grid,
                accuracy=_mean_and_spread(numbered[rows], measures[measure][rows], grid),
                gap=_mean_and_spread(numbered[rows], measures[SHARPNESS_GAP][rows], grid),
                objective=objective(shown),
                possible=possible_range(measure),
            )
        )
    return curves


def _mean_and_spread(epoch: NDArray[np.int64], values: Floats, grid: NDArray[np.int64]) -> Floats:
    """Compute mean and standard deviation (E, 2) of the values at each epoch of the grid; nan without values."""
    result = np.full((len(grid), 2), math.nan)
    for row, at in enumerate(grid):
        present = values[(epoch == at) & ~np.isnan(values)]
        if len(present):
            result[row] = present.mean(), present.std(ddof=1) if len(present) > 1 else 0.0
    return result


def curve_window(curves: Sequence[LearningCurve], measure: Measure) -> Window:
    """Find the window of an axis with these curves, by all means and ends of bands."""
    values = [value for curve in curves for part in curve.band(measure) for value in part.tolist()]
    return score_window(values) if measure == "accuracy" else find_window(values)


def curve_label(curve: LearningCurve, measure: Measure = "accuracy") -> str:
    """Return the name of a curve, followed by the last mean."""
    return f"{curve.method} {format_number(curve.last(measure), _PLACES[measure])}".rstrip()


def best_first(curves: Sequence[LearningCurve]) -> list[LearningCurve]:
    """Sort curves by the last mean accuracy, highest first."""
    return sorted(curves, key=lambda curve: -np.nan_to_num(curve.last("accuracy"), nan=-math.inf))


def axis_label(curves: Sequence[LearningCurve], measure: Measure) -> str:
    """Return the label of the axis of a measure."""
    return GAP_LABEL if measure == "gap" else score_label(curves[0].objective if curves else "accuracy")


def draw_learning_curves(curves: Sequence[LearningCurve], *, baseline: str = BASELINE) -> Figure:
    """Draw accuracy and sharpness gap per epoch: mean and one standard deviation over trials.

    Args:
        curves: one curve per method or config. More than `MOST_TOGETHER` are drawn as small multiples.
        baseline: name of the curve that every small panel repeats.
    """
    if len(curves) > MOST_TOGETHER:
        return draw_small_multiples(curves, "accuracy", baseline=baseline)
    methods = tuple(curve.method for curve in curves)
    counts = "; ".join(f"{c.method}: n = {c.n}, configs = {c.configs}" for c in curves) or "n = 0"
    caption, windows = f"{_about(curves)} {counts}.", {measure: curve_window(curves, measure) for measure in MEASURES}
    caption += "".join(beyond_axis(curves, measure, windows[measure]) for measure in MEASURES)
    figure, panels = new_figure("Learning curves", caption, panels=2, width=9.5)
    for axes, measure in zip(panels, MEASURES, strict=True):
        for curve in curves:
            mean, low, high = curve.band(measure)
            if not np.isfinite(mean).any():
                continue
            style = style_of(curve.method, methods)
            axes.plot(curve.epoch, mean, style.dash, color=style.colour, linewidth=1.6, label=curve.method)
            axes.fill_between(curve.epoch, low, high, color=style.colour, alpha=0.15, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(axis_label(curves, measure))
        limit_axes(axes, y=windows[measure])
        add_legend(axes)
    return figure


def draw_small_multiples(
    curves: Sequence[LearningCurve], measure: Measure = "accuracy", *, baseline: str = BASELINE
) -> Figure:
    """Draw one panel per curve, best accuracy first, with name and last mean as the title of the panel.

    Args:
        curves: one curve per method or config.
        measure: `accuracy` or `gap`.
        baseline: name of the curve that every panel repeats, dashed.
    """
    known = [curve for curve in curves if np.isfinite(curve.band(measure)[0]).any()]
    shown, window = best_first(known), curve_window(known, measure)
    counts = sorted({curve.n for curve in shown})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    caption = f"{_about(shown)} n = {n} each. Title: name and last mean. Grey: all other curves; dashed: {baseline}."
    caption += beyond_axis(shown, measure, window)
    title = "Learning curves" if measure == "accuracy" else "Learning curves of the sharpness gap"
    figure, panels = new_grid(title, caption, panels=len(shown), across=_ACROSS)
    own = next((curve for curve in shown if curve.method == baseline), None)
    for number, (axes, curve) in enumerate(zip(panels, shown, strict=True)):
        _draw_panel(axes, curve, shown, own, measure)
        limit_axes(axes, y=window)
        axes.tick_params(labelsize=7, labelbottom=number >= len(shown) - _ACROSS, labelleft=not number % _ACROSS)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    if panels:
        figure.supylabel(axis_label(shown, measure), fontsize=9)
        for axes in panels[-_ACROSS:]:
            axes.set_xlabel("epoch", fontsize=8)
    return figure


def _draw_panel(
    axes: Axes,
    curve: LearningCurve,
    others: Sequence[LearningCurve],
    baseline: LearningCurve | None,
    measure: Measure,
) -> None:
    for other in others:
        axes.plot(other.epoch, other.band(measure)[0], color="#d0d0d0", linewidth=0.6)
    style = style_of(curve.method, (curve.method,))
    if baseline is not None and baseline is not curve:
        axes.plot(baseline.epoch, baseline.band(measure)[0], "--", color=GREY, linewidth=1.0)
    mean, low, high = curve.band(measure)
    axes.plot(curve.epoch, mean, color=style.colour, linewidth=1.8)
    axes.fill_between(curve.epoch, low, high, color=style.colour, alpha=0.2, linewidth=0)
    axes.set_title(curve_label(curve, measure), fontsize=8, loc="left", color=INK, pad=3)


def _about(curves: Sequence[LearningCurve]) -> str:
    stages = {curve.stage for curve in curves}
    source = "search trials" if SEARCH in stages else "repeated trials on fresh seeds"
    source = "confirmed trials on fresh seeds, validation split" if CONFIRM in stages else source
    return f"Mean and one standard deviation over {source} (spread of trials, not an interval)."


def beyond_axis(curves: Sequence[LearningCurve], measure: Measure, window: Window) -> str:
    """Name the curves with a mean outside of the axis, with the most distant value, as a sentence for the caption."""
    found = []
    for curve in curves:
        mean = curve.band(measure)[0]
        outside = mean[window.outside(mean)]
        if len(outside):
            farthest = max(outside.tolist(), key=abs) if measure == "gap" else float(outside.min())
            found.append(f"{curve.method} ({format_number(farthest, _PLACES[measure])})")
    named = ", ".join(found)
    words = curves[0].objective if curves and measure == "accuracy" else measure
    return f" The {words} axis leaves out the outlying part of {named}." if found else ""
