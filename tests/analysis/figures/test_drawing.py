"""Properties common to all figures."""

import io
import math

import matplotlib as mpl
import numpy as np
import pytest

from analysis.figures.drawing import bars, draw_estimates, fix_layout, style_of_number
from analysis.statistics.estimates import Estimate


def test_every_estimate_has_a_row_with_its_interval_and_an_undefined_one_says_so():
    groups = {
        "accuracy": [("width", Estimate(0.5, 0.2, 0.8, 12, "m")), ("rate", Estimate(-0.3, math.nan, math.nan, 3, "m"))],
        "gap": [("depth", Estimate(math.nan, math.nan, math.nan, 2, "m"))],
    }
    figure = draw_estimates("Found", groups, "n = 12.", "rank correlation")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["width", "rate", "depth, gap (undefined)"]
    assert axes.get_ylim() == (2.5, -0.5)
    marked = [container.lines[0] for container in axes.containers]
    assert [line.get_xdata()[0] for line in marked] == [0.5, -0.3]
    assert [line.get_markerfacecolor() for line in marked] == [style_of_number(0).colour, "none"]
    (segment,) = axes.containers[0].lines[2][0].get_segments()
    assert [point[0] for point in segment] == [0.2, 0.8]
    assert axes.get_legend() is not None
    assert "n = 12." in figure.get_supxlabel()


@pytest.mark.parametrize("settings", [{}, {"figure.autolayout": True}])
def test_a_fixed_layout_gives_the_pixels_that_matplotlib_gives_with_its_own(settings):
    def pixels(fix):
        groups = {"accuracy": [("a name of many letters", Estimate(0.5, 0.2, 0.8, 12, "m"))]}
        figure = draw_estimates("Found", groups, "n = 12. " * 30, "rank correlation")
        if fix:
            fix_layout(figure, dpi=70)
        stream = io.BytesIO()
        figure.savefig(stream, format="rgba", dpi=70)
        return np.frombuffer(stream.getvalue(), np.uint8)

    with mpl.rc_context(settings):
        assert np.array_equal(pixels(fix=True), pixels(fix=False))


def test_styles_of_what_has_no_style_of_its_own_differ_and_never_end():
    assert len({(style_of_number(n).colour, style_of_number(n).marker) for n in range(7)}) == 7
    assert style_of_number(7) == style_of_number(0)


def test_the_bar_of_an_interval_that_does_not_hold_its_estimate_ends_there():
    assert bars(Estimate(0.5, 0.6, 0.8, 12, "percentile bootstrap")) == [[0.0], [pytest.approx(0.3)]]
    assert bars(Estimate(0.5, 0.2, 0.8, 12, "m")) == [[pytest.approx(0.3)], [pytest.approx(0.3)]]
    assert bars(Estimate(0.5, math.nan, math.nan, 1, "m")) is None
