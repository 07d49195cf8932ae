"""Comparison of confirmed configs over teachers, on simulated scores."""

import numpy as np
import pyarrow as pa
import pytest

from analysis.questions.beyond_seeds import cells_of, difference_beyond_seeds, mean_beyond_seeds, share_in_words
from analysis.questions.confirmation import summarise_confirmation
from analysis.questions.confirmation_words import confirmation_table, verdict
from analysis.questions.costs import config_costs
from analysis.reading.pooling import distinct_runs
from analysis.reading.trials import StudyRecords
from analysis.report.tables import factors_table
from analysis.statistics.estimates import mean_interval
from tests.analysis.synthetic import trial, trials_table

SEEDS, TEACHERS = 6, 3
OF_TEACHERS = (0.0, 0.06, -0.03)


def rows_of(config_id, method, mean, *, spread=0.01, teachers=TEACHERS, drop=()):
    """Return the confirmed trials of a config, with an effect of the teacher if the method is dkd."""
    generator = np.random.default_rng(sum(map(ord, config_id)))
    rows = []
    for place in (each for each in range(SEEDS) if each not in drop):
        teacher = place % teachers
        score = mean + (OF_TEACHERS[teacher] if method == "dkd" else 0.0) + generator.normal() * spread
        rows.append(trial(
            place + 100 * ord(config_id), config_id=config_id, method=method, stage="confirm", replicate=place + 3,
            seed=place, data_seed=place, teacher_number=teacher, **{"test/accuracy": score, "val/accuracy": score},
        ))  # fmt: skip
    return rows


def summarised(*rows):
    """Summarise a confirmation of these rows with the choices dkd, ce and kd."""
    chosen = [
        {"config_id": "a", "label": "dkd", "rank": 1, "control": None},
        {"config_id": "c", "label": "ce", "rank": None, "control": "ce"},
        {"config_id": "k", "label": "kd", "rank": None, "control": "kd"},
    ]
    chosen = [{**each, "winner": False, "bound": None, "search_score": None} for each in chosen]
    return summarise_confirmation(trials_table([each for own in rows for each in own]), chosen, baseline="kd")


def test_a_difference_is_averaged_over_the_means_of_its_teachers():
    one, other = (trials_table(rows_of(*each)) for each in (("a", "dkd", 0.8), ("k", "kd", 0.7)))
    found = difference_beyond_seeds(one, other)
    scores = np.array(one["test/accuracy"].to_pylist()) - np.array(other["test/accuracy"].to_pylist())
    expected = mean_interval([scores[number::TEACHERS].mean() for number in range(TEACHERS)])
    assert (found.mean.value, found.mean.low, found.mean.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert (found.mean.n, found.share.groups, found.share.n) == (TEACHERS, TEACHERS, SEEDS)
    assert found.share.between > 0.8
    assert f"{found.share.between:.0%} of the variance between teachers" in share_in_words(found)
    assert "3 teachers, n = 6" in share_in_words(found)


def test_one_teacher_records_of_earlier_versions_and_methods_without_teacher_have_no_such_interval():
    one = trials_table(rows_of("a", "dkd", 0.8, teachers=1))
    assert mean_beyond_seeds(one) is None
    old = trials_table(rows_of("a", "dkd", 0.8)).drop_columns(["teacher_number"])
    assert set(cells_of(old).values()) == {(0, 0)}
    assert mean_beyond_seeds(old) is None
    assert mean_beyond_seeds(trials_table(rows_of("c", "ce", 0.7))) is None
    assert mean_beyond_seeds(trials_table(rows_of("k", "kd", 0.7))).mean.n == TEACHERS


def test_a_failed_seed_leaves_groups_of_unequal_size_and_a_missing_teacher_counts_less():
    other = trials_table(rows_of("k", "kd", 0.7))
    found = difference_beyond_seeds(trials_table(rows_of("a", "dkd", 0.8, drop=(4,))), other)
    assert (found.mean.n, found.share.n) == (3, 5)
    assert "with 1 to 2 seeds each" in found.mean.method
    found = difference_beyond_seeds(trials_table(rows_of("a", "dkd", 0.8, drop=(1, 4))), other)
    assert (found.mean.n, found.share.n) == (2, 4)
    assert difference_beyond_seeds(trials_table(rows_of("a", "dkd", 0.8, drop=(1, 2, 4, 5))), other) is None


def test_with_one_seed_for_each_teacher_the_share_is_unknown_and_the_interval_stays():
    one, other = (trials_table(rows_of(*each, drop=(3, 4, 5))) for each in (("a", "dkd", 0.8), ("k", "kd", 0.7)))
    found = difference_beyond_seeds(one, other)
    assert found.mean.low < found.mean.value < found.mean.high
    assert share_in_words(found).startswith("share of variance between teachers unknown (needs 2 groups")


def test_the_confirmation_shows_the_interval_beyond_seeds_next_to_that_over_seeds_and_warns_of_few():
    result = summarised(rows_of("a", "dkd", 0.8), rows_of("c", "ce", 0.6), rows_of("k", "kd", 0.7))
    of = {each.label: each for each in result.comparisons}
    assert of["dkd"].beyond_seeds.mean.value == pytest.approx(of["dkd"].difference.value)
    width, usual = (each.high - each.low for each in (of["dkd"].beyond_seeds.mean, of["dkd"].difference))
    assert width > usual
    assert [each.beyond_seeds is None for each in result.configs] == [False, True, False]
    assert of["ce"].beyond_seeds is not None, "kd has a teacher"
    shown = confirmation_table(result)
    assert "| over teachers and seeds |" in shown
    assert "Student t interval over the means of teachers (2 df, 6 values)" in shown
    (text,) = (each for each in verdict(result) if each.startswith("Over 3 teachers"))
    assert "for new teachers trained alike: dkd minus kd" in text
    assert "3 teachers are few, so these intervals are wide" in text
    table = factors_table(result)
    assert len(table.rows) == 2
    assert "are wide for few teachers" in table.notes[0]


def with_splits(rows):
    """Return rows with three splits and two teachers per split, in the order of a confirmation."""
    return [{**row, "split_number": place % 3, "teacher_number": place // 3 % 2} for place, row in enumerate(rows)]


def test_with_several_splits_the_interval_is_over_splits_for_methods_without_teacher_too():
    rows = [with_splits(rows_of(*each)) for each in (("a", "dkd", 0.8), ("c", "ce", 0.6), ("k", "kd", 0.7))]
    result = summarised(*rows)
    found = {each.label: each.beyond_seeds for each in result.configs}
    assert {each.unit for each in found.values()} == {"split"}
    scores = np.array([row["test/accuracy"] for row in rows[1]])
    expected = mean_interval([scores[number::3].mean() for number in range(3)])
    assert (found["ce"].mean.low, found["ce"].mean.high) == pytest.approx((expected.low, expected.high))
    assert "| over splits, teachers and seeds |" in confirmation_table(result)
    (text,) = (each for each in verdict(result) if each.startswith("Over 3 splits"))
    assert "for new splits into train and validation, and new teachers: dkd minus kd" in text
    assert "3 splits are few" in text
    assert factors_table(result).caption == "Compared over splits, teachers and seeds"
    assert mean_beyond_seeds(trials_table(rows[0][:1])) is None


def test_shares_of_splits_teachers_and_seeds_add_up():
    rows = [with_splits(rows_of(name, method, 0.7) * 2) for name, method in (("a", "dkd"), ("k", "kd"))]
    generator = np.random.default_rng(0)
    for own in rows:
        for place, row in enumerate(own):
            row["replicate"], row["trial_id"] = place, f"{row['trial_id']}-{place}"
            row["test/accuracy"] += generator.normal() * 0.02
    found = difference_beyond_seeds(*map(trials_table, rows))
    assert found.share.inner is not None
    words = share_in_words(found)
    assert "between splits" in words
    assert "between teachers of a split" in words
    assert "(3 splits, n = 12)" in words
    table = factors_table(summarised(*rows))
    assert "of teachers in a split" in table.heads


def test_without_several_teachers_nothing_is_added():
    rows = [rows_of(*each, teachers=1) for each in (("a", "dkd", 0.8), ("c", "ce", 0.6), ("k", "kd", 0.7))]
    result = summarised(*rows)
    assert result.over is None
    assert factors_table(result) is None
    assert "teachers" not in confirmation_table(result)
    assert not any("teachers" in each for each in verdict(result))


def test_runs_with_other_teachers_are_no_repetitions_of_each_other():
    rows = rows_of("k", "kd", 0.7)
    again = [{**row, "trial_id": f"other-{row['trial_id']}", "teacher_number": 0} for row in rows]
    trials = trials_table([*rows, *again])
    epochs = trials.select(["trial_id"])
    kept = distinct_runs(StudyRecords(trials, epochs)).trials
    assert kept.num_rows == 2 * SEEDS - SEEDS // TEACHERS
    assert distinct_runs(StudyRecords(trials.drop_columns(["teacher_number"]), epochs)).trials.num_rows == SEEDS


def test_passes_of_each_teacher_are_divided_among_its_own_trials():
    flops = {"cost/step_flops": 10.0, "cost/forward_flops_student": 3.0, "cost/backward_flops_student": 6.0,
             "cost/teacher_pass_flops": 5.0, "cost/train_examples": 100.0, "cost/stored_passes": 2,
             "cost/stored_bytes": 1.0}  # fmt: skip
    rows = [{**row, **flops, "epochs": 4, "teacher": "cnn_32_64"} for row in rows_of("k", "kd", 0.7)]
    trials = trials_table(rows)
    no_epochs = pa.table({"trial_id": pa.array([], pa.string()), "cost/seconds_per_step": pa.array([], pa.float64())})
    found = config_costs(StudyRecords(trials, no_epochs))["k"]
    # Each of three teachers processes the split twice, for two trials of four epochs.
    assert found.shared_teacher_passes == pytest.approx(2 / (2 * 4))
