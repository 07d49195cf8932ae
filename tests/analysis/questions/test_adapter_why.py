"""Answer of the space `adapter_why`, with planted differences."""

import numpy as np
import pytest

from analysis.questions.adapter_why import adapter_why_texts, learned_against_controls
from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.statistics.over_searches import between_searches, difference_over_searches
from tests.analysis.report.studies import PLAN, write_study
from tests.analysis.synthetic import epochs_table, trial, trials_table

ARMS = {
    "kd": {"method": "kd"},
    "dtkd": {"method": "dtkd"},
    "pesf_kd": {"method": "pesf_kd"},
    "pesf_kd+frozen": {"method": "pesf_kd", "adapter_training": "frozen"},
    "pesf_kd+first": {"method": "pesf_kd", "adapter_training": "first"},
    "pesf_kd+average-of-4": {"method": "pesf_kd", "adapter_count": 4},
}


def study(means, *, seeds=10, seed=0, **changes):
    """Return repeated trials of the arms with these means. Trials with the same seed share noise."""
    generator = np.random.default_rng(seed)
    shared = 0.01 * generator.normal(size=seeds)
    rows = []
    for number, (name, fields) in enumerate(ARMS.items()):
        own = changes if fields["method"] == "pesf_kd" else {}
        for replicate in range(seeds):
            score = 0.8 + means.get(name, 0.0) + shared[replicate] + 0.002 * generator.normal()
            about = {"stage": "replicate", "config_id": name, "replicate": replicate, "val/accuracy": score}
            rows.append(trial(100 * number + replicate, **about | fields | own))
    return trials_table(rows)


def test_pesf_kd_is_compared_with_each_control_on_equal_seeds():
    found = {each.control: each for each in learned_against_controls(study({"pesf_kd": 0.01}))}
    assert set(found) == set(ARMS) - {"pesf_kd"}
    for each in found.values():
        assert each.difference.n == 10
        assert each.difference.value == pytest.approx(0.01, abs=0.003)
        assert each.difference.p_value <= each.corrected_p <= 5 * each.difference.p_value
        assert each.sign == 1


@pytest.mark.parametrize(
    ("means", "says"),
    [
        ({"pesf_kd": 0.02}, "Learning the adapter with the student helps: PESF-KD is better than kd and dtkd and than"),
        ({"kd": 0.02}, "does not help here: PESF-KD is worse than kd."),
        ({}, "not distinguishable from kd and dtkd."),
        ({"pesf_kd": 0.02, "dtkd": 0.02}, "not distinguishable from dtkd."),
        (
            {"pesf_kd": 0.02, "pesf_kd+first": 0.02},
            "better than kd and dtkd, which soften the teacher without an adapter, but not distinguishable from "
            "pesf_kd+first.",
        ),
    ],
)
def test_the_verdict_follows_the_planted_differences(means, says):
    (text,) = adapter_why_texts(study(means))
    assert says in text
    assert "validation accuracy by seed, p by Holm over 5 controls: kd " in text
    assert text.count("(n = 10)") == 5


def test_the_paragraph_says_how_far_the_adapter_moved_and_nothing_without_controls():
    (text,) = adapter_why_texts(study({}, **{"train/adapter_shift": 0.25}))
    assert text.endswith("Training moved the sharpness of its adapted teacher by 0.25 nats on average.")
    assert adapter_why_texts(trials_table([])) == []
    alone = study({}).filter([name == "pesf_kd" for name in study({})["config_id"].to_pylist()])
    assert adapter_why_texts(alone) == []


@pytest.mark.slow
def test_without_a_difference_the_verdict_names_one_in_no_more_than_a_twentieth_of_studies():
    # 300 studies with 10 seeds and 5 controls. Without correction, one of five tests would err in over a tenth of
    # studies.
    named = [any(each.sign for each in learned_against_controls(study({}, seed=number))) for number in range(300)]
    assert sum(named) / len(named) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(named))


@pytest.mark.slow
def test_a_planted_point_is_found_in_most_studies():
    # 60 studies with 10 seeds. The effect is one point, the noise of a difference is 0.28 points.
    found = [
        all(each.sign == 1 for each in learned_against_controls(study({"pesf_kd": 0.01}, seed=number)))
        for number in range(60)
    ]
    assert np.mean(found) > 0.9


@pytest.mark.study
def test_the_report_of_the_space_has_the_paragraph_and_the_warning_of_adapters_that_did_not_move(tmp_path):
    plan = {
        **PLAN,
        "space": "adapter_why",
        "compared": [{"name": name, "fields": fields} for name, fields in ARMS.items()],
    }
    trials = study({"pesf_kd": 0.02}, **{"train/adapter_shift": 0.004})
    report = make_report(read_folder(write_study(tmp_path / "why", trials, epochs_table([]), plan=plan, summary={})))
    (results,) = (section for section in report.sections if section.key == "results")
    assert any("Learning the adapter with the student helps" in text for text in results.texts)
    moved = [warning for warning in report.warnings if "The adapter did not move" in warning]
    assert ["trials of pesf_kd:" in moved[0], "trials of pesf_kd+average-of-4:" in moved[1]] == [True, True]
    assert len(moved) == 2  # the frozen adapters are meant not to move
    other = {**plan, "space": "method"}
    report = make_report(read_folder(write_study(tmp_path / "other", trials, epochs_table([]), plan=other, summary={})))
    assert not any("Learning the adapter" in text for section in report.sections for text in section.texts)


def test_arms_with_the_best_configs_of_two_searches_are_compared_over_searches_and_seeds():
    first, second = (study({"pesf_kd": shift}, seed=3).to_pylist() for shift in (0.03, 0.01))
    again = [row | {"trial_id": f"{row['trial_id']}-2", "config_id": f"{row['config_id']}-2"} for row in second]
    found = {each.control: each for each in learned_against_controls(trials_table([*first, *again]))}
    against = found["kd"].difference
    scores = {row["config_id"]: [] for row in (*first, *again)}
    for row in (*first, *again):
        scores[row["config_id"]].append(row["val/accuracy"])
    tables = {name: np.array([scores[name], scores[f"{name}-2"]]) for name in ARMS}
    expected = difference_over_searches(tables["pesf_kd"], tables["kd"], between_searches([*tables.values()]))
    assert (against.value, against.low, against.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert against.p_value == pytest.approx(expected.p_value)
    assert against.value == pytest.approx(0.02, abs=0.003)
