"""Names, units and limits of the quantities of a search."""

import math

import pytest

from trainables.spec.quantities import LIMITED, QUANTITIES, limit_in, objectives_in

pytestmark = pytest.mark.unit
ACCURACY = "val/accuracy"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("latency=5ms", 0.005), ("latency=250us", 250e-6), ("latency=250µs", 250e-6), ("latency=0.5s", 0.5),
        ("latency = 1.5e1 ms", 0.015), ("size=2MB", 2e6), ("size=2MiB", 2 * 2**20), ("size=10kB", 1e4),
        ("size=500B", 500.0), ("flops=50M", 5e7), ("flops=1200", 1200.0), ("parameters=100k", 1e5),
        ("val/ece=0.05", 0.05), ("gap=1", 1.0),
    ],
)  # fmt: skip
def test_a_limit_is_converted_to_the_unit_of_the_records(text, value):
    name, found = limit_in(text)
    assert name == text.partition("=")[0].strip()
    assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency", "use the form NAME=VALUE"),
        ("latency=", "a number above 0 with one of the units us, µs, ms, s"),
        ("latency=5", "such as --limit latency=5ms"),
        ("latency=5MB", "one of the units us, µs, ms, s"),
        ("latency=5MS", "one of the units us, µs, ms, s"),
        ("size=2ms", "one of the units B, kB"),
        ("size=2", "one of the units B, kB"),
        ("size=2Mb", "one of the units B, kB"),
        ("flops=5ms", "a number above 0, alone or followed by k, K, M, G"),
        ("val/ece=5%", "give a number above 0, such as --limit val/ece=0.05"),
        ("gap=-1", "give a number above 0"),
        ("gap=0", "give a number above 0"),
        ("gap=nan", "give a number above 0"),
        ("gap=inf", "give a number above 0"),
        ("gap=1e999", "give a number above 0"),
        ("latency=1,5ms", "give a number above 0"),
        ("val/accuracy=0.9", "val/accuracy is maximised: limit one of latency"),
        ("latncy=5ms", "did you mean 'latency'?"),
        ("=5ms", "unknown quantity ''"),
    ],
)
def test_a_wrong_limit_is_refused_with_what_is_allowed(text, says):
    with pytest.raises(ValueError, match=r"^--limit") as error:
        limit_in(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("val/accuracy", "give two or more"),
        ("latency", "give two or more"),
        ("", "give two or more"),
        ("latency,size", "--objectives val/accuracy,latency,size"),
        ("val/accuracy,latency,latency", "names latency more than once"),
        ("val/accuracy,latncy", "did you mean 'latency'?"),
        ("val/accuracy,val/f1", "the objective of this dataset is val/accuracy"),
        ("accuracy,latency", "did you mean 'val/accuracy'?"),
    ],
)
def test_wrong_objectives_are_refused_with_what_is_allowed(text, says):
    with pytest.raises(ValueError, match=r"^--objectives") as error:
        objectives_in(text, ACCURACY)
    assert says in str(error.value)


def test_objectives_keep_their_order_and_the_first_is_the_one_of_the_dataset_or_another():
    assert objectives_in(" latency , val/accuracy ", ACCURACY) == ("latency", ACCURACY)
    assert objectives_in("val/f1,val/ece", "val/f1") == ("val/f1", "val/ece")


def test_the_gap_is_an_absolute_value_and_an_unknown_value_is_nan():
    gap = QUANTITIES["gap"]
    assert gap.value_in({gap.column: -0.25}) == gap.value_in({gap.column: 0.25}) == 0.25
    assert math.isnan(gap.value_in({}))
    assert math.isnan(gap.value_in({gap.column: None}))
    accuracy = QUANTITIES[ACCURACY]
    assert (accuracy.value_in({ACCURACY: 0.5}), accuracy.direction) == (0.5, "maximize")


def test_only_what_depends_on_the_architecture_is_known_before_the_search():
    known = {name for name in LIMITED if QUANTITIES[name].is_of_architecture}
    assert known == {"latency", "size", "flops", "parameters"}
    assert {name for name in LIMITED if QUANTITIES[name].needs_program} == {"latency", "size"}
    assert all(limit_in(f"{name}={QUANTITIES[name].example}") for name in LIMITED)
