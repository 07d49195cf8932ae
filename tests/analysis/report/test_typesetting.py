"""Typesetting of numbers in texts from other sources."""

import pytest

from analysis.report.typesetting import UNBROKEN, unbroken, with_minus


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("-0.001 [-0.012, +0.009], n = 5", "−0.001 [−0.012, +0.009], n = 5"),
        ("4000 permutations: -.5, (-1)", "4000 permutations: −.5, (−1)"),
        ("begun 2026-11-22, w2-4, lr 7.9e-05, s-0001", "begun 2026-11-22, w2-4, lr 7.9e-05, s-0001"),
        ("--set gap=-1 --seed 2", "--set gap=-1 --seed 2"),
        ("5-fold, non-finite", "5-fold, non-finite"),
    ],
)
def test_a_hyphen_is_a_minus_where_it_stands_before_a_number_of_its_own(given: str, expected: str) -> None:
    assert with_minus(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.886 [0.870, 0.902], n = 5", f"0.886 [0.870,{UNBROKEN}0.902], n = 5"),
        ("[−∞, +0.020] and [0.1, 0.2]", f"[−∞,{UNBROKEN}+0.020] and [0.1,{UNBROKEN}0.2]"),
        ("a, b [see x, y]", "a, b [see x, y]"),
    ],
)
def test_the_ends_of_an_interval_stay_on_one_line(given: str, expected: str) -> None:
    assert unbroken(given) == expected
