import pytest

from analysis.costs import config_costs
from analysis.trials import EXAMPLE, StudyRecords, open_study
from tests.analysis.synthetic import epochs_table, trial, trials_table

# 100 examples an epoch, two epochs; the student's own step takes 30 FLOPs an example, a pass of the teacher 1,000.
FACTS = {
    "epochs": 2,
    "cost/train_examples": 100.0,
    "cost/forward_flops_student": 10.0,
    "cost/backward_flops_student": 20.0,
    "cost/trainable_parameters": 7.0,
    "cost/student_parameters": 5.0,
    "cost/adapter_parameters": 2.0,
    "cost/other_parameters": 0.0,
}
LIVE = FACTS | {"cost/teacher_pass_flops": 1000.0, "cost/stored_bytes": 0.0, "cost/step_flops": 1036.0}
STORED = LIVE | {"cost/stored_bytes": 640.0, "cost/step_flops": 42.0}
CE = FACTS | {"cost/stored_bytes": 40.0, "cost/step_flops": 30.0}


def study(rows, seconds, forwards=None):
    """Trials, and two epochs of each with these seconds a step and samples through the teacher."""
    epochs = [
        {
            "trial_id": row["trial_id"],
            "epoch": epoch + 1,
            "cost/seconds_per_step": seconds[number][epoch],
            "cost/teacher_forwards": (forwards or {}).get((number, epoch), 0.0),
        }
        for number, row in enumerate(rows)
        for epoch in range(2)
    ]
    return StudyRecords(trials_table(rows), epochs_table(epochs))


def rows_of(taught):
    return [
        trial(0, stage="control", method="ce", config_id="ce", replicate=1, **CE),
        trial(1, stage="control", method="ce", config_id="ce", replicate=2, **CE),
        trial(2, stage="replicate", config_id="ours", replicate=1, **taught),
        trial(3, stage="replicate", config_id="ours", replicate=2, **taught),
        trial(4, stage="search", config_id="ours", **taught),
    ]


SECONDS = [(1.0, 3.0), (4.0, 4.0), (5.0, 5.0), (7.0, 9.0), (100.0, 100.0)]


def test_a_live_teachers_passes_are_in_every_step():
    cost = config_costs(study(rows_of(LIVE), SECONDS, {(2, 0): 240.0}))["ours"]
    assert cost.shared_teacher_passes == 0
    assert cost.step_flops == 1036
    assert cost.flops_to_ce == 1036 / 30


def test_a_stored_teachers_passes_are_shared_by_all_that_was_trained_on_them():
    # 150 ahead, 100 by a repetition, 50 by the search's trial; 3 trials of 2 epochs of 100 examples.
    records = study(rows_of(STORED), SECONDS, {(2, 0): 100.0, (4, 1): 50.0})
    costs = config_costs(records, teacher_forwards_ahead=150)
    assert costs["ours"].shared_teacher_passes == pytest.approx(300 / 600)
    assert costs["ours"].step_flops == pytest.approx(42 + 500)
    assert costs["ours"].flops_to_ce == pytest.approx(542 / 30)
    assert (costs["ce"].shared_teacher_passes, costs["ce"].flops_to_ce) == (0, 1)


def test_passes_that_an_earlier_study_made_cost_this_one_nothing():
    assert config_costs(study(rows_of(STORED), SECONDS))["ours"].flops_to_ce == 42 / 30


def test_times_are_medians_over_epochs_then_over_repetitions():
    costs = config_costs(study(rows_of(LIVE), SECONDS))
    assert costs["ce"].seconds_per_step == 3.0
    assert costs["ours"].seconds_per_step == 6.5
    assert costs["ours"].seconds_to_ce == 6.5 / 3
    assert costs["ours"].n == 2


def test_a_study_without_cross_entropy_has_a_ratio_of_flops_and_none_of_times():
    cost = config_costs(study(rows_of(LIVE)[2:], SECONDS[2:]))["ours"]
    assert cost.flops_to_ce == 1036 / 30
    assert cost.seconds_to_ce is None
    assert cost.seconds_per_step == 6.5


def test_trials_of_an_earlier_version_do_not_hide_what_later_ones_tell():
    rows = rows_of(LIVE)
    rows[2] = trial(2, stage="replicate", config_id="ours", replicate=1, epochs=2)
    cost = config_costs(study(rows, SECONDS))["ours"]
    assert cost.flops_to_ce == 1036 / 30
    assert cost.parameters == 7


def test_a_study_from_before_there_were_costs_says_that_it_does_not_know():
    for cost in config_costs(open_study(EXAMPLE)).values():
        assert cost.step_flops is None
        assert cost.flops_to_ce is None
        assert cost.seconds_to_ce is None
        assert cost.n == 0
