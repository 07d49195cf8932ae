"""Learning curves: mean and spread of accuracy and gap per epoch.

Up to `MOST_TOGETHER` curves share a panel for each measure. More curves become small multiples: one panel per curve,
with name and last mean as the title, and all other curves in grey behind.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.drawing import GAP_LABEL, GREY, INK, add_legend, new_figure, score_label, style_of
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
MOST_TOGETHER: Final = 5  # distinguishable curves in one panel
_ACROSS: Final = 4  # small multiples in a row
_ROW_INCHES: Final = 1.5
_LINE_INCHES: Final = 0.13  # another line of a title
_TITLE_LETTERS: Final = 30
# Position of a small panel in a cell with width and height 1.
_LEFT, _WIDE, _LOW, _HIGH = 0.08, 0.86, 0.14, 0.66
_PLACES: Final[Mapping[Measure, int]] = {"accuracy": SCORE_PLACES, "gap": GAP_PLACES}


@dataclass(frozen=True)
class LearningCurve:
    """Mean and standard deviation per epoch over the trials with one method.

    Args:
        method: distillation method, with the student if the study has several, or name of a confirmed config.
        stage: `repeated` (controls and promising configs on fresh seeds), `search` if nothing was repeated, or
            `confirm`.
        n: number of trials.
        configs: number of different configs among the trials.
        epoch: (E,) from 1.
        accuracy: (E, 2) mean and standard deviation, as fractions.
        gap: (E, 2) mean and standard deviation, in nats; nan without a gap.
        objective: name of the objective used as accuracy.
        possible: smallest and largest possible objective value.
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
        """Return the mean at the last epoch with a value; nan without any."""
        mean = self.band(measure)[0]
        known = mean[np.isfinite(mean)]
        return float(known[-1]) if len(known) else math.nan


def compute_learning_curves(
    trials: pa.Table, epochs: pa.Table, confirmed: Mapping[str, str] | None = None
) -> list[LearningCurve]:
    """Compute each method's accuracy and gap per epoch, over finished repetitions on fresh seeds.

    If nothing was repeated, the curves show finished search trials, and `stage` is `search`.

    Args:
        trials: study trials.
        epochs: epoch records for these trials.
        confirmed: confirmed config names by `config_id`. If given, there is one curve per confirmed config, over
            finished confirmation trials.
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
    """Compute mean and standard deviation (E, 2) at each epoch in the grid; nan without values."""
    result = np.full((len(grid), 2), math.nan)
    for row, at in enumerate(grid):
        present = values[(epoch == at) & ~np.isnan(values)]
        if len(present):
            result[row] = present.mean(), present.std(ddof=1) if len(present) > 1 else 0.0
    return result


def curve_window(curves: Sequence[LearningCurve], measure: Measure) -> Window:
    """Find the axis window for these curves.

    A curve is left out as a whole if its last mean is an outlier among the curves. The window holds all other means,
    without single outlying epochs.
    """
    find = score_window if measure == "accuracy" else find_window
    ends = [curve.last(measure) for curve in curves]
    left_out = find(ends).outside(ends)
    kept = [curve for curve, out in zip(curves, left_out, strict=True) if not out]
    means = np.concatenate([np.array([]), *(curve.band(measure)[0] for curve in kept)])
    inner = find(means.tolist())
    if not left_out.any():
        return inner
    values = means[np.isfinite(means) & ~inner.outside(means)]
    room = 0.1 * (float(np.ptp(values)) or 1.0)
    low = float(values.min()) - room if any(ends[i] < values.min() for i in np.flatnonzero(left_out)) else inner.low
    high = float(values.max()) + room if any(ends[i] > values.max() for i in np.flatnonzero(left_out)) else inner.high
    return Window(low, high)


def curve_label(curve: LearningCurve, measure: Measure = "accuracy") -> str:
    """Return a curve's name, followed by the last mean."""
    return f"{curve.method} {format_number(curve.last(measure), _PLACES[measure])}".rstrip()


def best_first(curves: Sequence[LearningCurve]) -> list[LearningCurve]:
    """Sort curves by last mean accuracy, highest first."""
    return sorted(curves, key=lambda curve: -np.nan_to_num(curve.last("accuracy"), nan=-math.inf))


def axis_label(curves: Sequence[LearningCurve], measure: Measure) -> str:
    """Return a measure's axis label."""
    return GAP_LABEL if measure == "gap" else score_label(curves[0].objective if curves else "accuracy")


def draw_learning_curves(curves: Sequence[LearningCurve], *, baseline: str = BASELINE) -> Figure:
    """Draw accuracy and sharpness gap per epoch: mean and one standard deviation over trials.

    Args:
        curves: one curve per method or config. More than `MOST_TOGETHER` are drawn as small multiples.
        baseline: name of the curve repeated in every small panel.
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
    """Draw one panel per curve, best accuracy first, with name and last mean as the panel title.

    Args:
        curves: one curve per method or config.
        measure: `accuracy` or `gap`.
        baseline: name of the curve repeated in every panel, dashed.
    """
    known = [curve for curve in curves if np.isfinite(curve.band(measure)[0]).any()]
    shown, window = best_first(known), curve_window(known, measure)
    counts = sorted({curve.n for curve in shown})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    caption = f"{_about(shown)} n = {n} each. Title: name and last mean. Grey: all other curves; dashed: {baseline}."
    caption += beyond_axis(shown, measure, window)
    title = "Learning curves" if measure == "accuracy" else "Learning curves of the sharpness gap"
    rows = max(1, math.ceil(len(shown) / _ACROSS))
    titles = [textwrap.fill(curve_label(curve, measure), _TITLE_LETTERS) for curve in shown]
    row_inches = _ROW_INCHES + _LINE_INCHES * max((text.count("\n") for text in titles), default=0)
    figure, (axes,) = new_figure(title, caption, width=9.5)
    figure.set_figheight(1.2 + row_inches * rows)
    axes.set_axis_off()
    axes.set_xlim(0, _ACROSS)
    axes.set_ylim(-rows, 0)
    if shown:
        axes.text(-0.02, 0.02, axis_label(shown, measure), fontsize=8, va="bottom", color=INK)
        dashed = next((curve for curve in shown if curve.method == baseline), None)
        _draw_cells(axes, shown, titles, dashed, measure, window, height=_ROW_INCHES / row_inches)
    return figure


def _draw_cells(
    axes: Axes,
    shown: Sequence[LearningCurve],
    titles: Sequence[str],
    baseline: LearningCurve | None,
    measure: Measure,
    window: Window,
    *,
    height: float,
) -> None:
    """Draw all small panels into one matplotlib panel, several times as fast as one panel for each.

    Args:
        axes: matplotlib panel, one unit per cell.
        shown: curves.
        titles: title of each small panel, wrapped.
        baseline: curve repeated in every cell.
        measure: `accuracy` or `gap`.
        window: window of the vertical axis.
        height: height of a cell without the second and further lines of the title.
    """
    low_end, high = _LOW * height, _HIGH * height
    means = [curve.band(measure)[0] for curve in shown]
    values = window.clip(np.concatenate([part for curve in shown for part in curve.band(measure)]))
    bottom, top = float(np.nanmin(values)), float(np.nanmax(values))
    first, last = min(int(curve.epoch.min()) for curve in shown), max(int(curve.epoch.max()) for curve in shown)

    def placed(curve: LearningCurve, heights: Floats, number: int) -> Floats:
        """Return a line's points (E, 2) in the cell with the given number."""
        across = number % _ACROSS + _LEFT + _WIDE * (curve.epoch - first) / max(1, last - first)
        cut = np.clip(heights, bottom, top)
        up = -(number // _ACROSS) - 1 + low_end + high * (cut - bottom) / ((top - bottom) or 1.0)
        points = np.column_stack([across, up])
        return np.asarray(points[np.isfinite(points).all(axis=1)])

    greys, dashed, own, bands, frames = [], [], [], [], []
    for number, (curve, title) in enumerate(zip(shown, titles, strict=True)):
        x, y = number % _ACROSS + _LEFT, -(number // _ACROSS) - 1 + low_end
        frames.append(np.array([[x, y + high], [x, y], [x + _WIDE, y]]))
        greys += [placed(other, mean, number) for other, mean in zip(shown, means, strict=True)]
        if baseline is not None and baseline is not curve:
            dashed.append(placed(baseline, baseline.band(measure)[0], number))
        mean, under, over = (placed(curve, part, number) for part in curve.band(measure))
        own.append(mean)
        bands.append(np.concatenate([under, over[::-1]]))
        axes.text(x, y + high + 0.03, title, fontsize=8, va="bottom", color=INK)
        for place, value in ((y, bottom), (y + high, top)) if not number % _ACROSS else ():
            label = format_number(value, _PLACES[measure])
            axes.text(x - 0.02, place, label, fontsize=7, ha="right", va="center", color=INK)
        if number >= len(shown) - _ACROSS:
            axes.text(x, y - 0.03, f"epoch {first}", fontsize=7, ha="left", va="top", color=INK)
            axes.text(x + _WIDE, y - 0.03, str(last), fontsize=7, ha="right", va="top", color=INK)
    axes.add_collection(LineCollection(frames, colors=GREY, linewidths=0.6), autolim=False)
    axes.add_collection(LineCollection(greys, colors="#d8d8d8", linewidths=0.5), autolim=False)
    colours = [style_of(curve.method, (curve.method,)).colour for curve in shown]
    axes.add_collection(PolyCollection(bands, facecolors=colours, alpha=0.2, linewidths=0), autolim=False)
    axes.add_collection(LineCollection(dashed, colors=GREY, linewidths=1.0, linestyles="dashed"), autolim=False)
    axes.add_collection(LineCollection(own, colors=colours, linewidths=1.6), autolim=False)


def _about(curves: Sequence[LearningCurve]) -> str:
    stages = {curve.stage for curve in curves}
    source = "search trials" if SEARCH in stages else "repeated trials on fresh seeds"
    source = "confirmed trials on fresh seeds, validation split" if CONFIRM in stages else source
    return f"Mean and one standard deviation over {source} (spread of trials, not an interval)."


def beyond_axis(curves: Sequence[LearningCurve], measure: Measure, window: Window) -> str:
    """Name the curves with a mean outside the axis, with the most distant value, as a caption sentence."""
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
