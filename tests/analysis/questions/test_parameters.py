"""Effect of one parameter in a search: planted effects are found, absent ones are not, and rates are held constant."""

import math

import numpy as np
import pytest

from analysis.questions.parameters import (
    corrected,
    in_common,
    parameter_associations,
    scientific_fields,
    searched_among,
    searched_range,
)
from analysis.reading.trials import EXAMPLES, open_study
from analysis.statistics.estimates import Estimate
from tests.analysis.planted import measured, records, searched
from tests.analysis.synthetic import trial

STUDIES = 80
# 0.05 plus three standard errors of 0.024.
REJECTED = 0.05 + 3 * 0.024


def of_width(generator, outcome="accuracy", **effects):
    (found,) = parameter_associations(searched(generator, 20, **effects), ["adapter_width"], outcomes=[outcome])
    return found


@pytest.mark.study
@pytest.mark.usefixtures("few_draws")
def test_an_absent_effect_of_a_parameter_is_found_no_more_often_than_the_level():
    generator = np.random.default_rng(1)
    found = [of_width(generator).estimate for _ in range(STUDIES)]
    assert np.mean([each.p_value <= 0.05 for each in found]) <= REJECTED
    assert np.mean([not each.low <= 0 <= each.high for each in found]) <= REJECTED


@pytest.mark.study
@pytest.mark.usefixtures("few_draws")
def test_a_planted_effect_is_found_on_the_outcome_that_it_is_on_and_with_its_sign():
    generator = np.random.default_rng(2)
    on_gap = [of_width(generator, "centred", width_on_gap=-1.0).estimate for _ in range(20)]
    on_accuracy = [of_width(generator, width_on_gap=-1.0).estimate for _ in range(20)]
    assert sum(each.high < 0 for each in on_gap) >= 18
    assert sum(each.low <= 0 <= each.high for each in on_accuracy) >= 16


def test_the_rates_are_held_and_the_parameter_itself_is_not():
    given = searched(np.random.default_rng(3), 20, rate_on_both=1.0)
    (width,) = parameter_associations(given, ["adapter_width"], outcomes=["accuracy"])
    (rate,) = parameter_associations(given, ["adapter_learning_rate"], outcomes=["accuracy"])
    assert (width.held, rate.held) == (("adapter_learning_rate",), ())
    assert (width.evidence, width.estimate.n, width.note) == ("exploratory", 20, "20 trials at epoch 2, their last")
    assert rate.estimate.low > 0


def test_trials_that_were_stopped_early_are_in_it_as_they_were():
    rows = searched(np.random.default_rng(4), 20, width_on_accuracy=2.0).trials.to_pylist()
    for row in rows[:10]:
        row |= {"status": "pruned", "epochs": 1}
    (found,) = parameter_associations(records(rows), ["adapter_width"], outcomes=["accuracy"])
    assert found.estimate.n == 20
    assert "10 were stopped early" in found.note


def test_a_parameter_by_name_has_no_rank_and_is_refused():
    given = records([trial(k, epochs=1, **measured(0.0, 0.5)) for k in range(4)])
    with pytest.raises(ValueError, match="'adapter_kind' is no numeric field"):
        parameter_associations(given, ["adapter_kind"])
    with pytest.raises(ValueError, match="'breadth' is no numeric field"):
        parameter_associations(given, ["breadth"])


def test_a_study_that_varied_none_of_the_parameters_is_refused_with_what_it_varied():
    trials = open_study(EXAMPLES / "fashion-temperature").trials
    assert searched_among(trials, ["ce_weight", "temperature"]) == ("temperature",)
    with pytest.raises(ValueError, match=r"did not vary adapter_width; it varied temperature, adapter_learning_rate"):
        searched_among(trials, ["adapter_width"])
    with pytest.raises(ValueError, match=r"varied none of ce_weight, kd_weight; .* --space varies ce_weight"):
        searched_among(trials, ["ce_weight", "kd_weight"])


def test_scientific_fields_are_the_numbers_that_are_no_rates():
    joint = open_study(EXAMPLES / "fashion-joint").trials
    assert scientific_fields(joint) == ("temperature", "ce_weight", "kd_weight", "adapter_ce_weight", "adapter_width")


def test_the_range_is_that_of_the_search_alone():
    rows = [trial(0, adapter_width=4), trial(1, adapter_width=64), trial(2, adapter_width=512, stage="replicate")]
    assert searched_range(records(rows, []).trials, "adapter_width") == (4.0, 64.0)
    assert all(map(math.isnan, searched_range(records(rows[2:], []).trials, "adapter_width")))


def test_what_two_searches_tried_alike_is_told():
    tables = [records([trial(k, temperature=t) for k, t in enumerate(values)], []).trials
              for values in ((1.0, 2.0, 3.0), (2.0, 3.0, 4.0))]  # fmt: skip
    assert in_common(tables, "temperature") == [2.0, 3.0]
    assert in_common([], "temperature") == []


def test_p_values_are_corrected_and_none_stays_none():
    estimates = [Estimate(1.0, 0.0, 2.0, 5, "", p_value) for p_value in (0.01, 0.04, None)]
    found = corrected(estimates)
    assert found[:2] == pytest.approx([0.02, 0.04])
    assert math.isnan(found[2])
