import pytest

from analysis.questions.costs import config_costs
from analysis.reading.trials import EXAMPLE, StudyRecords, open_study
from tests.analysis.synthetic import epochs_table, trial, trials_table

# 100 examples per epoch, two epochs. The student's step takes 30 FLOPs per example, a teacher's forward pass 1,000.
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
STORED = LIVE | {"cost/stored_bytes": 640.0, "cost/step_flops": 42.0, "cost/stored_passes": 2.0}
CE = FACTS | {"cost/stored_bytes": 40.0, "cost/step_flops": 30.0}


def study(rows, seconds, forwards=None):
    """Return trials with two epochs each.

    Args:
        rows: trials.
        seconds: seconds per step, by trial and epoch.
        forwards: samples that pass the teacher, by (trial, epoch).
    """
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
    """Return trials with cross-entropy and trials with the facts `taught`."""
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
    # 2 passes over 100 examples, for 3 trials of 2 epochs.
    costs = config_costs(study(rows_of(STORED), SECONDS))
    assert costs["ours"].shared_teacher_passes == pytest.approx(200 / 600)
    assert costs["ours"].step_flops == pytest.approx(42 + 1000 / 3)
    assert costs["ours"].flops_to_ce == pytest.approx((42 + 1000 / 3) / 30)
    assert (costs["ce"].shared_teacher_passes, costs["ce"].flops_to_ce) == (0, 1)


@pytest.mark.parametrize("made", [0.0, 100.0])
def test_what_stored_outputs_cost_does_not_depend_on_who_stored_them(made):
    cost = config_costs(study(rows_of(STORED), SECONDS, {(2, 0): made}))["ours"]
    assert cost.shared_teacher_passes == pytest.approx(200 / 600)


def test_a_teacher_of_a_methods_own_is_paid_for_by_that_method_alone():
    rows = [
        *rows_of(STORED),
        trial(5, stage="replicate", method="sftn", config_id="sftn", replicate=1, **STORED),
        trial(6, stage="replicate", method="kd", teacher="larger", config_id="other", replicate=1, **STORED),
    ]
    costs = config_costs(study(rows, [*SECONDS, (1.0, 1.0), (1.0, 1.0)]))
    assert costs["ours"].shared_teacher_passes == pytest.approx(200 / 600)
    assert costs["sftn"].shared_teacher_passes == costs["other"].shared_teacher_passes == pytest.approx(1)


@pytest.mark.parametrize(("dataset", "passes"), [("fashion_mnist", 4), ("glue:sst2", 1)])
def test_trials_of_an_earlier_version_learnt_from_a_pass_an_epoch_or_from_one(dataset, passes):
    older = {name: value for name, value in STORED.items() if name != "cost/stored_passes"}
    rows = [{**row, "dataset": dataset, "epochs_planned": 4} for row in rows_of(older)]
    assert config_costs(study(rows, SECONDS))["ours"].shared_teacher_passes == pytest.approx(passes * 100 / 600)


def test_a_method_that_runs_the_students_layers_twice_is_measured_by_cross_entropy():
    twice = LIVE | {"cost/forward_flops_student": 20.0, "cost/backward_flops_student": 40.0}
    rows = [*rows_of(LIVE), trial(5, stage="replicate", config_id="twice", replicate=1, **twice)]
    seconds = [*SECONDS, (1.0, 1.0)]
    assert config_costs(study(rows, seconds))["twice"].flops_to_ce == 1036 / 30
    assert config_costs(study(rows[2:], seconds[2:]))["twice"].flops_to_ce == 1036 / 60


def test_confirmed_trials_have_costs_too_and_their_times_count():
    rows = [*rows_of(LIVE), trial(5, stage="confirm", config_id="ours", replicate=3, **LIVE)]
    cost = config_costs(study(rows, [*SECONDS, (6.0, 6.0)]))["ours"]
    assert (cost.n, cost.seconds_per_step) == (3, 6.0)


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
