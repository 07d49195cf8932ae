"""Parameters tuned in a comparison of methods, and rejected comparisons."""

import pytest

from search_spaces import COMPARISONS, OWN, SPACES, find_space, space_names
from search_spaces.comparison import MethodComparison, TunedParameter
from trainables.methods.registry import METHODS
from trainables.spec.methods import method_spec
from trainables.spec.trial import TrialConfig, config_fields

WEIGHT = TunedParameter(name="kd_weight", kind="float", low=0.01, high=100.0, per="ce_weight", why="asked")
WIDTH = TunedParameter(name="adapter_width", kind="int", low=2, high=64, why="asked")


def test_bounds_are_multiples_of_another_field_or_widened_to_hold_where_a_method_starts() -> None:
    around = WEIGHT.around(0.9, 0.1)
    assert (around.low, around.high, around.value, around.log, around.role) == (0.001, 10.0, 0.9, True, "nuisance")
    assert (WEIGHT.around(200.0, 1.0).low, WEIGHT.around(200.0, 1.0).high) == (0.01, 200.0)
    assert (WEIGHT.around(2.0, 0.0).low, WEIGHT.around(2.0, 0.0).high) == (0.01, 100.0)
    assert (WIDTH.around(16).low, WIDTH.around(16).high) == (2, 64)
    assert (WIDTH.around(100).low, WIDTH.around(100).high) == (2, 100)
    assert (WEIGHT.domain, WIDTH.domain) == ("[0.01, 100] x ce_weight, log", "[2, 64], log")


def test_a_field_named_twice_or_a_comparison_without_a_question_is_refused() -> None:
    with pytest.raises(ValueError, match="more than once: kd_weight, kd_weight"):
        MethodComparison(name="c", question="which?", tuned=(WEIGHT, WEIGHT))
    with pytest.raises(ValueError, match="needs a question"):
        MethodComparison(name="c", question="because")


def test_comparisons_are_found_beside_the_spaces_and_say_their_reasons() -> None:
    assert space_names() == (*SPACES, *COMPARISONS, OWN.name)
    assert len(set(space_names())) == len(space_names())
    for name, comparison in COMPARISONS.items():
        assert find_space(name) is comparison
        assert comparison.name == name
        assert comparison.default_point() == {}
        assert all(len(tuned.why) > 20 for tuned in comparison.tuned)
        assert set(comparison.varied) <= set(config_fields())


@pytest.mark.parametrize("method", METHODS)
def test_every_corner_of_what_is_tuned_of_a_method_is_a_valid_trial(method: str) -> None:
    entry = method_spec(method)
    read = (
        {"dataset": "glue:sst2", "teacher": "bert_4_128", "student": "bert_2_128"} if entry.modality == "text" else {}
    )
    published = TrialConfig(**{"method": method, **read, **entry.published}).model_dump()
    parameters = COMPARISONS["method_tuned"].parameters_for(published, entry.fields)
    assert "student_learning_rate" in {parameter.name for parameter in parameters}
    for corner in ("low", "high", "value"):
        TrialConfig(**{**published, **{each.name: getattr(each, corner) for each in parameters}})


def test_every_method_may_weigh_its_teacher_against_the_labels_alike() -> None:
    published_beyond = set()
    for method in METHODS:
        entry = method_spec(method)
        if entry.modality == "text" or "kd_weight" not in entry.fields:
            continue
        values = TrialConfig(**{"method": method, **entry.published}).model_dump()
        parameters = COMPARISONS["method_tuned"].parameters_for(values, entry.fields)
        (weight,) = (parameter for parameter in parameters if parameter.name == "kd_weight")
        unit = values["ce_weight"] or 1  # the ranking of pld contains the labels
        ratios = weight.low / unit, weight.high / unit
        if values["kd_weight"] / unit > 100:
            published_beyond.add(method)
            assert ratios == pytest.approx((0.01, values["kd_weight"] / unit))
        else:
            assert ratios == pytest.approx((0.01, 100))
    assert published_beyond == {"at", "sp", "pkt"}
