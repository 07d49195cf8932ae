"""Reliability diagrams."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.drawing import GREY, Style, add_legend, new_figure
from analysis.questions.calibration import Reliability, networks_of, reliability_caption
from analysis.statistics.resampling import Floats


def dot_sizes(reliability: Reliability) -> Floats:
    """Return diameters (bins,) with areas growing with the fraction of predictions; small bins remain visible."""
    share = reliability.count / reliability.count.sum()
    return np.asarray(4 + 12 * np.sqrt(share))


def draw_reliability(
    found: Sequence[Reliability], styles: dict[str, Style], split: str, left_out: Sequence[str] = ()
) -> Figure:
    """Draw accuracy over confidence, with one panel per network and the diagonal for perfect calibration.

    Args:
        found: at least one reliability.
        styles: styles by label.
        split: `validation` or `test`.
        left_out: labels of configs without a diagram, to be named in the caption.
    """
    networks = networks_of(found)
    title, caption = f"Reliability on the {split} split", reliability_caption(found, split, left_out)
    width = 4.0 * max(2, len(networks))
    figure, panels = new_figure(title, caption, panels=len(networks), width=width)
    for axes, network in zip(panels, networks, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=":")
        for each in (each for each in found if each.network == network):
            style, drawn = styles[each.label], each.drawn
            axes.plot(
                each.confidence[drawn], each.accuracy[drawn], style.dash, color=style.colour, linewidth=1.4,
                label=each.name,
            )  # fmt: skip
            axes.scatter(
                each.confidence[drawn], each.accuracy[drawn], s=dot_sizes(each)[drawn] ** 2 / 2, marker=style.marker,
                color=style.colour, zorder=3,
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel(f"confidence of the {network}")
        axes.set_ylabel("fraction of correct predictions")
        add_legend(axes)
    return figure
