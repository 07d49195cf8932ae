"""Numbers in words that others wrote."""

import pytest

from analysis.wording.numbers import with_minus


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
