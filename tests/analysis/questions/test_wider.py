"""The argument that searches a wider range is one that the launcher reads, and whose range holds the old one."""

import pytest

from analysis.questions.importance import range_warnings
from analysis.questions.wider import wider_argument
from analysis.reading.trials import StudyRecords
from analysis.report.folder import Searched
from study.plan.bounds import read_bounds
from tests.analysis.synthetic import epochs_table, trial, trials_table


def searched(name, low, high, *, log=False):
    return Searched(name, "scientific", low, high, (), log)


@pytest.mark.parametrize(
    ("name", "low", "high", "log", "below", "above"),
    [
        ("temperature", 1.0, 16.0, True, "temperature=0.25:16:log", "temperature=1:64:log"),
        ("temperature", 1.0, 16.0, False, "temperature=0.5:16", "temperature=1:24"),
        ("adapter_width", 2, 256, True, "adapter_width=1:256:log", "adapter_width=2:2900:log"),
        ("ce_weight", 0.0, 2.0, False, None, "ce_weight=0:3"),
        ("student_momentum", 0.0, 0.9, False, None, "student_momentum=0:0.95"),
        ("student_learning_rate", 0.01, 0.2, True, "student_learning_rate=0.0022:0.2:log",
         "student_learning_rate=0.01:0.9:log"),
        ("adapter_width", 1, 65536, True, None, None),
        ("temperature", 1.0, 900.0, True, "temperature=0.033:900:log", "temperature=1:1000:log"),
    ],
)  # fmt: skip
def test_a_range_is_extended_by_half_on_its_own_scale_within_what_the_field_accepts(name, low, high, log, below, above):
    for end, expected in (("low", below), ("high", above)):
        found = wider_argument(searched(name, low, high, log=log), end)
        assert found == (None if expected is None else f"--search {expected}")
        if found is not None:
            (bounds,) = read_bounds([found.removeprefix("--search ")])
            assert (bounds.log, bounds.low <= low, bounds.high >= high) == (log, True, True)
            assert bounds.extremes != (low, high)


def test_choices_and_unknown_fields_have_no_wider_range():
    assert wider_argument(Searched("adapter_kind", "scientific", None, None, ("a", "b"), False), "low") is None
    assert wider_argument(searched("of_a_later_version", 1.0, 2.0), "high") is None


def test_a_warning_of_best_values_at_a_bound_has_the_argument_or_says_that_there_is_none():
    fields = [{"temperature": 2.0 ** (number / 3), "ce_weight": 2.0 - number / 6} for number in range(13)]
    rows = [trial(number, **own, **{"val/accuracy": 0.5 + number / 100}) for number, own in enumerate(fields)]
    epochs = [{"trial_id": row["trial_id"], "epoch": 15, "val/accuracy": row["val/accuracy"]} for row in rows]
    records = StudyRecords(trials_table(rows), epochs_table(epochs))
    ranges = [searched("temperature", 1.0, 16.0, log=True), searched("ce_weight", 0.0, 2.0)]
    wider, closed = (warning.message for warning in range_warnings(records, ranges))
    assert "crowd at its high bound 16" in wider
    assert "search a wider range with `--search temperature=1:64:log`, or know why" in wider
    assert "crowd at its low bound 0" in closed
    assert closed.endswith("ce_weight accepts no value beyond it")
