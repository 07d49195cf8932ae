"""How figures look: the palette, the captions and the bars that all of them share."""

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.statistics import Estimate

# Okabe and Ito (2008): told apart under every common colour-vision deficiency; markers and dashes tell it
# again.
INK, GREY = "#222222", "#7a7a7a"
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"

MEASURE_LABELS = {
    "accuracy": "validation accuracy (fraction)",
    "gap": "sharpness gap, teacher − student (nats)",
}


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
    """Error-bar lengths [[below], [above]] of an estimate, or None where it has no interval."""
    if not np.isfinite([estimate.low, estimate.high]).all():
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


def add_legend(axes: Axes) -> None:
    """A legend above the panel, where it can hide no point; none if nothing was labelled."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 4 if sum(map(len, labels)) < 60 else 2
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=8)
