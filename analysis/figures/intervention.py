"""Figure for imposed gaps."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.drawing import BLUE, GREY, VERMILION, Style, add_legend, new_figure, score_label
from analysis.figures.robust import Window, find_window, limit_axes, mark_outliers, outlier_note, score_window
from analysis.questions.intervention import Control, ImposedGap, fitted_line
from analysis.statistics.estimates import MIN_UNITS
from analysis.statistics.resampling import CONFIDENCE
from trainables.display.numbers import format_percent

ARM_STYLES: Final[dict[Control, Style]] = {
    "centred": Style(BLUE, "o", "-"),
    "paper": Style(VERMILION, "s", "--"),
    "placebo": Style(GREY, "^", ":"),
}


def imposed_windows(arms: Sequence[ImposedGap]) -> tuple[Window, Window]:
    """Return the axis windows for accuracies and for measured gaps over all arms."""
    return (
        score_window(value for arm in arms for value in arm.accuracy.tolist()),
        find_window(value for arm in arms for value in arm.gap.tolist()),
    )


def draw_imposed_gaps(arms: Sequence[ImposedGap], *, seed: int = 0) -> Figure:
    """Draw accuracy and the measured gap over the imposed gap, in two panels.

    Args:
        arms: arms in one study.
        seed: random seed for the bands.
    """
    counts = ", ".join(f"{arm.control} {len(arm.target)}" for arm in arms) or "none"
    caption = (
        f"Trials: {counts}. Lines: least squares with a pointwise {format_percent(CONFIDENCE)} bootstrap "
        "band. The target of the placebo is a constant added to all teacher logits, which does not affect the student. "
    )
    caption += f"{arms[0].evidence.capitalize()}: {arms[0].note}." if arms else ""
    accuracies, gaps = imposed_windows(arms)
    for window, measured, name in ((accuracies, [arm.accuracy for arm in arms], arms[0].objective if arms else ""),
                                 (gaps, [arm.gap for arm in arms], "gap")):  # fmt: skip
        caption += outlier_note(np.concatenate(measured), window, name) if measured else ""
    figure, panels = new_figure("Imposed gap", caption, panels=2, width=10.0)
    for arm in arms:
        style = ARM_STYLES[arm.control]
        for panel, values, window in zip(panels, (arm.accuracy, arm.gap), (accuracies, gaps), strict=True):
            shown = ~mark_outliers(panel, arm.target, values, (Window(), window), colour=style.colour)
            panel.plot(arm.target[shown], values[shown], style.marker, color=style.colour, label=arm.control, alpha=0.7)
            if np.ptp(arm.target) > 0 and len(arm.target) >= MIN_UNITS:
                grid, line, low, high = fitted_line(arm.target, values, seed)
                panel.plot(grid, line, style.dash, color=style.colour)
                panel.fill_between(grid, low, high, color=style.colour, alpha=0.12, linewidth=0)
    for panel, window in zip(panels, (accuracies, gaps), strict=True):
        limit_axes(panel, y=window)
        panel.set_xlabel("target, or constant of the placebo (nats)")
    panels[0].set_ylabel(score_label(arms[0].objective if arms else "accuracy"))
    panels[1].set_ylabel("imposed gap of the arm (nats)")
    add_legend(panels[0])
    return figure
