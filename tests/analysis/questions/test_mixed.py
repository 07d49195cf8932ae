"""Mixed-effects model: against statsmodels, with planted effects, and with variances estimated as 0."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from analysis.questions.mixed import gap_mixed_model, mixed_effects, mixed_model_at, random_effects
from analysis.reading.landmark import at_landmark
from analysis.reading.trials import EXAMPLE, open_study
from tests.analysis.planted import measured, records, repeated, searched
from tests.analysis.synthetic import trial

pytestmark = pytest.mark.study

STUDIES = 300
# Over 300 studies, a coverage of 0.95 has a standard error of 0.0126. The band allows three of them on each side.
BAND = (0.91, 0.99)


def unbalanced(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and units of unbalanced groups with a planted slope of 0.5."""
    units = np.repeat(np.arange(12), generator.integers(2, 7, size=12))
    x = generator.normal(size=12)[units] + generator.normal(size=len(units))
    y = 0.5 * x + generator.normal(size=12)[units] + 0.7 * generator.normal(size=len(units))
    return x, y, units


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_that_of_statsmodels_in_unbalanced_data(seed):
    from statsmodels.regression.mixed_linear_model import MixedLM

    x, y, units = unbalanced(np.random.default_rng(seed))
    design = np.column_stack([np.ones(len(x)), x])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MixedLM(y, design, groups=units).fit(reml=True)
    ours = random_effects(design, y, units)
    assert ours.coefficients == pytest.approx(theirs.fe_params, abs=1e-4)
    assert ours.group_variance == pytest.approx(theirs.cov_re[0, 0], abs=1e-3)
    assert ours.residual_variance == pytest.approx(theirs.scale, rel=1e-3)
    # statsmodels uses the Hessian of all parameters. Our covariance is that of least squares given the variances, as in
    # textbooks.
    together = theirs.cov_re[0, 0] * (units[:, None] == units) + theirs.scale * np.eye(len(units))
    expected = np.linalg.inv(design.T @ np.linalg.solve(together, design))
    assert ours.covariance == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_with_slopes_is_that_of_statsmodels(seed):
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    generator = np.random.default_rng(seed)
    x, y, units = unbalanced(generator)
    deviations = x - (np.bincount(units, weights=x) / np.bincount(units))[units]
    y = y + (0.8 * generator.normal(size=12))[units] * deviations
    design = np.column_stack([np.ones(len(x)), x - deviations, deviations])
    frame = pd.DataFrame({"y": y, "mean": x - deviations, "deviation": deviations, "unit": units})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM.from_formula(
            "y ~ mean + deviation", groups="unit", re_formula="1", vc_formula={"slope": "0 + deviation"}, data=frame
        )
        theirs = model.fit(reml=True)
    ours = random_effects(design, y, units, deviations)
    assert ours.coefficients == pytest.approx(theirs.fe_params.to_numpy(), abs=2e-3)
    assert ours.group_variance == pytest.approx(theirs.cov_re.iloc[0, 0], abs=5e-3)
    assert ours.slope_variance == pytest.approx(theirs.vcomp[0], abs=5e-3)
    assert ours.residual_variance == pytest.approx(theirs.scale, rel=5e-3)


def test_the_fit_maximises_the_restricted_likelihood_written_out_in_full():
    generator = np.random.default_rng(21)
    x, y, units = unbalanced(generator)
    deviations = x - (np.bincount(units, weights=x) / np.bincount(units))[units]
    y = y + generator.normal(size=12)[units] * deviations
    design = np.column_stack([np.ones(len(x)), x - deviations, deviations])
    same = units[:, None] == units

    def likelihood(group, slope, rest):
        covariance = same * (group + slope * np.outer(deviations, deviations)) + rest * np.eye(len(y))
        inverse = np.linalg.inv(covariance)
        information = design.T @ inverse @ design
        left = y - design @ np.linalg.solve(information, design.T @ inverse @ y)
        return -0.5 * (np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1] + left @ inverse @ left)

    fit = random_effects(design, y, units, deviations)
    best = np.array([fit.group_variance, fit.slope_variance, fit.residual_variance])
    found = likelihood(*best)
    for place in range(3):
        for factor in (0.9, 0.99, 1.01, 1.1):
            other = best.copy()
            other[place] *= factor
            assert likelihood(*other) < found + 1e-9
    covariance = same * (best[0] + best[1] * np.outer(deviations, deviations)) + best[2] * np.eye(len(y))
    expected = np.linalg.inv(design.T @ np.linalg.solve(covariance, design))
    assert fit.covariance == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("configs", "seeds"), [(4, 16), (8, 5)])
@pytest.mark.parametrize("differs", [0.4, 1.0])
def test_the_mean_effect_within_configs_is_covered_where_the_effect_differs_between_them(configs, seeds, differs):
    generator = np.random.default_rng(19)
    covered = 0
    units = np.repeat(np.arange(configs), seeds)
    for _ in range(STUDIES):
        x = generator.normal(size=configs)[units] + generator.normal(size=len(units))
        mean = (np.bincount(units, weights=x) / seeds)[units]
        slopes = 0.4 + differs * generator.normal(size=configs)
        y = (
            -mean
            + slopes[units] * (x - mean)
            + generator.normal(size=configs)[units]
            + generator.normal(size=len(units))
        )
        within = mixed_effects(x, y, units.tolist())[1]
        covered += within.low <= 0.4 <= within.high
    # A random intercept alone covers 0.71 for 4 configs with 16 seeds if effects differ by 0.4, and 0.46 if by 1.
    assert BAND[0] <= covered / STUDIES <= 0.995


def test_a_rate_that_was_searched_in_logs_is_held_in_logs():
    generator = np.random.default_rng(20)
    found = {"in logs": 0, "linearly": 0}
    for _ in range(60):
        rows = []
        for config in range(12):
            rate = float(2 ** generator.uniform(-10, -3))
            mean, own = np.log2(rate) + generator.normal(), np.log2(rate) + generator.normal()
            for replicate in range(1, 4):
                gap, accuracy = mean + 0.3 * generator.normal(), own + 0.3 * generator.normal()
                of_config = {"config_id": f"c{config}", "stage": "replicate", "replicate": replicate}
                varied = {"adapter_learning_rate": rate, "epochs": 1}
                rows.append(trial(len(rows), **of_config, **varied, **measured(gap, accuracy)))
        study = records(rows)
        for scale, log_fields in (("in logs", None), ("linearly", frozenset())):
            landmark = at_landmark(replace(study, log_fields=log_fields), searched=False)
            effect = mixed_model_at(landmark, "paper", held=["adapter_learning_rate"]).between
            found[scale] += not effect.low <= 0 <= effect.high
    # 0.05 plus three standard errors of 0.028.
    assert found["in logs"] / 60 <= 0.134
    assert found["linearly"] / 60 > 0.2


def test_in_balanced_data_the_effects_are_those_of_two_least_squares_fits():
    generator = np.random.default_rng(5)
    units = np.repeat(np.arange(10), 4)
    x, y = generator.normal(size=(2, 40)) + 2 * generator.normal(size=(2, 10))[:, units]
    means = [np.bincount(units, weights=each) / 4 for each in (x, y)]
    between, within, _ = mixed_effects(x, y, units.tolist())
    assert between.value == pytest.approx(np.polyfit(*means, 1)[0])
    assert within.value == pytest.approx(np.polyfit(x - means[0][units], y - means[1][units], 1)[0])
    assert (between.n, within.n) == (10, 10)


@pytest.mark.parametrize("config_noise", [0.0, 1.0])
def test_both_effects_are_covered_as_often_as_their_intervals_say(config_noise):
    generator = np.random.default_rng(6)
    covered = {"between": 0, "within": 0}
    for _ in range(STUDIES):
        units = np.repeat(np.arange(8), 5)
        means, deviations = generator.normal(size=8)[units], generator.normal(size=40)
        own = config_noise * generator.normal(size=8)[units]
        # The effect between configs is that of the measured mean, which includes the deviations.
        gap = means + deviations
        measured = (np.bincount(units, weights=gap) / 5)[units]
        y = -1.0 * measured + 0.4 * (gap - measured) + own + generator.normal(size=40)
        between, within, _ = mixed_effects(gap, y, units.tolist())
        covered["between"] += between.low <= -1.0 <= between.high
        covered["within"] += within.low <= 0.4 <= within.high
    for level, count in covered.items():
        # If configs or their effects are equal, the interval is too wide, because a variance estimate is never
        # negative.
        upper = 1.0 if level == "within" or not config_noise else BAND[1]
        assert BAND[0] <= count / STUDIES <= upper, level


def test_what_a_shared_seed_does_to_all_configs_is_no_evidence_of_the_gap():
    generator = np.random.default_rng(16)
    covered = ignorant = 0
    units, seeds = np.repeat(np.arange(7), 8), np.tile(np.arange(8), 7)
    for _ in range(STUDIES):
        x, y = 0.3 * generator.normal(size=(2, 56)) + generator.normal(size=(2, 8))[:, seeds]
        crossed, plain = (
            mixed_effects(x, y + 0.4 * x, units.tolist(), crossed=labels)[1] for labels in (seeds.tolist(), None)
        )
        covered += crossed.low <= 0.4 <= crossed.high
        ignorant += plain.low <= 0.4 <= plain.high
    assert BAND[0] <= covered / STUDIES <= 1
    assert ignorant / STUDIES < 0.75
    assert "6 degrees of freedom" in crossed.method


def test_labels_of_one_observation_are_no_crossed_effects():
    x, y, units = unbalanced(np.random.default_rng(17))
    alone = mixed_effects(x, y, units.tolist(), crossed=list(range(len(x))))
    assert alone == mixed_effects(x, y, units.tolist())


def test_crossed_effects_are_those_of_least_squares_with_indicators():
    generator = np.random.default_rng(18)
    units, seeds = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    x, y = generator.normal(size=(2, 20))
    kept = np.arange(20) != 7  # unbalanced
    x, y, units, seeds = x[kept], y[kept], units[kept], seeds[kept]
    design = np.column_stack([x, *(units == u for u in range(5)), *(seeds == s for s in range(1, 4))]).astype(float)
    expected = np.linalg.lstsq(design, y + 9.0 * units, rcond=None)[0][0]
    # Between very different configs, random effects give nearly the same estimate as fixed effects.
    within = mixed_effects(x, y + 9.0 * units, units.tolist(), crossed=seeds.tolist())[1]
    assert within.value == pytest.approx(expected, abs=2e-3)


def test_an_absent_effect_is_found_no_more_often_than_its_level():
    generator = np.random.default_rng(7)
    found = []
    for _ in range(STUDIES):
        units = np.repeat(np.arange(8), 5)
        x, y = generator.normal(size=(2, 40)) + generator.normal(size=(2, 8))[:, units]
        found.append(mixed_effects(x, y, units.tolist())[:2])
    for level in (0, 1):
        # 0.05 plus three standard errors of 0.0126.
        assert np.mean([each[level].p_value <= 0.05 for each in found]) <= 0.088


def test_the_deviations_that_were_planted_are_found():
    generator = np.random.default_rng(8)
    units = np.repeat(np.arange(300), 5)
    y = 2.0 * generator.normal(size=300)[units] + 0.5 * generator.normal(size=1500)
    x = generator.normal(size=1500)
    y += (0.3 * generator.normal(size=300))[units] * x
    _, _, (of_configs, of_seeds, of_effects) = mixed_effects(x, y, units.tolist())
    assert of_configs == pytest.approx(2.0, rel=0.15)
    assert of_seeds == pytest.approx(0.5, rel=0.1)
    assert of_effects == pytest.approx(0.3, rel=0.25)


def test_configs_that_do_not_differ_have_a_variance_of_zero_and_finite_effects():
    generator = np.random.default_rng(9)
    units = np.repeat(np.arange(10), 4)
    y = generator.normal(size=40)
    y -= (np.bincount(units, weights=y) / 4)[units]
    between, within, (of_configs, of_seeds, _) = mixed_effects(generator.normal(size=40), y, units.tolist())
    assert of_configs == pytest.approx(0.0, abs=1e-4)
    assert of_seeds > 0
    assert math.isfinite(between.high - between.low + within.high - within.low)


def test_a_field_that_explains_configs_can_be_held():
    generator = np.random.default_rng(10)
    units = np.repeat(np.arange(40), 3)
    field = generator.normal(size=40)[units]
    x = field + 0.3 * generator.normal(size=120)
    y = 3.0 * field + 0.1 * generator.normal(size=120)
    alone, held = (mixed_effects(x, y, units.tolist(), each)[0] for each in (None, field[:, None]))
    assert alone.low > 2.0
    assert held.low <= 0 <= held.high


@pytest.mark.parametrize(("configs", "seeds"), [(2, 5), (10, 1), (0, 0)])
def test_too_few_configs_or_seeds_leave_both_effects_undefined(configs, seeds):
    units = np.repeat(np.arange(configs), seeds)
    x = np.arange(len(units), dtype=float)
    between, within, deviations = mixed_effects(x, x**2, units.tolist())
    assert math.isnan(between.value)
    assert math.isnan(within.value)
    assert all(map(math.isnan, deviations))
    assert "undefined" in between.method


def test_a_study_is_asked_by_its_fresh_seeds_alone():
    found = gap_mixed_model(repeated(np.random.default_rng(11), 10, 5, between=-2.0, within=1.0), "centred")
    assert found.evidence == "confirmatory"
    assert found.between.high < 0 < found.within.low
    assert found.note.startswith("50 trials")
    assert math.isnan(gap_mixed_model(searched(np.random.default_rng(12), 10), "centred").between.value)
    assert math.isnan(gap_mixed_model(open_study(EXAMPLE), "paper").between.value)  # two configs were repeated
