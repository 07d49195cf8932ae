"""Estimated effect of an imposed gap, in studies with a planted effect."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.figures.intervention import draw_imposed_gaps
from analysis.questions.intervention import fitted_line, imposed_gaps
from analysis.reading.trials import EXAMPLE, EXAMPLES, open_study
from tests.analysis.conftest import caption_of
from tests.analysis.planted import imposed, measured, records
from tests.analysis.synthetic import trial

pytestmark = pytest.mark.study

STUDIES = 120


@pytest.mark.usefixtures("few_draws")
def test_a_planted_effect_of_the_target_is_covered_as_often_as_its_interval_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(STUDIES):
        (arm,) = imposed_gaps(imposed(generator, 30, centred=-1.5))
        covered += arm.effect.low <= -1.5 <= arm.effect.high
    # 0.95 minus three standard errors of 0.02.
    assert covered / STUDIES >= 0.89


@pytest.mark.usefixtures("few_draws")
def test_a_placebo_without_effect_is_found_to_have_one_no_more_often_than_the_level():
    generator = np.random.default_rng(2)
    found = [imposed_gaps(imposed(generator, 30, placebo=0.0))[0].effect for _ in range(STUDIES)]
    # 0.05 plus three standard errors of 0.02.
    assert np.mean([not each.low <= 0 <= each.high for each in found]) <= 0.11


def test_each_arm_answers_for_itself_and_says_how_far_its_target_was_met():
    arms = imposed_gaps(imposed(np.random.default_rng(3), 60, placebo=0.0, centred=-2.0, paper=1.0))
    assert [arm.control for arm in arms] == ["centred", "paper", "placebo"]
    assert arms[0].effect.high < 0 < arms[1].effect.low
    for arm in arms:
        assert arm.reached.value == pytest.approx(0.5, abs=0.1)
        assert arm.effect.n == 60
        assert arm.evidence == "exploratory"


def test_a_target_that_does_not_vary_has_no_effect_and_few_configs_no_interval():
    rows = [trial(k, epochs=1, gap_control="paper", gap_target=1.0, **measured(1.0, 0.5)) for k in range(6)]
    (arm,) = imposed_gaps(records(rows))
    assert np.isnan(arm.effect.value)
    assert "does not vary" in arm.effect.method
    (few,) = imposed_gaps(imposed(np.random.default_rng(4), 4, centred=1.0))
    assert np.isnan(few.effect.low)
    assert not np.isnan(few.effect.value)


def test_the_band_of_a_line_is_that_of_scipys_resamples():
    generator = np.random.default_rng(6)
    target = generator.uniform(0, 2, size=25)
    values = 0.5 * target + generator.normal(size=25)
    grid, line, low, high = fitted_line(target, values, 0)
    fit = stats.linregress(target, values)
    assert line == pytest.approx(fit.intercept + fit.slope * grid)

    def at_the_ends(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        drawn = stats.linregress(x, y)
        return drawn.intercept + drawn.slope * grid[[0, -1]]

    expected = stats.bootstrap(
        (target, values), at_the_ends, paired=True, vectorized=False, n_resamples=1500, method="percentile",
        rng=generator, confidence_level=1 - 2 * stats.norm.sf(math.sqrt(25 / 23) * stats.t.ppf(0.975, 23)),
    ).confidence_interval  # fmt: skip
    # The standard errors of the line at both ends are about 0.35, those of the quantiles of 1,500 resamples 0.025.
    assert low[[0, -1]] == pytest.approx(expected.low, abs=0.1)
    assert high[[0, -1]] == pytest.approx(expected.high, abs=0.1)


def test_a_study_that_imposed_nothing_has_no_arms_and_an_empty_figure():
    arms = imposed_gaps(open_study(EXAMPLE))
    assert arms == []
    assert "Trials: none" in draw_imposed_gaps(arms).get_supxlabel()


def test_the_figure_has_every_arm_in_both_panels_and_says_n():
    arms = imposed_gaps(imposed(np.random.default_rng(5), 12, centred=-2.0, placebo=0.0))
    figure = draw_imposed_gaps(arms)
    assert "centred 12, placebo 12" in caption_of(figure)
    for axes in figure.axes:
        assert {"centred", "placebo"} <= {line.get_label() for line in axes.lines}


def test_the_shipped_study_is_what_the_documentation_shows():
    page = (
        (Path(__file__).parents[3] / "docs" / "results" / "imposed_gap.md")
        .read_text(encoding="utf-8")
        .replace("−", "-")
    )
    for arm in imposed_gaps(open_study(EXAMPLES / "fashion-gap")):
        effect, reached = ((100 * arm.effect.value, 100 * arm.effect.low, 100 * arm.effect.high), arm.reached)
        cells = [
            str(arm.effect.n),
            f"{reached.value:+.2f} [{reached.low:+.2f}, {reached.high:+.2f}]",
            "{:+.2f} [{:+.2f}, {:+.2f}]".format(*effect),
        ]
        assert f"| {' | '.join(cells)} |" in page


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 24])
def test_the_band_of_a_line_covers_a_planted_line_as_often_as_is_said(n):
    """120 simulated searches each; a pointwise band at five points of the range (standard error about 0.015)."""
    generator = np.random.default_rng(n)
    covered = []
    for number in range(120):
        target = generator.uniform(0, 2, n)
        values = 0.8 + 0.03 * target + generator.normal(0, 0.01, n)
        grid, _, low, high = fitted_line(target, values, seed=number)
        truth = 0.8 + 0.03 * grid
        covered.append(((low < truth) & (truth < high))[[0, 7, 15, 22, -1]])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)
