"""Comparison of methods: rows, table and figure."""

import itertools
import math
from pathlib import Path

import pytest

from analysis.figures.methods import draw_accuracy_against_cost, draw_methods, floor_of, pareto_front
from analysis.questions.costs import ConfigCost, config_costs
from analysis.questions.methods import methods_table
from analysis.reading.trials import EXAMPLES, compare_methods, open_study, summarise_configs
from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import Estimate, holm, paired_difference
from study.plan.methods import BASELINE, row_name
from tests.analysis.conftest import caption_of
from tests.analysis.synthetic import trial, trials_table
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study

ACCURACIES = {"ce": (0.5, 0.6, 0.7, 0.6), "kd": (0.6, 0.6, 0.8, 0.7), "dkd": (0.9, 0.8, 0.9, 0.9)}

RESULTS = Path(__file__).parents[3] / "docs" / "results"


def rows_of(stage="control"):
    """Return one trial per accuracy and method in a stage."""
    rows = []
    for method, values in {**ACCURACIES, "dkd+adapter": (0.4, 0.5, 0.4, 0.5)}.items():
        name, _, adapter = method.partition("+")
        config = {"method": name, "adapter": bool(adapter), "config_id": method, "space": "method"}
        for replicate, value in enumerate(values, start=1):
            measures = {"val/accuracy": value, "val/sharpness_gap": 1.0}
            rows.append(trial(len(rows), stage=stage, replicate=replicate, **config, **measures))
    return rows


def test_methods_are_ranked_and_compared_with_kd_within_replicates_and_corrected_for_their_number():
    summaries = compare_methods(trials_table(rows_of()))
    assert [summary.method for summary in summaries] == ["dkd", "kd", "ce", "dkd+adapter"]
    differences = {summary.method: summary.against_baseline for summary in summaries}
    assert differences["kd"] is None
    assert differences["dkd"] == paired_difference(ACCURACIES["dkd"], ACCURACIES["kd"], smallest_effect=SMALLEST_EFFECT)
    others = [summary for summary in summaries if summary.method != "kd"]
    assert [s.corrected_p for s in others] == holm([s.against_baseline.p_value for s in others])
    assert next(s for s in summaries if s.method == "kd").corrected_p is None


def test_confirmed_methods_are_compared_by_test_accuracy_on_the_seeds_of_the_confirmation_alone():
    rows = rows_of()
    for row in rows_of("confirm"):
        tested = {"trial_id": f"c-{len(rows)}", "replicate": row["replicate"] + 4, "val/accuracy": 0.99}
        rows.append(row | tested | {"test/accuracy": row["val/accuracy"] / 2})
    summaries = compare_methods(trials_table(rows), confirmed=True)
    assert [summary.method for summary in summaries] == ["dkd", "kd", "ce", "dkd+adapter"]
    assert {summary.split for summary in summaries} == {"test"}
    assert summaries[0].accuracy.value == pytest.approx(0.4375)
    assert summaries[0].accuracy.n == 4
    halves = {method: [value / 2 for value in values] for method, values in ACCURACIES.items()}
    assert summaries[0].against_baseline == paired_difference(
        halves["dkd"], halves["kd"], smallest_effect=SMALLEST_EFFECT
    )
    assert {summary.split for summary in compare_methods(trials_table(rows))} == {"validation"}
    assert "| test accuracy |" in methods_table(summaries)
    assert draw_methods(summaries).axes[0].get_xlabel() == "test accuracy (fraction)"
    assert compare_methods(trials_table(rows_of()), confirmed=True) == []


def test_a_tuned_method_stands_by_its_fresh_seeds_and_shows_what_was_tuned_of_it():
    rows = rows_of("replicate")
    for number, (weight, rate) in enumerate([(0.5, 0.05), (2.0, 0.01)]):
        searched = {"method": "dkd", "adapter": False, "kd_weight": weight, "student_learning_rate": rate}
        chosen = {"config_id": "dkd" if number else "lost", "val/accuracy": 0.95}
        rows.append(trial(100 + number, **searched, **chosen))
        rows.append(
            trial(200 + number, method="ce", adapter=False, config_id=f"ce{number}", student_learning_rate=rate)
        )
    for row in rows:
        if row["config_id"] == "dkd":
            row["kd_weight"] = 2.0
    tuned = {summary.method: summary for summary in compare_methods(trials_table(rows))}
    assert set(tuned["dkd"].varied) == {"kd_weight", "student_learning_rate"}
    assert set(tuned["ce"].varied) == {"student_learning_rate"}
    assert tuned["dkd"].accuracy.value == pytest.approx(0.875)
    assert tuned["dkd"].search_accuracy == 0.95
    assert tuned["dkd"].against_baseline.n == 4
    assert tuned["kd"].against_baseline is None


def test_a_failed_baseline_leaves_the_others_without_a_difference():
    rows = [row for row in rows_of() if row["method"] != "kd"]
    assert {(s.against_baseline, s.corrected_p) for s in compare_methods(trials_table(rows))} == {(None, None)}


def test_controls_of_other_studies_are_not_corrected():
    assert {summary.corrected_p for summary in summarise_configs(trials_table(rows_of()))} == {None}


def test_the_table_has_a_row_a_method_with_interval_difference_and_both_p_values():
    table = methods_table(compare_methods(trials_table(rows_of())))
    lines = table.splitlines()
    assert lines[0] == "| method | n | validation accuracy | sharpness gap (nats) | accuracy − kd | p | p (Holm) |"
    assert lines[2].startswith("| dkd | 4 | 0.875 [0.795, 0.955] | 1.00 [1.00, 1.00] | +0.200 [")
    assert lines[2].endswith("| 0.125 | 0.375 |")
    assert "| kd | 4 |" in lines[3]
    assert "(baseline)" in lines[3]
    assert "sign-flip permutation test" in table
    assert "No method" in methods_table([])


def test_the_figure_has_every_method_the_best_on_top():
    figure = draw_methods(compare_methods(trials_table(rows_of())))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dkd+adapter", "ce", "kd", "dkd"]
    assert "n = 4 seeds" in figure.get_supxlabel()
    assert len(draw_methods([]).axes) == 1


def cost_of(ratio):
    """Return costs with this ratio of FLOPs to cross-entropy."""
    return ConfigCost(
        parameters=1, student_parameters=1, adapter_parameters=0, other_parameters=0, step_flops=1.0,
        shared_teacher_passes=0.0, flops_to_ce=ratio, seconds_per_step=None, seconds_to_ce=None, n=4,
    )  # fmt: skip


def test_the_front_is_of_those_that_no_cheaper_one_beats():
    assert pareto_front([2.0, 1.0, 1.0, 3.0, 4.0], [0.7, 0.5, 0.6, 0.7, 0.9]) == [2, 0, 4]
    assert pareto_front([], []) == []


def test_accuracy_is_drawn_against_cost_every_method_named_apart_from_its_neighbours():
    ratios = {"ce": 1.0, "kd": 1.01, "dkd": 1.02, "dkd+adapter": 5.0}
    figure = draw_accuracy_against_cost(
        compare_methods(trials_table(rows_of())), {name: cost_of(ratio) for name, ratio in ratios.items()}
    )
    (axes,) = figure.axes
    names = {text.get_text(): text.get_position() for text in axes.texts}
    assert set(names) == set(ratios)
    heights = sorted(names[name][1] for name in ("ce", "kd", "dkd"))
    low, high = axes.get_ylim()
    assert min(b - a for a, b in itertools.pairwise(heights)) > (high - low) / 40
    (front,) = axes.lines[:1]
    assert list(front.get_xdata()) == [1.0, 1.01, 1.02]
    assert list(front.get_ydata()) == pytest.approx([0.6, 0.675, 0.875])


def test_a_method_whose_cost_is_not_known_is_left_out_and_counted():
    summaries = compare_methods(trials_table(rows_of()))
    figure = draw_accuracy_against_cost(summaries, {"kd": cost_of(1.0), "ce": cost_of(None)})
    assert [text.get_text() for text in figure.axes[0].texts] == ["kd"]
    assert "Not drawn, because the cost is unknown: 3." in caption_of(figure)
    assert not draw_accuracy_against_cost([], {}).axes[0].texts


def test_the_study_and_the_analysis_name_rows_alike():
    assert BASELINE == "kd"
    for adapter in (False, True):
        rows = [trial(0, stage="control", method="dkd", adapter=adapter, replicate=1, **{"val/accuracy": 0.5})]
        (summary,) = compare_methods(trials_table(rows))
        assert summary.method == row_name(TrialConfig(method="dkd", adapter=adapter))
        assert math.isnan(summary.accuracy.low)


@pytest.mark.parametrize(
    ("name", "methods"), [("fashion-method", 26), ("sst2-method", 8), ("fashion-method-tuned", 20)]
)
def test_a_shipped_comparison_is_what_the_documentation_shows(name, methods):
    study = open_study(EXAMPLES / name)
    costs = config_costs(study)
    confirmed = compare_methods(study.trials, confirmed=True)
    assert len(confirmed) == methods
    page = RESULTS / ("sst2.md" if name.startswith("sst2") else "methods.md")
    shown = page.read_text(encoding="utf-8").replace("−", "-")
    for each in confirmed:
        accuracy, gap, against = each.accuracy, each.gap, each.against_baseline
        cells = [
            f"`{each.method}`",
            f"{accuracy.value:.3f} ± {accuracy.high - accuracy.value:.3f}",
            f"{against.value:+.3f} [{against.low:+.3f}, {against.high:+.3f}]" if against else "",
            f"{each.corrected_p if 'tuned' in name else against.p_value:.2f}" if against else "",
            f"{gap.value:.2f} ± {gap.high - gap.value:.2f}",
            f"{costs[each.config_id].flops_to_ce:.2f}",
        ]
        assert f"| {' | '.join(cells)} |" in shown


def test_the_documentation_says_that_the_records_named_published_compare_kd_with_frozen_noise():
    study = open_study(EXAMPLES / "fashion-published")
    (found,) = (each for each in compare_methods(study.trials, confirmed=True) if each.method == "pesf_kd")
    (row,) = (
        each for each in study.trials.to_pylist() if each["config_id"] == found.config_id and each["replicate"] == 2
    )
    assert (row["adapter_learning_rate"], row["adapter_schedule"]) == (2e-5, "cosine")
    text = " ".join((RESULTS / "methods.md").read_text(encoding="utf-8").replace("−", "-").split())
    assert (
        "The records `fashion-published` are not PESF-KD as published: the adapter's rate was 2e-5 with a cosine "
        "schedule and moved it by at most 0.004 nats, so they compare `kd` with `kd` plus frozen noise."
    ) in text
    # The page quotes no score of these records for PESF-KD.
    assert f"{found.accuracy.value:.3f} ± {found.accuracy.high - found.accuracy.value:.3f} on test" not in text


def test_the_shipped_comparison_with_pkd_is_what_the_documentation_says():
    study = open_study(EXAMPLES / "sst2-pkd")
    means = {each.method: each.accuracy for each in compare_methods(study.trials)}
    text = " ".join((RESULTS / "sst2.md").read_text(encoding="utf-8").split())
    assert len(means) == 3
    for method, words in (("ce", "cross-entropy"), ("pkd", "PKD"), ("kd", "plain KD")):
        mean = means[method]
        assert mean.n == 5
        assert f"{words} {mean.value:.3f} ± {mean.high - mean.value:.3f}" in text


def test_a_method_that_collapsed_leaves_the_others_room_and_is_named_with_its_mean():
    rows = rows_of()
    for number in range(8):
        for replicate, value in enumerate((0.70, 0.71), start=1):
            measures = {"val/accuracy": value + number / 500, "val/sharpness_gap": 1.0}
            config = {"method": "kd" if number else "ttm", "adapter": False, "config_id": f"more-{number}"}
            measures["val/accuracy"] *= 1.0 if number else 0.01
            rows.append(trial(len(rows), stage="control", replicate=replicate, space="method", **config, **measures))
    summaries = compare_methods(trials_table(rows))
    figure = draw_accuracy_against_cost(summaries, {each.config_id: cost_of(1.1) for each in summaries})
    (axes,) = figure.axes
    assert axes.get_ylim()[0] > 0.05
    assert "Triangles at the lower edge mark methods below the axis: ttm at 0.007." in caption_of(figure)
    (name,) = (text for text in axes.texts if text.get_text() == "ttm 0.007")
    assert name.get_position()[1] > axes.get_ylim()[0]


def estimates(*values, half=0.01):
    return [Estimate(value, value - half, value + half, 5, "mean") for value in values]


@pytest.mark.parametrize(
    "values",
    [(), (0.1,), (0.1, 0.8), (0.8, 0.81, 0.82), (0.78, 0.81, 0.81, 0.81), (0.5, 0.6, 0.7, 0.8), (0.99, 0.81, 0.82)],
)
def test_without_a_collapse_there_is_no_floor(values):
    assert floor_of(estimates(*values)) == -math.inf


@pytest.mark.parametrize("others", [(0.80, 0.82), (0.80, 0.80, 0.80), (0.74, 0.79, 0.80, 0.81, 0.81, 0.82, 0.84)])
def test_a_floor_lies_below_the_intervals_of_the_others_and_above_what_collapsed_however_few_they_are(others):
    floor = floor_of(estimates(*others, 0.16))
    assert 0.16 < floor < min(others) - 0.01
    assert floor > min(others) - 0.05


def test_the_axis_of_near_costs_has_ticks_and_the_caption_says_n():
    summaries = compare_methods(trials_table(rows_of()))
    ratios = {"ce": 1.0, "kd": 1.05, "dkd": 1.1, "dkd+adapter": 1.17}
    figure = draw_accuracy_against_cost(summaries, {name: cost_of(ratio) for name, ratio in ratios.items()})
    assert len(figure.axes[0].get_xticks()) >= 3
    assert "n = 4 seeds each; mean, Student t interval" in caption_of(figure)
