"""Agreement of seeds on the order of configs, with planted agreement."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.questions.stability import rank_stability, seed_agreement
from analysis.reading.trials import EXAMPLE, StudyRecords, open_study
from tests.analysis.planted import records, repeated
from tests.analysis.synthetic import epochs_table, trial, trials_table

pytestmark = pytest.mark.study

STUDIES = 300


def test_the_agreement_is_the_mean_of_all_pairs_and_kendalls_w_follows_from_it():
    table = np.random.default_rng(0).normal(size=(5, 6)) + np.arange(6)
    pairs = [stats.spearmanr(table[i], table[j]).statistic for i in range(5) for j in range(i)]
    found = seed_agreement(table)
    assert found.value == pytest.approx(np.mean(pairs))
    ranks = stats.rankdata(table, axis=1).sum(axis=0)
    w = 12 * ((ranks - ranks.mean()) ** 2).sum() / (5**2 * (6**3 - 6))
    assert (found.value * 4 + 1) / 5 == pytest.approx(w)


@pytest.mark.parametrize("seeds", [3, 8])
def test_seeds_that_agree_wholly_have_an_agreement_of_one_and_no_interval(seeds):
    found = seed_agreement(np.tile(np.arange(6.0), (seeds, 1)))
    assert found.value == pytest.approx(1.0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert f"no interval: all {seeds} seeds rank alike" in found.method
    assert "jackknife" not in found.method
    assert found.p_value < 0.05


def test_an_agreement_that_no_seed_changes_has_no_interval_either():
    # Each seed moves every config by one rank, so all pairs of seeds agree equally.
    found = seed_agreement(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0]]))
    assert found.value == pytest.approx(-0.5)
    assert math.isnan(found.low)
    assert "it is the same without any of the 3 seeds" in found.method


def test_where_seeds_happen_to_agree_there_is_no_interval_and_else_one_with_a_length():
    generator = np.random.default_rng(5)
    found = [seed_agreement(np.linspace(-1, 1, 4) + 0.3 * generator.normal(size=(3, 4))) for _ in range(60)]
    without = [each for each in found if math.isnan(each.low)]
    # 0.57 of 60 such studies, plus or minus three standard errors of 0.064.
    assert len(without) / 60 == pytest.approx(0.57, abs=0.2)
    assert all(each.high - each.low > 0.01 for each in found if not math.isnan(each.low))


def test_the_p_value_of_an_agreement_is_that_of_scipys_permutations():
    table = np.random.default_rng(6).normal(size=(4, 5)) + 0.5 * np.arange(5)

    def agreement(*rows: np.ndarray) -> float:
        matrix = np.corrcoef(stats.rankdata(rows, axis=1))
        return float(matrix[np.triu_indices(len(rows), 1)].mean())

    expected = stats.permutation_test(
        tuple(table), agreement, permutation_type="pairings", alternative="greater", n_resamples=2000,
        vectorized=False, rng=np.random.default_rng(7),
    ).pvalue  # fmt: skip
    assert 0.01 < expected < 0.5
    # The Monte Carlo standard error of each p-value is at most 0.011.
    assert seed_agreement(table).p_value == pytest.approx(expected, abs=0.04)


def test_seeds_that_rank_at_random_are_found_to_agree_no_more_often_than_the_level():
    generator = np.random.default_rng(1)
    p_values = [seed_agreement(generator.normal(size=(5, 6))).p_value for _ in range(STUDIES)]
    # 0.05 plus three standard errors of 0.0126.
    assert np.mean(np.array(p_values) <= 0.05) <= 0.088


@pytest.mark.study
def test_a_planted_agreement_is_covered_as_often_as_the_interval_says():
    generator = np.random.default_rng(2)
    configs = np.linspace(-1, 1, 6)
    many = stats.rankdata(configs + generator.normal(size=(4000, 6)), axis=1)
    many = (many - 3.5) / np.linalg.norm(many - 3.5, axis=1, keepdims=True)
    truth = ((many.sum(axis=0) ** 2).sum() - 4000) / (4000 * 3999)
    found = [seed_agreement(configs + generator.normal(size=(8, 6))) for _ in range(STUDIES)]
    # Coverage of a jackknife of eight seeds: 0.95 minus 0.02, minus three standard errors of 0.0126.
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.89


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (0, 0)])
def test_few_seeds_or_configs_have_no_agreement(shape):
    found = seed_agreement(np.random.default_rng(3).normal(size=shape))
    assert math.isnan(found.value)
    assert "undefined" in found.method


def test_the_best_config_is_best_as_often_as_its_seeds_say():
    rows = [
        trial(10 * k + r, config_id=f"config{k}", stage="replicate", replicate=r, **{"val/accuracy": accuracy})
        for k, accuracies in enumerate([(0.5, 0.5, 0.5, 0.5), (0.6, 0.6, 0.6, 0.3), (0.1, 0.1, 0.1, 0.1)])
        for r, accuracy in enumerate(accuracies)
    ]
    found = rank_stability(records(rows))
    # The second config is the best unless the fourth seed is drawn at least twice in four draws (probability 0.2617).
    # With two such draws, the means are 0.45 against 0.5.
    assert list(found.best) == ["config1", "config0", "config2"]
    assert found.best["config1"] == pytest.approx(1 - 0.2617, abs=0.03)
    assert found.note == "3 configs on 4 fresh seeds"
    assert found.evidence == "confirmatory"


def test_a_config_that_lost_a_seed_is_left_out_and_counted():
    study = repeated(np.random.default_rng(4), 4, 5)
    lost = records(study.trials.to_pylist()[:-1])
    found = rank_stability(lost)
    assert found.note == "3 configs on 5 fresh seeds; 1 without a result on each of them left out"
    assert found.agreement.n == 5


def test_a_study_without_fresh_seeds_has_no_stability():
    found = rank_stability(records([trial(0, **{"val/accuracy": 0.5})]))
    assert math.isnan(found.agreement.value)
    assert found.best == {}


def test_the_shipped_example_ranks_four_configs_over_six_seeds():
    found = rank_stability(open_study(EXAMPLE))
    assert found.note == "4 configs on 6 fresh seeds"
    assert sum(found.best.values()) == pytest.approx(1.0)


def study_of(table):
    """Return repetitions with these accuracies (seeds, configs)."""
    rows = [
        trial(100 * config + seed, stage="replicate", config_id=f"c{config}", replicate=seed) | {"val/accuracy": score}
        for seed, scores in enumerate(table, start=1)
        for config, score in enumerate(scores)
    ]
    return StudyRecords(trials_table(rows), epochs_table([]))


@pytest.mark.slow
def test_no_config_stays_first_for_nothing_and_a_better_one_does():
    """150 simulated studies each of four configs on six seeds.

    Without a difference, the observed best config is the best in a mean fraction of resamples far below 1, and every
    config is the best in a quarter of them on average. A config that is better by two standard errors is the best in
    most resamples.
    """
    generator = np.random.default_rng(8)
    for shift, of_first, of_planted in ((0.0, (0.5, 0.8), (0.18, 0.32)), (1.6, (0.8, 1.0), (0.8, 1.0))):
        best, planted = [], []
        for _ in range(150):
            table = generator.normal(size=(6, 4)) + shift * np.array([1, 0, 0, 0])
            found = rank_stability(study_of(table)).best
            best.append(max(found.values()))
            planted.append(found.get("c0", 0.0))
        assert of_first[0] < np.mean(best) < of_first[1]
        assert of_planted[0] < np.mean(planted) < of_planted[1]
