"""Formatted numbers, against values written by hand."""

import math
import subprocess
import sys

import pytest

from analysis.statistics.estimates import Estimate
from trainables.display.numbers import (
    counted,
    format_correlation,
    format_difference,
    format_duration,
    format_estimate,
    format_gap,
    format_in_full,
    format_interval,
    format_latency,
    format_number,
    format_p,
    format_percent,
    format_plus_minus,
    format_points,
    format_settings,
    format_slope,
    listed,
    p_bound,
    p_clause,
)
from trainables.teacher.card import Proportion

NAN, INF = math.nan, math.inf


def estimate(value: float, low: float = NAN, high: float = NAN, n: int = 12, p: float | None = None) -> Estimate:
    return Estimate(value, low, high, n, "a method", p)


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.8864, "0.886", "+0.886"),
        (-0.0123, "−0.012", "−0.012"),
        (1234.5678, "1234.568", "+1234.568"),
        (0.0, "0.000", "0.000"),
        (-0.0, "0.000", "0.000"),
        (0.0004, "0.000", "0.000"),
        (-0.0004, "0.000", "0.000"),
        (-0.0006, "−0.001", "−0.001"),
        (INF, "∞", "+∞"),
        (-INF, "−∞", "−∞"),
        (NAN, "", ""),
        (None, "", ""),
    ],
)
def test_a_number_has_three_decimals_a_minus_sign_and_no_sign_at_zero(
    value: float | None, plain: str, signed: str
) -> None:
    assert format_number(value) == plain
    assert format_number(value, signed=True) == signed


@pytest.mark.parametrize(("places", "text"), [(0, "−3"), (1, "−2.7"), (4, "−2.7183")])
def test_a_number_has_as_many_decimals_as_wanted(places: int, text: str) -> None:
    assert format_number(-math.e, places) == text


def test_a_number_without_decimals_that_rounds_to_zero_has_no_sign() -> None:
    assert [format_number(value, 0, signed=True) for value in (-0.4, 0.4, -10.0, 100.0)] == ["0", "0", "−10", "+100"]


@pytest.mark.parametrize(
    ("p", "cell", "clause"),
    [
        (1.0, "1.000", ", p = 1.000"),
        (0.99960, "1.000", ", p = 1.000"),
        (0.0625, "0.062", ", p = 0.062"),
        (0.03125, "0.031", ", p = 0.031"),
        (0.001, "0.001", ", p = 0.001"),
        (0.00099, "< 0.001", ", p < 0.001"),
        (3e-300, "< 0.001", ", p < 0.001"),
        (0.0, "< 0.001", ", p < 0.001"),
        (NAN, "", ""),
        (None, "", ""),
    ],
)
def test_a_p_value_has_three_decimals_and_is_never_shown_as_zero(p: float | None, cell: str, clause: str) -> None:
    assert format_p(p) == cell
    assert p_clause(p) == clause
    assert p_clause(p, "by Holm") == (f"{clause} by Holm" if clause else "")


@pytest.mark.parametrize(("p", "text"), [(2 / 2**5, "0.062"), (2 / 2**16, "3.1e-05"), (1.0, "1"), (1.5, "1")])
def test_the_smallest_possible_p_value_is_shown_however_small(p: float, text: str) -> None:
    assert p_bound(p) == text


def test_an_estimate_is_followed_by_its_interval() -> None:
    found = estimate(-0.6783, -0.9054, -0.0351)
    assert format_estimate(found) == "−0.678 [−0.905, −0.035]"
    assert format_interval(found) == "[−0.905, −0.035]"
    assert format_correlation(found) == "−0.68 [−0.91, −0.04]"
    assert format_gap(estimate(1.436, 1.2149, 1.655)) == "1.44 [1.21, 1.66]"
    assert format_difference(estimate(0.012, -0.003, 0.0275)) == "+0.012 [−0.003, +0.028]"
    assert format_slope(estimate(0.00123, -0.00456, 0.00703)) == "+0.0012 [−0.0046, +0.0070]"
    assert format_difference(estimate(0.0001, -INF, 0.0204)) == "0.000 [−∞, +0.020]"


def test_an_estimate_of_one_unit_has_no_interval() -> None:
    one = estimate(0.9, n=1)
    assert format_estimate(one) == "0.900"
    assert format_interval(one) == ""
    assert format_plus_minus(one) == "0.900"
    assert format_in_full(one) == "0.900 (no interval), n = 1"


def test_an_estimate_without_a_value_is_empty_in_a_table_and_undefined_in_full() -> None:
    none = estimate(NAN, n=0)
    assert format_estimate(none) == format_interval(none) == format_plus_minus(none) == ""
    assert format_in_full(none) == "undefined, n = 0"


def test_a_mean_is_shown_with_the_half_of_its_interval_that_was_not_cut() -> None:
    assert format_plus_minus(estimate(0.9875, 0.80, 1.0)) == "0.988 ± 0.188"
    assert format_plus_minus(estimate(1.5, 1.0, 2.0), 2, signed=True) == "+1.50 ± 0.50"
    assert format_plus_minus(estimate(-15.0, -17.05, -12.95), 2) == "−15.00 ± 2.05"


def test_an_estimate_in_full_has_its_interval_its_p_value_and_n() -> None:
    assert format_in_full(estimate(0.012, -0.003, 0.027, 6, 0.094), signed=True) == (
        "+0.012 [−0.003, +0.027], p = 0.094, n = 6"
    )
    assert str(estimate(-0.5, -0.9, -0.1, 20, 2e-5)) == "−0.500 [−0.900, −0.100], p < 0.001, n = 20"


def test_a_proportion_is_an_estimate_too() -> None:
    # Wilson's interval, by hand: (0.69 + z²/10000 ± z · sqrt(0.69 · 0.31/5000 + z²/(4 · 5000²))) / (1 + z²/5000).
    assert str(Proportion.of(3450, 5000)) == "0.6900 [0.6770, 0.7027]"


def test_fractions_are_percentages_and_differences_of_them_points() -> None:
    assert [format_percent(value) for value in (0.0, 0.694, 1.0, NAN, None)] == ["0%", "69%", "100%", "", ""]
    assert format_percent(0.8642, 1) == "86.4%"
    assert [format_points(value) for value in (-0.0091, 0.0261, 0.0002, NAN)] == [
        "−0.9 points", "+2.6 points", "0.0 points", "",
    ]  # fmt: skip


def test_things_are_counted_and_listed() -> None:
    assert [counted(n, "trial") for n in (0, 1, 2, 2000)] == ["0 trials", "1 trial", "2 trials", "2,000 trials"]
    assert [listed(["a", "b", "c"][:n]) for n in range(4)] == ["nothing", "a", "a and b", "a, b and c"]


def test_settings_have_three_significant_digits_and_a_minus_sign_of_their_own() -> None:
    values = {"gap_target": -1.0, "learning_rate": 7.9e-05, "rate": 0.04466, "width": 31, "name": "a-1", "shift": True}
    assert (
        format_settings(values) == "gap_target −1, learning_rate 7.9e-05, rate 0.0447, width 31, name a-1, shift True"
    )
    assert format_settings({}) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"), (4.23, "4.2 s"), (45.4, "45 s"), (89.9, "90 s"), (90.0, "2 min"), (720.0, "12 min"),
        (5399.0, "90 min"), (5400.0, "1.5 h"), (12_600.0, "3.5 h"), (172_799.0, "48.0 h"), (181_440.0, "2.1 d"),
    ],
)  # fmt: skip
def test_a_time_is_in_a_readable_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.launcher
def test_the_module_needs_only_the_standard_library() -> None:
    check = (
        "import sys; before = set(sys.modules); import trainables.display.numbers; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['trainables']"


def test_a_latency_has_three_digits_and_one_unit_for_value_and_range():
    assert format_latency(2.2263e-05, 1.5233e-05, 2.6953e-05) == "22.3 µs [15.2, 27]"
    assert format_latency(0.0014, 0.0009, 0.0021) == "1.4 ms [0.9, 2.1]"
    assert format_latency(0.0014) == "1.4 ms"
    assert format_latency(1.2345) == "1.23 s"
    assert format_latency(0.0009998) == "1 ms"
    assert format_latency(0.0005, 0.0004, 0.0012345) == "500 µs [400, 1234]"
