"""Interactive figures: axes have ticks, and no outlier squeezes the other points together."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from analysis.figures.curves import LearningCurve, draw_small_multiples
from analysis.figures.study import compute_gap_against_accuracy, compute_history
from analysis.questions.costs import ConfigCost
from analysis.report.charts import cost_chart, curve_charts, gap_chart, history_chart
from analysis.report.pictures import cost_picture, curves_picture
from tests.analysis.planted import records
from tests.analysis.report.charted import summary
from tests.analysis.synthetic import trial


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


def test_many_curves_become_small_multiples_with_their_name_and_last_mean_the_best_first() -> None:
    curves = [curve(f"config {number}", 0.8 + number / 100, "confirm") for number in range(8)]
    picture = curves_picture(curves, baseline="config 0")
    titles = [chart["layout"]["title"]["text"] for chart in picture.charts]
    assert titles == [f"config {number} {0.8 + number / 100:.3f}" for number in range(7, -1, -1)]
    assert {chart["layout"]["showlegend"] for chart in picture.charts} == {False}
    assert len({tuple(chart["layout"]["yaxis"]["range"]) for chart in picture.charts}) == 1
    assert [trace["name"] for trace in picture.charts[0]["data"] if trace.get("name")] == ["config 0", "config 7"]
    for chart in picture.charts:
        go.Figure(chart)  # refuses what plotly.js would ignore


def test_small_multiples_with_long_names_have_room_for_each_title() -> None:
    names = [
        "pesf_kd adapter width 225, adapter learning rate 0.00124, temperature 2.8",
        "kd",
        "ce",
        "dist",
        "at",
        "sp",
    ]
    curves = [curve(name, 0.8 - number / 100) for number, name in enumerate(names)]
    picture = curves_picture(curves, baseline="kd")
    lines = [chart["layout"]["title"]["text"].count("<br>") + 1 for chart in picture.charts]
    assert lines == [3, 1, 1, 1, 1, 1]
    assert {chart["layout"]["margin"]["t"] for chart in picture.charts} == {30 + 2 * 16}
    assert len({chart["layout"]["height"] - chart["layout"]["margin"]["t"] for chart in picture.charts}) == 1
    figure = draw_small_multiples(curves, baseline="kd")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) > 2 * len(names)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number]), figure.axes[0].texts[number]


def test_a_diverged_trial_stands_at_the_edge_with_its_value_and_leaves_the_others_the_panel() -> None:
    generator = np.random.default_rng(0)
    rows = [
        trial(n, **{"val/sharpness_gap": float(generator.normal()), "val/accuracy": 0.8 + 0.01 * n / 20})
        for n in range(20)
    ]
    rows.append(trial(20, **{"val/sharpness_gap": 127.0, "val/accuracy": 0.1}))
    study = records(rows)
    chart = gap_chart(compute_gap_against_accuracy(study))
    go.Figure(chart)
    left, right = chart["layout"]["xaxis"]["range"]
    bottom, top = chart["layout"]["yaxis"]["range"]
    assert -5 < left < right < 5
    assert 0.7 < bottom < 0.8 < top < 0.85
    points = next(trace for trace in chart["data"] if trace.get("name") == "search trial")
    assert points["marker"]["symbol"][20] == "triangle-right"
    assert left <= points["x"][20] <= right
    assert bottom <= points["y"][20] <= top
    assert [each["text"] for each in chart["layout"]["annotations"]] == ["127.0"]
    assert points["hovertext"][20].startswith("trial w16-T4.0-s0 (s-0020)<br>config config20, seed 0")
    for line in chart["data"]:
        if line.get("mode") == "lines":
            assert all(0.0 <= value <= 1.0 for value in line["y"])
            assert max(line["x"]) < 5
    history = history_chart(compute_history(study.trials))
    assert history["layout"]["yaxis"]["range"][0] > 0.7
