"""Parallel coordinates: places against a float64 reference, robust and logarithmic axes, and names on hover."""

import numpy as np
import plotly.graph_objects as go
import pytest

from analysis.figures.parallel import LEVELS, colour_of, compute_parallel, draw_parallel
from analysis.report.parallel_chart import parallel_chart
from tests.analysis.planted import records
from tests.analysis.synthetic import trial

pytestmark = pytest.mark.unit
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256)


def study(**changes):
    """Return the records of eight trials over width and temperature; the last one diverged."""
    rows = [
        trial(
            number, adapter_width=width, temperature=1.0 + number, adapter_kind=("serial", "parallel")[number % 2],
            **{"val/accuracy": 0.7 + 0.01 * number, "val/sharpness_gap": 127.0 if width == 256 else 0.1 * number},
        )
        for number, width in enumerate(WIDTHS)
    ]  # fmt: skip
    return records([{**row, **changes} for row in rows])


def axis(found, name):
    return next(each for each in found.axes if each.name == name)


def test_places_are_those_of_linear_and_logarithmic_scales_and_of_sorted_categories():
    found = compute_parallel(study())
    assert [each.name for each in found.axes][-2:] == ["gap (nats)", "validation accuracy"]
    width = axis(found, "adapter width")
    assert width.is_log
    assert width.places == pytest.approx(np.log(np.array(WIDTHS) / 2) / np.log(128))
    assert {label: at for at, label in width.ticks}["10"] == pytest.approx(np.log(5) / np.log(128))
    kinds = axis(found, "adapter kind")
    assert kinds.ticks == ((0.0, "parallel"), (1.0, "serial"))
    assert kinds.places.tolist() == [1.0, 0.0] * 4
    assert axis(found, "validation accuracy").places == pytest.approx(np.arange(8) / 7)


def test_a_diverged_gap_does_not_flatten_the_axis_and_is_named():
    found = compute_parallel(study())
    places = axis(found, "gap (nats)").places
    assert places[7] == 1.0
    assert places[:7].max() - places[:7].min() > 0.8
    assert "mark points outside of the axis: gap 127.000" in draw_parallel(found).get_supxlabel().replace("\n", " ")
    assert "gap 127.000" in found.labels[7]


def test_the_chart_has_every_trial_with_its_names_a_colour_for_the_objective_and_gaps_for_missing_values():
    found = compute_parallel(study())
    chart = parallel_chart(found)
    go.Figure(chart)  # refuses what plotly.js would ignore
    assert sum(trace["x"].count(None) for trace in chart["data"]) == 8
    best = next(trace for trace in chart["data"] if trace["line"]["color"] == colour_of(LEVELS - 1))
    assert "trial w16-T4.0-s0 (s-0007)" in best["hovertext"][0]
    assert "temperature 8" in best["hovertext"][0]
    texts = {each["text"] for each in chart["layout"]["annotations"]}
    assert {"serial", "parallel", "10", "100"} <= texts
    rows = [
        trial(n, adapter_width=n + 2, temperature=None if n == 1 else float(n), **{"val/accuracy": 0.5})
        for n in (1, 2, 3)
    ]
    missing = compute_parallel(records(rows))
    assert np.isnan(axis(missing, "temperature").places).tolist() == [True, False, False]
    place = [each.name for each in missing.axes].index("temperature")
    assert parallel_chart(missing)["data"][0]["y"][place] is None
    draw_parallel(missing)


def test_colours_go_from_grey_over_blue_to_orange():
    assert (colour_of(0), colour_of(LEVELS - 1)) == ("#b9c6d0", "#d55e00")
    assert len({colour_of(level) for level in range(LEVELS)}) == LEVELS


def test_too_few_trials_or_parameters_have_no_figure():
    assert compute_parallel(study(temperature=4.0, adapter_kind="serial")) is None
    assert compute_parallel(study(status="failed")) is None
    assert compute_parallel(records([trial(n, adapter_width=n + 2, temperature=float(n)) for n in range(9)])) is None
