"""What is said of adapters that training did not move."""

from analysis.questions.adapter import LEAST_SHIFT, adapter_warnings
from tests.analysis.synthetic import trial, trials_table

SHIFT = "train/adapter_shift"


def rows(shifts, **changes):
    return [trial(number, **{SHIFT: shift} | changes) for number, shift in enumerate(shifts)]


def test_adapters_that_did_not_move_are_counted_by_method():
    still = rows([0.004, 0.009, 0.3], method="pesf_kd")
    moved = [trial(10, method="dkd", adapter=True, **{SHIFT: 0.02})]
    (warning,) = adapter_warnings(trials_table([*still, *moved]))
    assert warning == (
        "The adapter did not move in 2 of 3 trials of pesf_kd: training changed the sharpness of the adapted teacher "
        "by 0.009 nats or less (less than 0.01). There the student learned from a constant target. A higher "
        "adapter_learning_rate moves the adapter."
    )


def test_each_variant_is_counted_for_itself():
    several = rows([0.0], method="crd", adapter=True) + rows([0.001], method="pesf_kd", pesf_variant="released-vision")
    names = [
        warning.partition(" of 1 trial of ")[2].partition(":")[0] for warning in adapter_warnings(trials_table(several))
    ]
    assert names == ["crd+adapter", "pesf_kd+released-vision"]


def test_nothing_is_said_of_a_threshold_that_is_reached_of_other_trials_and_of_old_records():
    assert adapter_warnings(trials_table(rows([LEAST_SHIFT, 1.0]))) == []
    assert adapter_warnings(trials_table(rows([None, None], method="kd"))) == []
    assert adapter_warnings(trials_table(rows([0.0], status="failed"))) == []
    assert adapter_warnings(trials_table([])) == []
    assert adapter_warnings(trials_table(rows([0.0])).drop_columns([SHIFT])) == []
