"""Shared look of all figures: palette, captions and error bars."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.robust import Window, limit_axes, mark_outliers, outlier_note, row_window
from analysis.statistics.estimates import Estimate

# Palette by Okabe and Ito (2008), distinguishable under every common colour-vision deficiency. Markers and dashes
# encode the same distinction.
INK, GREY = "#222222", "#7a7a7a"
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"

_LONG_LABEL = 30  # letters; legends with longer labels use one column

GAP_LABEL = "sharpness gap, teacher − student (nats)"


def score_label(objective: str, split: str = "validation") -> str:
    """Return the axis label for the objective on a split.

    Args:
        objective: objective name.
        split: `validation` or `test`.
    """
    return f"{split} {objective}" + (" (fraction)" if objective == "accuracy" else "")


def capitalised(text: str) -> str:
    """Return the text with an upper-case first letter and all other letters unchanged."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Style:
    """Method style, the same in every figure."""

    colour: str
    marker: str
    dash: str


_STYLES = {
    "pesf_kd": Style(BLUE, "o", "-"),
    "kd": Style(ORANGE, "s", "--"),
    "ce": Style(GREY, "^", ":"),
}
_OTHERS = (
    Style(GREEN, "D", "-."),
    Style(VERMILION, "v", "--"),
    Style(PURPLE, "P", "-."),
    Style(SKY, "X", ":"),
)
_NUMBERED = (
    Style(BLUE, "o", "-"),
    Style(VERMILION, "s", "--"),
    Style(GREEN, "D", "-."),
    Style(PURPLE, "P", ":"),
    Style(ORANGE, "^", "--"),
    Style(SKY, "X", "-."),
    Style(GREY, "v", ":"),
)


def style_of_number(number: int) -> Style:
    """Return the style for the item with the given number, from 0, for items other than methods."""
    return _NUMBERED[number % len(_NUMBERED)]


def style_of(method: str, methods: tuple[str, ...]) -> Style:
    """Return a method's style; methods without a fixed style take the next free one, in the order of `methods`."""
    if method in _STYLES:
        return _STYLES[method]
    others = [name for name in methods if name not in _STYLES]
    return _OTHERS[others.index(method) % len(_OTHERS)]


def new_figure(title: str, caption: str, *, panels: int = 1, width: float = 7.0) -> tuple[Figure, list[Axes]]:
    """Create a figure with a number of panels side by side, the title above and the caption below."""
    figure = Figure(figsize=(width, 4.6), dpi=120, layout="constrained")
    axes = [figure.add_subplot(1, panels, panel + 1) for panel in range(panels)]
    _prepare(figure, axes, title, caption)
    return figure, axes


def _prepare(figure: Figure, axes: Sequence[Axes], title: str, caption: str) -> None:
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e6e6e6", linewidth=0.8)
        panel.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    letters = int(figure.get_figwidth() * 16.5)
    # Names are not broken: neither within a word nor at a hyphen.
    wrapped = "\n".join(textwrap.wrap(caption, letters, break_long_words=False, break_on_hyphens=False))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=8, color="#444444")


def fix_layout(figure: Figure, *, dpi: float) -> None:
    """Compute a figure's layout once, before saving. Matplotlib would draw it twice for each file.

    Args:
        figure: complete figure from `new_figure`.
        dpi: resolution for saving, in pixels per inch.
    """
    figure.set_dpi(dpi)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)


def draw_reference(axes: Axes, estimate: Estimate, method: str, style: Style) -> None:
    """Draw a control's mean as a line across the panel, and the interval as a band."""
    axes.axhline(
        estimate.value,
        color=style.colour,
        linestyle=style.dash if style.dash != "-" else "--",
        linewidth=1.4,
        label=f"{method}, mean of {estimate.n}",
    )
    if np.isfinite([estimate.low, estimate.high]).all():
        axes.axhspan(estimate.low, estimate.high, color=style.colour, alpha=0.10, linewidth=0)


def bars(estimate: Estimate) -> list[list[float]] | None:
    """Return an estimate's error-bar lengths [[below], [above]], or None if it has no interval.

    A percentile interval can lie on one side of the estimate. The bar then ends at the estimate.
    """
    if not np.isfinite([estimate.low, estimate.high]).all():
        return None
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]


def add_legend(axes: Axes) -> None:
    """Add a legend above the panel, where it hides no points; no legend without labels."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 4 if sum(map(len, labels)) < 60 else 2 if max(map(len, labels)) <= _LONG_LABEL else 1
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=8)


def draw_estimates(
    title: str, groups: Mapping[str, Sequence[tuple[str, Estimate]]], caption: str, label: str
) -> Figure:
    """Draw estimates in rows with their intervals, and a line at 0.

    Args:
        title: figure title.
        groups: by group name, pairs of a row name and an estimate; the first row is on top. A hollow marker shows an
            estimate without an interval. A row without a marker shows an estimate not defined by the data.
        caption: n and method.
        label: axis label, with unit.
    """
    rows = [(group, of, estimate) for group, each in groups.items() for of, estimate in each]
    window = row_window((estimate for _, _, estimate in rows), scores=False)
    caption += outlier_note([estimate.value for _, _, estimate in rows], window, "value")
    caption += " Bars that reach the edge go on beyond it." if window.is_cut else ""
    figure, (axes,) = new_figure(title, caption, width=8.0)
    axes.axvline(0, color=INK, linewidth=1.0)
    labelled: set[str] = set()
    columns = 3
    for height, (group, _, estimate) in enumerate(rows):
        style = style_of_number(list(groups).index(group))
        windows = (window, Window())
        if not np.isfinite(estimate.value) or mark_outliers(axes, [estimate.value], [height], windows,
                                                            colour=style.colour).any():  # fmt: skip
            continue
        lengths = bars(estimate)
        axes.errorbar(
            [estimate.value], [height], xerr=lengths, fmt=style.marker, color=style.colour, capsize=3, markersize=6,
            markerfacecolor="none" if lengths is None else style.colour, label=None if group in labelled else group,
        )  # fmt: skip
        labelled.add(group)
    names = [
        of if np.isfinite(estimate.value) else f"{of}{f', {group}' if len(groups) > 1 else ''} (undefined)"
        for group, of, estimate in rows
    ]
    limit_axes(axes, x=window)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    if labelled and len(groups) > 1:
        columns = 1 if max(map(len, labelled)) > _LONG_LABEL else 3
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=8)
    figure.set_figheight(1.9 + 0.3 * max(4, len(rows)) + (0.16 * len(labelled) if columns == 1 else 0.3))
    return figure
