"""How figures look: the palette, the captions and the bars that all of them share."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.statistics.estimates import Estimate

# Okabe and Ito (2008): told apart under every common colour-vision deficiency; markers and dashes tell it
# again.
INK, GREY = "#222222", "#7a7a7a"
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"

_LONG_LABEL = 30  # letters; longer ones stand below each other in a legend

GAP_LABEL = "sharpness gap, teacher − student (nats)"


def score_label(objective: str, split: str = "validation") -> str:
    """The label of an axis of a split's objective.

    Args:
        objective: what it is called.
        split: `validation` or `test`.
    """
    return f"{split} {objective}" + (" (fraction)" if objective == "accuracy" else "")


def capitalised(text: str) -> str:
    """The text with its first letter large, and the others as they are."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Style:
    """How one method looks in every figure."""

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
    """The style of the number-th of things that are no methods, from 0."""
    return _NUMBERED[number % len(_NUMBERED)]


def style_of(method: str, methods: tuple[str, ...]) -> Style:
    """A method's style; those without one of their own take the next free one, in the order of `methods`."""
    if method in _STYLES:
        return _STYLES[method]
    others = [name for name in methods if name not in _STYLES]
    return _OTHERS[others.index(method) % len(_OTHERS)]


def new_figure(title: str, caption: str, *, panels: int = 1, width: float = 7.0) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels side by side, with its title above and its caption below."""
    figure = Figure(figsize=(width, 4.6), dpi=120, layout="constrained")
    axes = [figure.add_subplot(1, panels, panel + 1) for panel in range(panels)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e6e6e6", linewidth=0.8)
        panel.set_axisbelow(True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    wrapped = "\n".join(textwrap.wrap(caption, int(width * 16.5)))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=8, color="#444444")
    return figure, axes


def draw_reference(axes: Axes, estimate: Estimate, method: str, style: Style) -> None:
    """A control's mean as a line across the panel, its interval as a band."""
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
    """Error-bar lengths [[below], [above]] of an estimate, or None where it has no interval.

    A percentile interval need not hold its estimate; the bar then ends there.
    """
    if not np.isfinite([estimate.low, estimate.high]).all():
        return None
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]


def add_legend(axes: Axes) -> None:
    """A legend above the panel, where it can hide no point; none if nothing was labelled."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 4 if sum(map(len, labels)) < 60 else 2
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=8)


def draw_estimates(
    title: str, groups: Mapping[str, Sequence[tuple[str, Estimate]]], caption: str, label: str
) -> Figure:
    """Estimates below each other with their intervals, and a line at 0.

    Args:
        title: of the figure.
        groups: by what they have in common, each estimate with what it is of; the first is on top. A hollow marker is
            an estimate without an interval, and a name without a marker one that the data do not define.
        caption: n and method.
        label: of the axis, with its unit.
    """
    rows = [(group, of, estimate) for group, each in groups.items() for of, estimate in each]
    figure, (axes,) = new_figure(title, caption, width=8.0)
    axes.axvline(0, color=INK, linewidth=1.0)
    labelled: set[str] = set()
    columns = 3
    for height, (group, _, estimate) in enumerate(rows):
        if not np.isfinite(estimate.value):
            continue
        style = style_of_number(list(groups).index(group))
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
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    if labelled and len(groups) > 1:
        columns = 1 if max(map(len, labelled)) > _LONG_LABEL else 3
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=8)
    figure.set_figheight(1.9 + 0.3 * max(4, len(rows)) + (0.16 * len(labelled) if columns == 1 else 0.3))
    return figure
