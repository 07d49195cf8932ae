"""Share of an effect that is mediated by the gap, in studies with a planted share."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.questions.mediation import gap_mediation, split_effect
from analysis.reading.trials import EXAMPLE, StudyRecords, open_study
from analysis.statistics.estimates import Estimate
from tests.analysis.planted import repeated, searched

pytestmark = pytest.mark.study

STUDIES = 60
# Over 60 studies, a coverage of 0.95 has a standard error of 0.028. The limit allows three of them.
COVERED = 0.95 - 3 * 0.028


def chain(generator: np.random.Generator, n: int, a: float, b: float, direct: float) -> tuple[np.ndarray, ...]:
    treatment = generator.normal(size=n)
    mediator = a * treatment + generator.normal(size=n)
    return treatment, mediator, direct * treatment + b * mediator + generator.normal(size=n), np.empty((n, 0))


@pytest.mark.usefixtures("few_draws")
def test_a_planted_chain_is_covered_as_often_as_its_intervals_say():
    generator = np.random.default_rng(1)
    truths = {"direct": 0.5, "indirect": -1.0 * -0.8, "total": 1.3, "share": 0.8 / 1.3}
    covered = dict.fromkeys(truths, 0)
    for _ in range(STUDIES):
        found = split_effect(*chain(generator, 40, -1.0, -0.8, 0.5))
        for (name, truth), estimate in zip(truths.items(), found, strict=False):
            covered[name] += estimate.low <= truth <= estimate.high
    assert {name: count for name, count in covered.items() if count < COVERED * STUDIES} == {}


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_where_a_link_is_missing_nothing_goes_through_more_often_than_the_level(a, b):
    generator = np.random.default_rng(2)
    found = [split_effect(*chain(generator, 30, a, b, 0.5))[1] for _ in range(STUDIES)]
    # 0.05 plus three standard errors of 0.028.
    assert np.mean([not each.low <= 0 <= each.high for each in found]) <= 0.134


@pytest.mark.usefixtures("few_draws")
@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [(0.7, 0.7), (1.0, 0.0)])
def test_coverage_and_level_hold_over_four_hundred_studies(a, b):
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        indirect = split_effect(*chain(generator, 30, a, b, 0.0))[1]
        covered += indirect.low <= a * b <= indirect.high
    # 0.95 minus two standard errors of 0.011.
    assert covered / 400 >= 0.928


def test_a_share_of_nothing_is_not_given():
    share = split_effect(*chain(np.random.default_rng(4), 40, 1.0, -1.0, 1.0))[3]
    assert math.isnan(share.value)
    assert "total effect's interval contains 0" in share.method


def test_robustness_is_the_correlation_of_what_the_treatment_leaves_over():
    treatment, mediator, outcome, none = chain(np.random.default_rng(5), 60, 1.0, 0.6, 0.3)
    rests = [each - np.polyval(np.polyfit(treatment, each, 1), treatment) for each in (mediator, outcome)]
    robustness = split_effect(treatment, mediator, outcome, none)[4]
    assert robustness.value == pytest.approx(stats.pearsonr(*rests).statistic)
    assert robustness.low < robustness.value < robustness.high


@pytest.mark.usefixtures("few_draws")
def test_an_unmeasured_cause_of_robustness_makes_an_indirect_effect_of_nothing():
    generator = np.random.default_rng(6)
    treatment, cause = generator.normal(size=(2, 4000))
    mediator, outcome = (treatment + cause + generator.normal(size=4000) for _ in range(2))
    _, indirect, _, _, robustness = split_effect(treatment, mediator, outcome, np.empty((4000, 0)))
    # The mediator has no effect. The indirect effect found is that of the unmeasured cause, which gives the residuals a
    # correlation of one half.
    assert indirect.low > 0.4
    assert robustness.value == pytest.approx(0.5, abs=0.03)


def test_the_effect_of_a_width_is_per_doubling():
    study = searched(np.random.default_rng(7), 400, width_on_gap=-1.0, gap_on_accuracy=-0.5, width_on_accuracy=0.2)
    found = gap_mediation(study, "adapter_width", "centred")
    assert found.unit == "a doubling of adapter_width"
    assert found.held == ("adapter_learning_rate",)
    for estimate, truth in ((found.direct, 0.2), (found.indirect, 0.5), (found.total, 0.7), (found.share, 5 / 7)):
        assert estimate.low <= truth <= estimate.high
        assert estimate.n == 400


def many_searched(generator: np.random.Generator, studies: int, configs: int, **effects: float) -> list[StudyRecords]:
    """Return `studies` studies, generated as one large study and then split, which is faster than one by one."""
    one = searched(generator, studies * configs, **effects)
    starts = range(0, studies * configs, configs)
    return [StudyRecords(one.trials.slice(at, configs), one.epochs.slice(2 * at, 2 * configs)) for at in starts]


@pytest.mark.usefixtures("few_draws")
@pytest.mark.slow
@pytest.mark.parametrize(("configs", "linear"), [(24, 0.3), (40, 0.7)])
def test_a_held_rate_that_was_searched_in_logs_is_held_in_logs(configs, linear):
    # The rate affects gap and accuracy, and the width affects the gap. The indirect effect is 0 or -0.5 per nat.
    generator, studies, moved = np.random.default_rng(11), 150, {"width_on_gap": -0.5, "rate_on_both": 1.5}
    nothing = many_searched(generator, studies, configs, **moved)
    planted = many_searched(generator, studies, configs, **moved, gap_on_accuracy=0.5)
    wrong = [replace(study, log_fields=frozenset({"adapter_width"})) for study in nothing[:60]]
    correct, covered, correct_linearly = (
        np.mean([part.low <= truth <= part.high for part in indirect_effects(records)])
        for records, truth in ((nothing, 0.0), (planted, -0.25), (wrong, 0.0))
    )
    # 0.95 minus three standard errors of 0.0178.
    assert correct >= 0.897
    assert covered >= 0.897
    assert 1 - correct_linearly > linear


def indirect_effects(studies: list[StudyRecords]) -> list[Estimate]:
    return [gap_mediation(study, "adapter_width", "centred").indirect for study in studies]


def test_a_treatment_is_not_held_beside_itself_and_its_name_is_checked():
    study = searched(np.random.default_rng(8), 30)
    assert gap_mediation(study, "adapter_learning_rate", "paper").held == ()
    for wrong in ("adapter_widht", "adapter_kind"):
        with pytest.raises(ValueError, match=f"'{wrong}' is no numeric field"):
            gap_mediation(study, wrong, "paper")


def test_a_result_says_what_it_assumes_and_what_it_is_of():
    study = searched(np.random.default_rng(9), 30)
    paper, centred = (gap_mediation(study, "adapter_width", gap) for gap in ("paper", "centred"))
    said = " ".join(paper.assumptions)
    for part in ("nothing unmeasured moves both gap and accuracy", "linear", "before the accuracy", "gap_target"):
        assert part in said.lower()
    assert "A sampler chose adapter_width by the accuracy of earlier configs" in said
    assert len(paper.assumptions) == len(centred.assumptions) + 1  # a constant cannot move the centred gap
    assert paper.evidence == "exploratory"
    assert paper.note == "30 trials at epoch 2, their last"


def test_too_few_configs_are_split_into_nothing():
    found = gap_mediation(repeated(np.random.default_rng(10), 4, 5), "adapter_width", "paper", searched=False)
    assert found.evidence == "confirmatory"
    for part in (found.direct, found.indirect, found.total, found.share, found.robustness):
        assert math.isnan(part.value)
        assert "4 configs are too few" in part.method


def test_the_shipped_example_has_a_mediation_of_its_16_configs():
    found = gap_mediation(open_study(EXAMPLE), "adapter_width", "paper")
    assert found.total.n == 16
    assert found.total.value == pytest.approx(found.direct.value + found.indirect.value)
