import math

import numpy as np
import pytest
from scipy import stats

from analysis.questions.confirmation import Scores, best_first, lower_bounds, pooled_spread, summarise_confirmation
from analysis.questions.confirmation_words import confirmation_table, verdict
from analysis.questions.confirmed_methods import confirmed_summaries
from analysis.questions.methods import methods_table
from analysis.questions.power import find_resolution, resolution_texts
from analysis.statistics.estimates import paired_difference
from analysis.statistics.over_searches import between_searches, difference_over_searches, mean_over_searches
from tests.analysis.synthetic import trial, trials_table


def by_seed(*scores: float) -> dict[int, float]:
    """Return the scores by seed, with seeds numbered from 1."""
    return dict(enumerate(scores, start=1))


def test_the_spread_is_pooled_over_what_was_repeated():
    spread, freedom = pooled_spread([by_seed(0.5, 0.7), by_seed(0.1, 0.2, 0.3), by_seed(0.9), {}])
    assert freedom == 3
    assert spread == pytest.approx(math.sqrt((0.02 + 0.02) / 3))
    assert pooled_spread([by_seed(0.9), {}])[1] == 0


def test_a_seed_that_is_kind_to_all_configs_counts_once_in_the_spread():
    # Three seeds shift all five configs equally, so all configs carry the same information: two degrees of freedom.
    offsets = (0.0, 0.01, 0.05, -0.02, 0.03)
    spread, freedom = pooled_spread([by_seed(0.7 + each, 0.8 + each, 0.75 + each) for each in offsets])
    assert spread == pytest.approx(np.std([0.7, 0.8, 0.75], ddof=1))
    assert freedom == pytest.approx(2)
    # The seed effects of the two configs cancel, so there is no common seed effect. The degrees of freedom are (configs
    # - 1) * (seeds - 1).
    assert pooled_spread([by_seed(0.7, 0.8), by_seed(0.8, 0.7)])[1] == pytest.approx(1)
    # By hand: seed effects -0.05 and 0.05, residuals 0.01. MS/m is 0.005 and 0.0002, so the result is 0.0052² / (0.005²
    # + 0.0002²).
    assert pooled_spread([by_seed(0.7, 0.82), by_seed(0.7, 0.78)])[1] == pytest.approx(0.0052**2 / 0.02504e-3)
    # The configs have different seeds, so all differences count.
    assert pooled_spread([{1: 0.7, 2: 0.8}, {3: 0.7, 4: 0.8}])[1] == 2


def test_seeds_that_do_nothing_to_all_alike_count_with_every_config():
    generator = np.random.default_rng(3)
    found = [pooled_spread([by_seed(*row) for row in generator.normal(size=(6, 3))])[1] for _ in range(300)]
    assert max(found) <= 12
    assert np.mean(found) > 10


def test_a_config_with_fresh_seeds_is_estimated_by_them_alone():
    fresh = (0.80, 0.84)
    lucky, plain = lower_bounds(
        [Scores((0.99,), fresh), Scores((0.81,), fresh)], [{1: 0.80, 2: 0.84}, {3: 0.80, 4: 0.84}]
    )
    assert lucky.value == plain.value == pytest.approx(0.82)
    half = stats.t.ppf(0.975, 2) * math.sqrt(0.0008) / math.sqrt(2)
    assert (lucky.low, lucky.high) == pytest.approx((0.82 - half, 0.82 + half))
    assert (lucky.n, lucky.low) == (2, plain.low)


def test_a_search_score_is_shrunken_by_what_seeds_do():
    searched = [Scores((value,)) for value in (0.6, 0.7, 0.8)]
    spread = 0.05
    repeated = [by_seed(0.5 - spread / math.sqrt(2), 0.5 + spread / math.sqrt(2))]
    *_, best = lower_bounds(searched, repeated)
    share = (0.01 - spread**2) / 0.01
    assert best.value == pytest.approx(0.7 + share * 0.1)
    assert best.low == pytest.approx(best.value - stats.t.ppf(0.975, 1) * spread)
    # If seeds explain all differences between scores, the scores carry no information about configs.
    noisy = lower_bounds(searched, [by_seed(0.3, 0.7)])
    assert [estimate.value for estimate in noisy] == [pytest.approx(0.7)] * 3


def test_a_lucky_seed_is_not_chosen_before_a_config_that_was_good_three_times():
    candidates = [Scores((0.89,)), Scores((0.86,), (0.85, 0.86, 0.87)), Scores((0.84,))]
    repeated = [by_seed(0.85, 0.86, 0.87), by_seed(0.80, 0.83, 0.78)]
    assert best_first(candidates, lower_bounds(candidates, repeated)) == [1, 0, 2]


def test_where_nothing_was_repeated_there_is_no_bound_and_fresh_seeds_come_first():
    candidates = [Scores((0.95,)), Scores((0.9,), (0.7,)), Scores((0.97,)), Scores((0.6,), (0.8,))]
    bounds = lower_bounds(candidates, [by_seed(0.7), by_seed(0.8)])
    assert all(math.isnan(bound.low) for bound in bounds)
    assert "no bound" in bounds[0].method
    assert best_first(candidates, bounds) == [3, 1, 2, 0]


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_bounds_lie_below_what_a_config_reaches_at_the_nominal_rate(shared):
    generator = np.random.default_rng(0)
    below = []
    for _ in range(400):
        truth = generator.normal(0.8, 0.02, 6)
        luck = math.sqrt(shared) * generator.normal(size=3) + math.sqrt(1 - shared) * generator.normal(size=(6, 3))
        groups = [tuple(row) for row in truth[:, None] + 0.03 * luck]
        bounds = lower_bounds([Scores((), group) for group in groups], [by_seed(*group) for group in groups])
        below += [bound.low < value for bound, value in zip(bounds, truth, strict=True)]
    # One-sided 97.5%. The six bounds of a study share the estimated spread, so they are not independent.
    assert np.mean(below) == pytest.approx(0.975, abs=0.015)


def test_what_is_chosen_by_the_bound_is_better_than_what_the_luckiest_seed_chooses():
    generator = np.random.default_rng(1)
    gains = []
    for _ in range(300):
        truth = generator.normal(0.8, 0.01, 20)
        score = generator.normal(truth, 0.03)
        promising = np.argsort(-score)[:3]
        fresh = {i: tuple(generator.normal(truth[i], 0.03, 3)) for i in promising}
        candidates = [Scores((score[i],), fresh.get(i, ())) for i in range(20)]
        first = best_first(candidates, lower_bounds(candidates, [by_seed(*each) for each in fresh.values()]))[0]
        gains.append(truth[first] - truth[np.argmax(score)])
    assert np.mean(gains) > 2 * np.std(gains) / math.sqrt(len(gains))


def choice(config_id: str, **values):
    unknown = {"label": config_id, "rank": None, "control": None, "winner": False, "bound": None, "search_score": None}
    return {**unknown, "config_id": config_id, **values}


def confirmed(values: dict[str, list[float]], **changes):
    """Return trials of stage confirm with these test accuracies. Validation accuracy is 0.01 higher."""
    rows = []
    for config_id, accuracies in values.items():
        for replicate, accuracy in enumerate(accuracies, start=4):
            measures = {"test/accuracy": accuracy, "val/accuracy": accuracy + 0.01}
            row = {"stage": "confirm", "config_id": config_id, "replicate": replicate, **measures, **changes}
            rows.append(trial(len(rows), **row))
    return rows


A = [0.85, 0.83, 0.86, 0.84, 0.87, 0.85]
KD = [0.81, 0.80, 0.84, 0.79, 0.84, 0.82]
CE = [0.70, 0.69, 0.75, 0.70, 0.74, 0.72]
CHOSEN = [choice("a", rank=1, search_score=0.90, winner=True), choice("ce", control="ce"), choice("kd", control="kd")]


def test_a_confirmation_compares_each_choice_with_each_control_by_seed():
    # Scores of other stages enter no mean.
    rows = [*confirmed({"a": A, "kd": KD, "ce": CE}), *confirmed({"a": [0.1], "kd": [0.9]}, stage="replicate")]
    result = summarise_confirmation(trials_table(rows), CHOSEN, baseline=None)
    assert [(each.config_id, each.against) for each in result.comparisons] == [("a", "ce"), ("a", "kd")]
    against_ce, against_kd = result.comparisons
    assert against_kd.difference.value == pytest.approx(np.mean(A) - np.mean(KD))
    assert against_kd.difference.p_value == 2 / 2**6
    assert [each.corrected_p for each in result.comparisons] == [4 / 2**6, 4 / 2**6]
    assert against_ce.clear
    assert result.configs[0].test_accuracy.value == pytest.approx(np.mean(A))
    assert result.configs[0].test_accuracy.n == 6


def test_where_methods_are_compared_each_other_one_is_compared_with_the_baseline():
    chosen = [choice("a", rank=1), choice("ce", control="ce"), choice("kd", control="kd")]
    result = summarise_confirmation(trials_table(confirmed({"a": A, "kd": KD, "ce": CE})), chosen, baseline="kd")
    assert [(each.config_id, each.against) for each in result.comparisons] == [("a", "kd"), ("ce", "kd")]


def test_an_interval_is_no_wider_than_accuracies_can_differ():
    rows = confirmed({"a": [0.536, 0.492, 0.358, 0.581], "kd": [0.511, 0.608, 0.483, 0.575]})
    pair = [choice("a", rank=1), choice("kd", control="kd")]
    (only,) = summarise_confirmation(trials_table(rows), pair, baseline=None).comparisons
    assert -1 <= only.difference.low < only.difference.value < only.difference.high <= 1
    (alone,) = summarise_confirmation(trials_table(rows[:1] + rows[4:5]), pair, baseline=None).comparisons
    assert math.isnan(alone.difference.low)
    assert math.isnan(alone.difference.high)


def test_an_interval_that_was_cut_says_so_beside_the_table():
    # Four of six differences are equal, so the bootstrap has no bound on one side.
    shifts = [0.02, 0.02, 0.02, 0.02, 0.01, 0.015]
    kd = [0.25, 0.5, 0.75, 0.5, 0.25, 0.5]
    rows = confirmed({"a": [one + shift for one, shift in zip(kd, shifts, strict=True)], "kd": kd})
    pair = [choice("a", rank=1), choice("kd", control="kd")]
    result = summarise_confirmation(trials_table(rows), pair, baseline=None)
    (only,) = result.comparisons
    assert only.difference.low == -1
    assert "no lower bound" in only.difference.method
    assert "cut to the possible range, −1 to 1; exact" in only.difference.method
    assert only.difference.method in confirmation_table(result)


def test_confirmed_means_are_shown_within_what_is_possible():
    rows = confirmed({"a": [0.98, 0.96], "kd": [0.01, 0.03]})
    high, low = summarise_confirmation(trials_table(rows), CHOSEN[::2], baseline=None).configs
    assert (high.test_accuracy.value, high.test_accuracy.high, high.accuracy.high) == (pytest.approx(0.97), 1.0, 1.0)
    assert (low.test_accuracy.value, low.test_accuracy.low) == (pytest.approx(0.02), 0.0)
    assert "cut to the possible range, 0 to 1" in high.test_accuracy.method
    # The chosen score is fixed. The uncertainty of the optimism is that of the mean subtracted from it.
    assert high.optimism.low == pytest.approx(0.90 - 1.0)


def test_a_failed_trial_takes_its_pair_with_it():
    rows = confirmed({"a": A, "kd": KD})
    rows[1]["status"] = "failed"
    result = summarise_confirmation(trials_table(rows), CHOSEN[::2], baseline=None)
    (only,) = result.comparisons
    assert only.difference.n == 5
    assert only.difference.value == pytest.approx(np.mean(np.delete(np.subtract(A, KD), 1)))


def test_optimism_is_the_score_less_what_was_confirmed():
    result = summarise_confirmation(trials_table(confirmed({"a": A, "kd": KD, "ce": CE})), CHOSEN, baseline=None)
    first = result.configs[0]
    assert first.optimism.value == pytest.approx(0.90 - (np.mean(A) + 0.01))
    assert first.optimism_on_test.value == pytest.approx(0.90 - np.mean(A))
    assert first.optimism.high - first.optimism.low == pytest.approx(first.accuracy.high - first.accuracy.low)
    assert first.optimism.low < first.optimism.value < first.optimism.high
    assert result.configs[1].optimism is None


@pytest.mark.study
def test_the_interval_of_the_optimism_holds_the_truth_at_the_nominal_rate():
    generator = np.random.default_rng(2)
    held = []
    for _ in range(200):
        score = generator.normal(0.8, 0.03, 20).max()  # twenty equal configs, so the lead of the best one is luck
        rows = confirmed({"a": list(generator.normal(0.79, 0.03, 5))})
        optimism = summarise_confirmation(
            trials_table(rows), [choice("a", rank=1, search_score=score)], baseline=None
        ).configs[0].optimism  # fmt: skip
        held.append(optimism.low <= score - 0.8 <= optimism.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.045)


def test_the_verdict_says_what_the_interval_allows_and_nothing_more():
    like_kd = [accuracy + shift for accuracy, shift in zip(KD, (0.02, -0.02) * 3, strict=True)]
    trials = trials_table(confirmed({"a": A, "kd": KD, "ce": CE, "b": like_kd}))
    better, like = (
        summarise_confirmation(trials, [choice(name, rank=1), choice("kd", control="kd")], baseline=None)
        for name in "ab"
    )
    assert "On the test split, a is better than kd: +0.033 [" in verdict(better)[0]
    assert "n = 6" in verdict(better)[0]
    assert "b is not distinguishable from kd: " in verdict(like)[0]
    worse = summarise_confirmation(trials, [choice("ce", rank=1), choice("kd", control="kd")], baseline=None)
    assert "ce is worse than kd" in verdict(worse)[0]
    few = trials_table(confirmed({"a": A[:4], "kd": KD[:4]}))
    fewer = summarise_confirmation(few, [choice("a", rank=1), choice("kd", control="kd")], baseline=None)
    assert "a is not distinguishable from kd by the corrected p-value, though the interval" in verdict(fewer)[0]


def test_the_table_has_every_config_and_comparison():
    result = summarise_confirmation(trials_table(confirmed({"a": A, "kd": KD, "ce": CE})), CHOSEN, baseline=None)
    table = confirmation_table(result)
    assert "| a (winner of the search) | 6 | 0.850 [" in table
    assert "| ce (control) | 6 |" in table
    assert "| a | kd | 6 | +0.033 [" in table
    assert "exact sign-flip permutation test over 64 flips" in table


def test_a_confirmation_that_has_no_trial_yet_is_empty_and_not_wrong():
    result = summarise_confirmation(trials_table([trial(0)]), CHOSEN, baseline=None)
    assert [config.test_accuracy.n for config in result.configs] == [0, 0, 0]
    assert all(each.corrected_p is None and not each.clear for each in result.comparisons)
    assert confirmation_table(result)


def scores_of_searches(seeds=6):
    """Return test scores of three methods by config, with two searches per method. Those of ce found one config."""
    generator = np.random.default_rng(4)
    luck = generator.normal(0, 0.01, seeds)
    means = {"kd1": 0.80, "kd2": 0.82, "dkd1": 0.86, "dkd2": 0.84, "ce1": 0.70}
    scores = {name: (mean + luck + generator.normal(0, 0.003, seeds)).tolist() for name, mean in means.items()}
    chosen = [
        choice("dkd1", label="dkd, search 2", method="dkd", searches=[2], rank=1, search_score=0.87),
        choice("dkd2", label="dkd, search 1", method="dkd", searches=[1], rank=1),
        choice("kd1", label="kd, search 1", method="kd", searches=[1], control="kd"),
        choice("kd2", label="kd, search 2", method="kd", searches=[2], control="kd"),
        choice("ce1", label="ce", method="ce", searches=[1, 2], control="ce"),
    ]
    rows = [
        row
        for config_id, accuracies in scores.items()
        for row in confirmed({config_id: accuracies}, method=config_id[:-1])
    ]
    return scores, chosen, trials_table([row | {"trial_id": f"study-{i:04}"} for i, row in enumerate(rows)])


def test_methods_with_several_searches_are_compared_over_seeds_and_searches():
    scores, chosen, trials = scores_of_searches()
    result = summarise_confirmation(trials, chosen, baseline="kd")
    tables = {
        "dkd": np.array([scores["dkd1"], scores["dkd2"]]),
        "kd": np.array([scores["kd1"], scores["kd2"]]),
        "ce": np.array([scores["ce1"], scores["ce1"]]),
    }
    spread = between_searches(list(tables.values()))
    assert [(each.label, each.against_label) for each in result.comparisons] == [("dkd", "kd"), ("ce", "kd")]
    for each in result.comparisons:
        expected = difference_over_searches(tables[each.label], tables["kd"], spread, smallest_effect=0.005)
        found = each.difference
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert (found.p_value, found.equivalence_p) == pytest.approx((expected.p_value, expected.equivalence_p))
    smallest, other = sorted(each.difference.p_value for each in result.comparisons)
    assert sorted(each.corrected_p for each in result.comparisons) == pytest.approx([2 * smallest, other])
    assert [(each.method, each.searches, each.configs) for each in result.methods] == [
        ("dkd", 2, ("dkd1", "dkd2")),
        ("kd", 2, ("kd1", "kd2")),
        ("ce", 2, ("ce1", "ce1")),
    ]
    for method in result.methods:
        expected = mean_over_searches(tables[method.method], spread)
        found = method.test_accuracy
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert result.first.label == "dkd, search 2"
    assert [each.label for each in result.of_first(control="kd")] == ["dkd"]


def test_tables_and_verdict_of_several_searches_say_what_a_row_averages():
    _, chosen, trials = scores_of_searches()
    result = summarise_confirmation(trials, chosen, baseline="kd")
    shown = confirmation_table(result)
    assert "| **dkd (mean of 2 searches)** | 6 |" in shown
    assert "| dkd, search 2 | 6 |" in shown
    assert "mean over 2 searches and 6 seeds, Student t interval over both, 0.95" in shown
    assert "Between searches of one method, mean scores differ by a standard deviation of" in shown
    assert "pooled over 3 methods" in shown
    assert "Of 3 methods, dkd (mean of 2 searches) has the highest mean test accuracy" in " ".join(verdict(result))
    rows = confirmed_summaries(trials, result)
    assert [(row.method, row.searches, row.accuracy.n) for row in rows] == [("dkd", 2, 6), ("kd", 2, 6), ("ce", 2, 6)]
    assert rows[0].against_baseline == result.comparisons[0].difference
    assert "| dkd (mean of 2 searches) | 6 |" in methods_table(rows)


def test_the_power_of_several_searches_is_that_of_their_means_and_does_not_promise_too_much():
    scores, chosen, trials = scores_of_searches()
    result = summarise_confirmation(trials, chosen, baseline="kd")
    found = find_resolution(trials, [], result)
    means = {name: np.mean([scores[f"{name}1"], scores[f"{name}2"]], axis=0) for name in ("dkd", "kd")}
    means["ce"] = np.array(scores["ce1"])
    expected = sorted(np.std(means[name] - means["kd"], ddof=1) for name in ("dkd", "ce"))
    assert found.spreads == pytest.approx(expected)
    assert "the luck of searches comes on top" in " ".join(resolution_texts(found, "command"))


def test_a_confirmation_of_an_earlier_version_with_one_config_per_method_is_read_as_before():
    scores, _, trials = scores_of_searches()
    chosen = [choice("dkd1", label="dkd", rank=1), choice("kd1", label="kd", control="kd")]
    result = summarise_confirmation(trials, chosen, baseline="kd")
    assert (result.methods, result.note) == ((), "")
    (only,) = result.comparisons
    assert only.difference == paired_difference(scores["dkd1"], scores["kd1"], smallest_effect=0.005)


@pytest.mark.slow
def test_confirmations_over_searches_cover_the_difference_of_methods_and_those_over_seeds_do_not():
    """120 simulated confirmations of four methods with two searches of ten seeds (standard error about 0.015).

    The configs are given, because they were chosen on other seeds. The true value is the mean of the method over all
    searches.
    """
    generator = np.random.default_rng(6)
    truth = {"kd": 0.80, "ce": 0.75, "dkd": 0.81, "dist": 0.80}
    covered, over_seeds, best = [], [], []
    for _ in range(120):
        luck, rows, chosen = generator.normal(0, 0.006, 10), [], []
        found = {}
        for name, mean in truth.items():
            for search in (1, 2):
                config_id = f"{name}{search}"
                found[config_id] = mean + generator.normal(0, 0.008) + luck + generator.normal(0, 0.004, 10)
                rows += confirmed({config_id: found[config_id].tolist()}, method=name)
                role = {"control": name} if name in ("kd", "ce") else {"rank": 1}
                chosen.append(choice(config_id, method=name, searches=[search], **role))
        table = trials_table([row | {"trial_id": f"study-{i:04}"} for i, row in enumerate(rows)])
        result = summarise_confirmation(table, chosen, baseline="kd")
        for each in result.comparisons:
            covered.append(each.difference.low < truth[each.label] - truth["kd"] < each.difference.high)
            pair = paired_difference(found[f"{each.label}1"], found["kd1"])
            over_seeds.append(pair.low < truth[each.label] - truth["kd"] < pair.high)
        best.append(next(each.corrected_p for each in result.comparisons if each.label == "dist") < 0.05)
    assert 0.91 < np.mean(covered) < 0.99
    assert np.mean(over_seeds) < 0.5
    assert np.mean(best) < 0.08  # Holm's level for a true null among three comparisons is at most 0.05
