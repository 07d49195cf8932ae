"""The answer of the space `adapter_why`, from planted differences."""

import numpy as np
import pytest

from analysis.questions.adapter_why import adapter_why_texts, learned_against_controls
from tests.analysis.synthetic import trial, trials_table

ARMS = {
    "kd": {"method": "kd"},
    "dtkd": {"method": "dtkd"},
    "pesf_kd": {"method": "pesf_kd"},
    "pesf_kd+frozen": {"method": "pesf_kd", "adapter_training": "frozen"},
    "pesf_kd+first": {"method": "pesf_kd", "adapter_training": "first"},
    "pesf_kd+average-of-4": {"method": "pesf_kd", "adapter_count": 4},
}


def study(means, *, seeds=10, seed=0, **changes):
    """Repeated trials of the arms with these means, whose seeds share noise."""
    generator = np.random.default_rng(seed)
    shared = 0.01 * generator.normal(size=seeds)
    return trials_table([
        trial(100 * number + replicate, stage="replicate", config_id=name, replicate=replicate, **ARMS[name],
              **{"val/accuracy": 0.8 + means.get(name, 0.0) + shared[replicate] + 0.002 * generator.normal()} | changes)
        for number, name in enumerate(ARMS) for replicate in range(seeds)
    ])  # fmt: skip


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
    # 300 studies of 10 seeds and 5 controls. Without correction, any of five tests would err in more than a tenth.
    named = [any(each.sign for each in learned_against_controls(study({}, seed=number))) for number in range(300)]
    assert sum(named) / len(named) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(named))


@pytest.mark.slow
def test_a_planted_point_is_found_in_most_studies():
    # 60 studies of 10 seeds: one point, against 0.28 points of noise in a difference.
    found = [
        all(each.sign == 1 for each in learned_against_controls(study({"pesf_kd": 0.01}, seed=number)))
        for number in range(60)
    ]
    assert np.mean(found) > 0.9
