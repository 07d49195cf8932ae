"""Differences that the seeds of a study can show, on shipped and simulated studies."""

import math

import numpy as np
import pytest

from analysis.questions.power import Compared, Resolution, find_resolution, resolution_texts, seeds_in_words
from analysis.reading.trials import EXAMPLES, ConfigSummary, compare_methods, summarise_configs
from analysis.report.folder import read_folder
from analysis.statistics.estimates import Estimate
from analysis.statistics.power import least_detectable, paired_power
from tests.analysis.synthetic import trial, trials_table

pytestmark = pytest.mark.study

EMPTY = Estimate(math.nan, math.nan, math.nan, 12, "")


def invented(low, high, *, p_value=None, n=10, spread=0.01, label="a", against="kd"):
    return Compared(label, against, spread, Estimate((low + high) / 2, low, high, n, "", p_value), p_value)


def two_configs(differences):
    """Return a study with the control kd and one promising config on the same seeds."""
    rows = []
    for replicate, difference in enumerate(differences, start=1):
        for method, config_id, stage, score in (
            ("kd", "k", "control", 0.8), ("pesf_kd", "p", "replicate", 0.8 + difference)
        ):  # fmt: skip
            own = {"config_id": config_id, "stage": stage, "replicate": replicate, "name": f"{config_id}-s{replicate}"}
            rows.append(trial(len(rows), method=method, **own, **{"val/accuracy": score}))
    return trials_table(rows)


def test_the_tuned_methods_need_29_seeds_for_half_a_point_and_54_after_holm():
    study = read_folder(EXAMPLES / "fashion-method-tuned")
    found = find_resolution(study.records.trials, compare_methods(study.records.trials), study.confirmation())
    assert (found.split, len(found.compared), found.seeds) == ("test", 19, 10)
    assert [found.needed(0.005, corrected=corrected) for corrected in (False, True)] == [29, 54]
    assert found.spread == pytest.approx(0.00911568, abs=1e-8)
    assert found.detectable(corrected=False) == pytest.approx(0.00912, abs=1e-5)
    assert "29 seeds show a difference of 0.005 with power 0.8, 54 after Holm's correction" in seeds_in_words(
        found, 0.005
    )


def test_the_spread_of_repeated_configs_is_that_of_their_paired_differences():
    differences = [0.01, -0.02, 0.03, 0.0, 0.01, 0.02]
    trials = two_configs(differences)
    found = find_resolution(trials, summarise_configs(trials), None)
    assert (found.split, found.seeds, [each.label for each in found.compared]) == ("validation", 6, ["p"])
    assert found.spread == pytest.approx(np.std(differences, ddof=1))


@pytest.mark.parametrize(
    ("compared", "settled"),
    [
        (invented(0.001, 0.02, p_value=0.01), True),
        (invented(0.001, 0.02, p_value=0.2), False),  # the corrected test disagrees with the interval
        (invented(-0.02, -0.001, p_value=0.01), True),
        (invented(-0.004, 0.004, p_value=0.9), True),  # too small to matter in either direction
        (invented(-0.004, 0.006, p_value=0.9), False),
        (invented(math.nan, math.nan, n=2), False),
    ],
)
def test_a_comparison_is_settled_by_a_clear_sign_or_by_a_small_enough_interval(compared, settled):
    assert compared.settles(0.005) is settled
    texts = resolution_texts(Resolution((compared,), "accuracy", "validation"), "COMMAND")
    assert any("Only more seeds can settle this" in text for text in texts) is not settled


def test_one_seed_detects_nothing_and_no_comparison_has_no_resolution():
    trials = two_configs([0.01])
    (text,) = resolution_texts(find_resolution(trials, summarise_configs(trials), None), "COMMAND")
    assert text.startswith("No difference is detectable with 1 paired seed")
    alone = two_configs([0.01]).slice(0, 1)
    assert find_resolution(alone, summarise_configs(alone), None) is None
    assert resolution_texts(None, "COMMAND") == []


def test_few_seeds_cannot_show_any_difference():
    trials = two_configs([0.01, -0.02, 0.03])
    found = find_resolution(trials, summarise_configs(trials), None)
    text = resolution_texts(found, "COMMAND")[0]
    shown = least_detectable(found.spread, 6)
    assert text.startswith(
        "No difference is detectable with 3 paired seeds, however large: the smallest possible p-value, 0.25,"
    )
    assert f"At least 6 seeds are needed, which can show a difference of {shown:.4f} (power 0.8)" in text
    assert found.as_dict([0.005])["detectable"] is None


def test_seeds_that_are_too_few_only_after_holms_correction_say_so_and_how_many_are_enough():
    compared = tuple(invented(-0.02, 0.02, p_value=0.5, n=6) for _ in range(20))
    found = Resolution(compared, "accuracy", "test")
    text = resolution_texts(found, "COMMAND")[0]
    assert (
        f"Least detectable difference in test accuracy at n = 6: {least_detectable(found.spread, 6):.4f} (power" in text
    )
    shown = least_detectable(found.spread, 10, tests=20)
    assert (
        "None is detectable after Holm's correction for 20 comparisons: the smallest possible p-value, 0.0312," in text
    )
    assert f"is above 0.05/20. At least 10 seeds are needed, which can show a difference of {shown:.4f}" in text
    assert found.too_few(corrected=False) == ""
    assert "inf" not in text
    assert "none" not in text


@pytest.mark.slow
def test_a_study_states_the_planted_spread_and_its_seeds_have_the_planned_power():
    """150 simulated studies of six methods on twelve seeds.

    The median of the stated spreads is within 0.03 of the planted spread. The number of seeds that a study plans from
    its spread shows the difference at a rate of at least 0.75. The planned 0.8 holds only on average, because the
    spread is an estimate.
    """
    generator = np.random.default_rng(9)
    names, planted = ["kd", "ce", "dkd", "dist", "ttm", "pkt"], 0.01
    spreads, powers = [], []
    for _ in range(150):
        seeds = generator.normal(0, 0.02, 12)
        tables = 0.8 + seeds + generator.normal(0, planted / math.sqrt(2), (6, 12))
        rows = [
            trial(100 * place + replicate, method=name, config_id=name, stage="control", replicate=replicate)
            | {"val/accuracy": float(tables[place, replicate])}
            for place, name in enumerate(names)
            for replicate in range(12)
        ]
        trials = trials_table(rows)
        configs = [
            ConfigSummary(
                name, name, name, "control", {}, EMPTY, EMPTY, EMPTY,
                None if name == "kd" else Estimate(0.0, math.nan, math.nan, 12, "", 0.5), None,
            )
            for name in names
        ]  # fmt: skip
        found = find_resolution(trials, configs, None)
        spreads.append(found.spread)
        powers.append(paired_power(0.005, planted, found.needed(0.005, corrected=False)))
    assert np.median(spreads) == pytest.approx(planted, rel=0.05)
    assert np.mean(powers) > 0.75
