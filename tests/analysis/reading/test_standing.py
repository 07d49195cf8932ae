"""Conditions for better, worse, equivalent and not distinguishable."""

import math
import re
from pathlib import Path

import pytest

import analysis
from analysis.reading.standing import all_standings_in_words, standing_in_words, standing_of
from analysis.statistics.estimates import Estimate

ROOT = Path(analysis.__file__).parents[1]


def difference(low: float, high: float, p: float | None = None, equivalence: float | None = None) -> Estimate:
    return Estimate((low + high) / 2, low, high, 8, "m", p, smallest_effect=0.005, equivalence_p=equivalence)


@pytest.mark.parametrize(
    ("given", "corrected", "said"),
    [
        (difference(0.01, 0.03, 0.01), (None, None), "is better than kd"),
        (difference(-0.03, -0.01, 0.01), (0.05, None), "is worse than kd"),
        (
            difference(0.01, 0.03, 0.01),
            (0.2, None),
            "is not distinguishable from kd by the corrected p-value, "
            "though the interval of the difference lies above 0",
        ),
        (difference(-0.01, 0.02, 0.5, 0.3), (None, None), "is not distinguishable from kd"),
        (difference(-0.003, 0.002, 0.5, 0.01), (None, 0.03), "is no better and no worse than kd by 0.005 or more"),
        (difference(-0.003, 0.002, 0.5, 0.01), (None, 0.2), "is not distinguishable from kd"),
        # Clearly better, by less than the smallest relevant difference.
        (difference(0.001, 0.003, 0.01, 0.01), (None, None), "is better than kd"),
        (difference(math.nan, math.nan, 0.01, 0.01), (None, None), "is not distinguishable from kd"),
    ],
)
def test_a_difference_is_described_by_interval_and_tests(
    given: Estimate, corrected: tuple[float | None, float | None], said: str
) -> None:
    assert standing_in_words(given, "kd", *corrected) == said


def test_methods_are_counted_by_their_standing() -> None:
    tested = {
        "a": (difference(0.01, 0.03, 0.001), 0.01, None),
        "b": (difference(-0.03, -0.01, 0.001), 0.01, None),
        "c": (difference(-0.003, 0.002, 0.5, 0.01), 1.0, 0.02),
        "d": (difference(-0.03, 0.02, 0.5, 0.5), 1.0, 1.0),
        "e": (difference(-0.03, 0.02, 0.5, 0.5), 1.0, 1.0),
    }
    assert [standing_of(*each) for each in tested.values()] == ["better", "worse", "equivalent", "open", "open"]
    assert all_standings_in_words([(name, *each) for name, each in tested.items()], "kd") == (
        "a is better than kd; of 5 other methods, 1 is worse than kd (b), "
        "1 is no better and no worse than kd by 0.005 or more (c), 2 are not distinguishable from kd, "
        "by p-values corrected by Holm."
    )
    assert all_standings_in_words([], "kd") == "No other method can be compared with kd."


def test_no_sentence_of_the_product_calls_an_open_difference_no_better() -> None:
    # Only these modules may contain the phrases. They test for equivalence first.
    allowed = {"analysis/reading/standing.py", "analysis/report/answer.py", "analysis/wording/sentences.py"}
    files = [path for room in ("analysis", "study") for path in (ROOT / room).rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in [*files, ROOT / "README.md", *(ROOT / "docs" / "results").glob("*.md")]
        if re.search(r"\b(no better|no worse|level with|not clearly different)\b", path.read_text(encoding="utf-8"))
    }
    assert found <= allowed
