"""Report figures, each drawn twice: by plotly for the screen, and by matplotlib for paper or without scripts.

Title and caption are taken from the matplotlib figure and removed from it. They become page text, readable at any
width and by a screen reader.
"""

import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from analysis.figures.calibration import draw_reliability
from analysis.figures.curves import MOST_TOGETHER, LearningCurve, Measure, draw_learning_curves, draw_small_multiples
from analysis.figures.drawing import BLUE, INK, VERMILION, Style, add_legend, bars, fix_layout, new_figure, style_of
from analysis.figures.intervention import draw_imposed_gaps
from analysis.figures.methods import draw_accuracy_against_cost, draw_methods
from analysis.figures.parallel import ParallelCoordinates, draw_parallel
from analysis.figures.pareto import draw_front
from analysis.figures.study import (
    GapAgainstAccuracy,
    History,
    ParameterEffect,
    draw_gap_against_accuracy,
    draw_history,
    draw_parameter_effect,
)
from analysis.questions.calibration import Reliability
from analysis.questions.costs import ConfigCost
from analysis.questions.importance import Importance
from analysis.questions.intervention import ImposedGap
from analysis.questions.pareto import Front
from analysis.reading.trials import BASELINE, ConfigSummary
from analysis.report import charts
from analysis.report.charts import Chart
from analysis.report.parallel_chart import least_width, parallel_chart
from analysis.report.typesetting import typeset

# Names in records are not formulas. With a fixed salt, equal records give equal bytes.
_AS_WRITTEN: Final[dict[Any, Any]] = {"text.parse_math": False, "svg.hashsalt": "pesfkd"}


_FEWEST_SHARED: Final = 3
_shared: list["Picture"] = []  # a forked process reads them here: drawing functions cannot be sent


class Printed(NamedTuple):
    """Version of a figure for paper.

    Args:
        title: title.
        caption: description, with n and method.
        svg: the figure, without both.
    """

    title: str
    caption: str
    svg: bytes


@dataclass(frozen=True)
class Picture:
    """Report figure.

    Args:
        key: anchor in the page.
        charts: plotly charts, one per panel.
        draw: draws the matplotlib version, with title and caption.
        least_width: width in pixels below which the chart scrolls sideways; 0 for a chart that fits all screens.
    """

    key: str
    charts: tuple[Chart, ...]
    draw: Callable[[], Figure]
    least_width: int = 0

    @cached_property
    def printed(self) -> Printed:
        """Version for paper, drawn when it is first read."""
        return _print(self.draw)

    @property
    def title(self) -> str:
        """Title."""
        return self.printed.title

    @property
    def caption(self) -> str:
        """Description, with n and method."""
        return self.printed.caption

    @property
    def svg(self) -> bytes:
        """Matplotlib version, for paper."""
        return self.printed.svg


def draw_all(pictures: Sequence[Picture]) -> None:
    """Draw the versions for paper, one half of them in a process forked for this. Each is kept in its picture.

    The time for drawing is most of the time of a report, and matplotlib holds the interpreter's lock. Forking is safe
    only as long as this process has a single thread. Otherwise, and on a single processor, all are drawn here.
    """
    if len(pictures) < _FEWEST_SHARED or len(os.sched_getaffinity(0)) < 2 or threading.active_count() > 1:
        return
    _shared[:] = pictures
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as other:
            elsewhere = {number: other.submit(_print_shared, number) for number in range(1, len(pictures), 2)}
            for picture in pictures[::2]:
                _ = picture.printed
            for number, printed in elsewhere.items():
                vars(pictures[number])["printed"] = printed.result()  # where `cached_property` keeps it
    except BrokenProcessPool:  # killed for memory, for example; what is missing is drawn when it is read
        pass
    finally:
        _shared.clear()


def _print_shared(number: int) -> Printed:
    return _shared[number].printed


def gap_picture(found: GapAgainstAccuracy) -> Picture:
    """Draw the gap against accuracy, with line and band."""
    return _picture("gap", lambda: draw_gap_against_accuracy(found), charts.gap_chart(found))


def front_picture(front: Front) -> Picture:
    """Draw a Pareto front."""
    return _picture("front", lambda: draw_front(front), *charts.front_charts(front))


def effect_picture(effect: ParameterEffect) -> Picture:
    """Draw one parameter against accuracy."""
    return _picture(f"slice-{effect.parameter}", lambda: draw_parameter_effect(effect), charts.effect_chart(effect))


def history_picture(history: History) -> Picture:
    """Draw the course of the search."""
    return _picture("history", lambda: draw_history(history), charts.history_chart(history))


def parallel_picture(found: ParallelCoordinates) -> Picture:
    """Draw the trials in a search as lines over all varied parameters."""
    picture = _picture("parallel", lambda: draw_parallel(found), parallel_chart(found))
    return replace(picture, least_width=least_width(found))


def curves_picture(curves: Sequence[LearningCurve], *, baseline: str = BASELINE) -> Picture:
    """Draw learning curves; if there are many, as small multiples for accuracy.

    Args:
        curves: learning curves for methods or confirmed configs.
        baseline: name of the curve repeated in all small multiples.
    """
    if len(curves) > MOST_TOGETHER:
        return _small_multiples(curves, "accuracy", baseline)
    return _picture("curves", lambda: draw_learning_curves(curves), *charts.curve_charts(curves))


def gap_curves_picture(curves: Sequence[LearningCurve], *, baseline: str = BASELINE) -> Picture | None:
    """Draw small multiples for the gap; None without a gap, and for few curves, drawn by `curves_picture` instead."""
    with_gap = [curve for curve in curves if np.isfinite(curve.gap).any()]
    return _small_multiples(with_gap, "gap", baseline) if len(curves) > MOST_TOGETHER and with_gap else None


def _small_multiples(curves: Sequence[LearningCurve], measure: Measure, baseline: str) -> Picture:
    drawn = charts.small_charts(curves, measure, baseline=baseline)
    key = "curves" if measure == "accuracy" else "gap-curves"
    return _picture(key, lambda: draw_small_multiples(curves, measure, baseline=baseline), *drawn)


def reliability_picture(found: Sequence[Reliability], split: str, left_out: Sequence[str] = ()) -> Picture:
    """Draw reliability diagrams for teacher, adapted teacher and student.

    Args:
        found: reliabilities to draw.
        split: `validation` or `test`.
        left_out: names of configs without a diagram.
    """
    labels = tuple(dict.fromkeys(each.label for each in found if each.label))
    styles = {label: style_of(label, labels) for label in labels} | {"": Style(INK, "o", "-")}
    drawn = charts.reliability_charts(found, styles)
    return _picture(f"reliability-{split}", lambda: draw_reliability(found, styles, split, left_out), *drawn)


def imposed_picture(arms: Sequence[ImposedGap], *, seed: int) -> Picture:
    """Draw accuracy and the measured gap over an imposed gap."""
    drawn = charts.imposed_charts(arms, seed=seed)
    return _picture("imposed", lambda: draw_imposed_gaps(arms, seed=seed), *drawn)


def methods_picture(configs: Sequence[ConfigSummary]) -> Picture:
    """Draw every method with its interval."""
    return _picture("methods", lambda: draw_methods(configs), charts.methods_chart(configs))


def cost_picture(configs: Sequence[ConfigSummary], costs: Mapping[str, ConfigCost], *, compares: bool) -> Picture:
    """Draw accuracy against cost, with the front."""
    named, baseline = configs, BASELINE
    if not compares:  # In a search, all configs but the controls share one method, so points are named by config.
        named = [replace(each, method=charts.point_name(each)) for each in configs]
        baseline = next((charts.point_name(each) for each in configs if each.method == BASELINE), BASELINE)
    drawn = charts.cost_chart(configs, costs, compares=compares)
    return _picture("cost", lambda: draw_accuracy_against_cost(named, costs, baseline=baseline), drawn)


def importance_picture(found: Sequence[Importance]) -> Picture:
    """Draw the parameter importances."""
    return _picture("importance", lambda: _draw_importances(found), charts.importance_chart(found))


def _draw_importances(found: Sequence[Importance]) -> Figure:
    parameters = list(dict.fromkeys(each.parameter for each in found))[::-1]
    evaluators = list(dict.fromkeys(each.evaluator for each in found))
    caption = f"{found[0].estimate.n} searched configs; bars: 0.95 Student t intervals by a delete-half jackknife. "
    caption += "Shares sum to one even without any effect, so compare them with the p-values. Exploratory."
    figure, (axes,) = new_figure("Which parameters mattered", caption)
    figure.set_figheight(1.8 + 0.35 * max(3, len(parameters)))
    for place, evaluator in enumerate(evaluators):
        colour, marker = ((BLUE, "o"), (VERMILION, "s"))[place % 2]
        for number, each in enumerate(one for one in found if one.evaluator == evaluator):
            row = parameters.index(each.parameter) + (0.12 if place else -0.12) * (len(evaluators) > 1)
            axes.errorbar(
                [each.estimate.value], [row], xerr=bars(each.estimate), fmt=marker, color=colour, capsize=3,
                label=None if number else evaluator,
            )  # fmt: skip
    axes.set_yticks(range(len(parameters)), [each.replace("_", " ") for each in parameters])
    axes.set_xlabel("share of importance")
    add_legend(axes)
    return figure


def _picture(key: str, draw: Callable[[], Figure], *drawn: Chart) -> Picture:
    return Picture(key, drawn, draw)


def _print(draw: Callable[[], Figure]) -> Printed:
    with mpl.rc_context(_AS_WRITTEN):
        figure = draw()
        title, caption = figure.get_suptitle(), typeset(figure.get_supxlabel().replace("\n", " "))
        figure.suptitle("")
        figure.supxlabel("")
        stream = io.BytesIO()
        fix_layout(figure, dpi=72)  # SVG resolution
        # Without the title, some legends would extend beyond the edge.
        bounds = figure.get_tightbbox().padded(mpl.rcParams["savefig.pad_inches"])
        figure.savefig(stream, format="svg", bbox_inches=bounds, metadata={"Date": None, "Creator": None})
    return Printed(title, caption, stream.getvalue())
