"""Parallel coordinates for a search: one line per trial over the varied parameters, the gap and the objective."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.drawing import GREY, INK, new_figure
from analysis.figures.methods import ratio_ticks
from analysis.figures.robust import Window, find_window, outlier_note, score_window
from analysis.figures.study import trial_labels
from analysis.reading.trials import (
    SEARCH,
    SHARPNESS_GAP,
    StudyRecords,
    numbers,
    objective,
    select,
    trial_scores,
    varied_fields,
)
from analysis.statistics.resampling import Floats
from trainables.display.numbers import format_number

LEVELS: Final = 12  # number of colours
FEWEST: Final = 3  # trials; fewer lines show nothing
_LEAST_VARIED: Final = 2  # with one parameter, the parameter figure shows the same
_LOG_TICKS: Final = tuple(base * 10.0**power for power in range(-9, 10) for base in (1, 2, 5))
_FEW_DECADES: Final = 1.5
# Colours for the lowest, the middle and the highest objective; all are visible on white and on black.
_SCALE: Final = ((185, 198, 208), (0, 114, 178), (213, 94, 0))
_ROOM: Final = 0.04


@dataclass(frozen=True)
class ParallelAxis:
    """Figure axis.

    Args:
        name: quantity in words.
        places: (n,) each trial's place on the axis from 0 to 1; nan for a trial without the parameter. Values outside
            the axis window are at the nearest end.
        ticks: places from 0 to 1, with their labels.
        is_log: whether the axis is logarithmic.
    """

    name: str
    places: Floats
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False


@dataclass(frozen=True)
class ParallelCoordinates:
    """Finished trials in a search.

    Args:
        axes: axes, the objective last.
        level: (n,) trial colour, from 0 for the lowest objective to `LEVELS` - 1.
        labels: (n,) trial, config, seed and values in lines, for hover boxes.
        objective: objective name.
        outliers: sentences on values outside an axis; empty without any.
    """

    axes: tuple[ParallelAxis, ...]
    level: np.ndarray
    labels: tuple[str, ...]
    objective: str
    outliers: str = ""


def compute_parallel(records: StudyRecords) -> ParallelCoordinates | None:
    """Collect the finished trials in a search; None for fewer than three, or fewer than two varied parameters."""
    varied = varied_fields(records.trials)
    trials = select(records.trials, stages=[SEARCH])
    trials = trials.filter(pa.array(np.isfinite(trial_scores(trials)), pa.bool_()))
    if trials.num_rows < FEWEST or len(varied) < _LEAST_VARIED:
        return None
    axes = [_parameter_axis(trials, name, is_log=name in records.searched_in_logs) for name in varied]
    scores, gaps, words = trial_scores(trials), numbers(trials, SHARPNESS_GAP), objective(trials)
    gap_window, score_range = find_window(gaps), score_window(scores)
    if np.isfinite(gaps).any():
        axes.append(_numeric_axis("gap (nats)", gaps, gap_window))
    axes.append(_numeric_axis(f"validation {words}", scores, score_range))
    level = np.minimum((np.nan_to_num(axes[-1].places) * LEVELS).astype(np.int64), LEVELS - 1)
    outliers = outlier_note(gaps, gap_window, "gap") + outlier_note(scores, score_range, words)
    labels = tuple(
        f"{label}\n{words} {format_number(score)}" + (f", gap {format_number(gap)}" if math.isfinite(gap) else "")
        for label, score, gap in zip(trial_labels(trials), scores, gaps, strict=True)
    )
    return ParallelCoordinates(tuple(axes), level, labels, words, outliers.replace("Triangles", "Lines"))


def _parameter_axis(trials: pa.Table, name: str, *, is_log: bool) -> ParallelAxis:
    values, words = trials[name].to_pylist(), name.replace("_", " ")
    if any(isinstance(value, bool | str) for value in values):
        return _categorical_axis(words, values)
    given = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    return _numeric_axis(words, given, Window(), is_log=is_log and bool((given[np.isfinite(given)] > 0).all()))


def _categorical_axis(name: str, values: Sequence[Any]) -> ParallelAxis:
    kinds = sorted({str(value) for value in values if value is not None})
    step = 1 / max(1, len(kinds) - 1)
    at = {kind: place * step if len(kinds) > 1 else 0.5 for place, kind in enumerate(kinds)}
    places = np.array([math.nan if value is None else at[str(value)] for value in values], dtype=np.float64)
    return ParallelAxis(name, places, tuple((place, kind) for kind, place in at.items()))


def _numeric_axis(name: str, values: Floats, window: Window, *, is_log: bool = False) -> ParallelAxis:
    shown = window.clip(values)
    known = shown[np.isfinite(shown)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)

    scale = np.log if is_log else np.asarray
    start, end = float(scale(low)), float(scale(high))

    def place(value: Floats) -> Floats:
        return np.asarray(
            (scale(value) - start) / (end - start) if end > start else 0.5 + 0.0 * value, dtype=np.float64
        )

    ticks = [(float(place(np.asarray(tick))), f"{tick:g}") for tick in _ticks(low, high, is_log=is_log)]
    return ParallelAxis(name, place(shown), tuple(ticks), is_log)


def _ticks(low: float, high: float, *, is_log: bool) -> list[float]:
    if low == high:
        return [low]
    if not is_log:
        found = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
        return [float(each) for each in found if low <= each <= high]
    ticks = ratio_ticks(low, high, _LOG_TICKS)
    if math.log10(high / low) > _FEW_DECADES:
        ticks = [each for each in ticks if math.isclose(math.log10(each) % 1, 0, abs_tol=1e-9)]
    return ticks if len(ticks) > 1 else [low, high]


def colour_of(level: int) -> str:
    """Return a level's colour as `#rrggbb`, from grey (lowest objective) over blue to orange (highest)."""
    at = 2 * level / (LEVELS - 1)
    first = min(int(at), 1)
    mixed = (a + (b - a) * (at - first) for a, b in zip(_SCALE[first], _SCALE[first + 1], strict=True))
    return "#" + "".join(f"{round(each):02x}" for each in mixed)


def draw_parallel(found: ParallelCoordinates) -> Figure:
    """Draw one line per trial, with high objectives on top."""
    logs = [each.name for each in found.axes if each.is_log]
    caption = (
        f"n = {len(found.labels)} finished search trials, one seed each: a line per trial. Colour: {found.objective}, "
        "from grey (lowest) over blue to orange (highest)."
        + (f" Logarithmic axes: {', '.join(logs)}." if logs else "")
        + found.outliers
    )
    figure, (panel,) = new_figure("Parallel coordinates", caption)
    across = range(len(found.axes))
    for trial in np.argsort(found.level, kind="stable"):
        panel.plot(
            across, [each.places[trial] for each in found.axes], color=colour_of(found.level[trial]), linewidth=1
        )
    for place, axis in enumerate(found.axes):
        panel.axvline(place, color=GREY, linewidth=0.8)
        for at, label in axis.ticks:
            panel.annotate(label, (place, at), (3, 0), textcoords="offset points", fontsize=7, color=INK, va="center")
    panel.grid(visible=False)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.set_yticks([])
    panel.set_ylim(-_ROOM, 1 + _ROOM)
    panel.set_xlim(-_ROOM, len(found.axes) - 1 + 0.5)
    panel.set_xticks(list(across), [each.name.replace(" ", "\n") for each in found.axes], fontsize=8)
    return figure
