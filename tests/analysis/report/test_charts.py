"""Interactive figures: axes have ticks, and no outlier squeezes the other points together."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from analysis.figures.study import LearningCurve
from analysis.questions.costs import ConfigCost
from analysis.reading.trials import ConfigSummary
from analysis.report.charts import cost_chart, curve_charts
from analysis.report.pictures import cost_picture, curves_picture
from analysis.statistics.estimates import Estimate


def summary(name: str, value: float, half: float = 0.01) -> ConfigSummary:
    """Return a config's summary with this accuracy."""
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0, "none")
    return ConfigSummary(
        config_id=name, name=name, method=name, stage="control", varied={}, gap=nothing, test_accuracy=nothing,
        accuracy=Estimate(value, value - half, value + half, 5, "mean"), against_baseline=None, search_accuracy=None,
    )  # fmt: skip


def cost(ratio: float) -> ConfigCost:
    """Return costs with this ratio of FLOPs to cross-entropy."""
    return ConfigCost(
        parameters=1, student_parameters=1, adapter_parameters=0, other_parameters=0, step_flops=1.0,
        shared_teacher_passes=0.0, flops_to_ce=ratio, seconds_per_step=None, seconds_to_ce=None, n=5,
    )  # fmt: skip


def drawn(values: dict[str, float], ratios: list[float]) -> dict[str, Any]:
    """Return the validated cost chart of configs with these accuracies and cost ratios."""
    costs = {name: cost(ratio) for name, ratio in zip(values, ratios, strict=True)}
    chart = cost_chart([summary(name, value) for name, value in values.items()], costs, compares=True)
    go.Figure(chart)  # refuses what plotly.js would ignore
    return chart


def curve(method: str, end: float, stage: str = "repeated") -> LearningCurve:
    accuracy = np.array([[end - 0.1, 0.01], [end, 0.01]])
    return LearningCurve(method, stage, 5, 1, np.array([1, 2]), accuracy, np.full((2, 2), np.nan))


@pytest.mark.parametrize("ratios", [[1.0, 1.17, 1.2], [1.0, 1.01, 1.01], [1.1, 1.1, 1.1], [1.0, 3.0, 36.7]])
def test_the_axis_of_costs_has_three_ticks_at_least_however_near_they_are(ratios: list[float]) -> None:
    axis = drawn({"ce": 0.80, "kd": 0.81, "at": 0.82}, ratios)["layout"]["xaxis"]
    low, high = 10 ** np.array(axis["range"])
    assert low < min(ratios) <= max(ratios) < high
    assert len(axis["tickvals"]) >= 3
    assert len(set(axis["ticktext"])) == len(axis["ticktext"]) <= 12
    assert all(low <= tick <= high for tick in axis["tickvals"])


def test_what_collapsed_stands_at_the_edge_with_its_name_and_mean_and_leaves_the_others_the_panel() -> None:
    values = {"ce": 0.80, "kd": 0.81, "at": 0.82, "sp": 0.83, "ttm": 0.16}
    chart = drawn(values, [1.0, 1.1, 2.0, 3.0, 1.1])
    bottom, top = chart["layout"]["yaxis"]["range"]
    assert 0.7 < bottom < 0.79
    assert top > 0.84
    traces = {trace["name"]: trace for trace in chart["data"]}
    assert traces["ttm"]["marker"]["symbol"] == "triangle-down"
    assert bottom < traces["ttm"]["y"][0] < 0.79
    assert "0.160" in traces["ttm"]["hovertext"][0]
    assert traces["sp"]["y"] == [0.83]
    assert "ttm 0.160" in [each["text"] for each in chart["layout"]["annotations"]]
    costs = {name: cost(1.1) for name in values}
    picture = cost_picture([summary(name, value) for name, value in values.items()], costs, compares=True)
    assert "Triangles at the lower edge mark methods below the axis: ttm at 0.160." in picture.caption
    assert any(trace.get("marker", {}).get("symbol") == "triangle-down" for trace in picture.charts[0]["data"])


def test_without_a_collapse_every_point_stands_where_it_is_and_no_triangle_is_promised() -> None:
    values = {"ce": 0.78, "kd": 0.81, "at": 0.82, "sp": 0.83}
    chart = drawn(values, [1.0, 1.1, 2.0, 3.0])
    assert {trace["name"]: trace["y"][0] for trace in chart["data"][1:]} == values
    picture = cost_picture([summary(*each) for each in values.items()], dict.fromkeys(values, cost(1.1)), compares=True)
    assert "Triangle" not in picture.caption


def test_names_in_a_legend_are_broken_where_a_phone_has_no_more_room() -> None:
    (chart,) = curve_charts([curve("1: w2-T4.0, adapter lr 7.9e-05 and more", 0.8)])
    name = chart["data"][-1]["name"]
    assert "<br>" in name
    assert max(map(len, name.split("<br>"))) <= 34
    assert name.replace("<br>", " ").replace("\u00a0", " ") == "1: w2-T4.0, adapter lr 7.9e-05 and more, n = 5"


def test_of_many_curves_those_asked_for_are_always_shown_and_no_two_look_alike() -> None:
    curves = [curve(f"config {number}", 0.8 + number / 100, "confirm") for number in range(8)]
    picture = curves_picture(curves, always=["config 0"])
    lines = [trace for trace in picture.charts[0]["data"] if trace.get("name")]
    assert [line["name"].split(",")[0] for line in lines] == ["config 0", "config 7", "config 6", "config 5"]
    assert len({(line["line"]["color"], line["line"]["dash"]) for line in lines}) == 4
    assert "Of 8 confirmed configs, config 0 and those with the highest final mean are shown." in picture.caption
