import pytest
from pydantic import ValidationError

from trainables.spec.trial import TrialConfig


def on_text(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate({"dataset": "glue:sst2"} | changes)


def test_a_trial_on_text_begins_as_fine_tuning_does() -> None:
    config = on_text()
    assert (config.optimiser, config.student_schedule, config.clip_norm) == ("adamw", "linear", 1.0)
    assert (config.adapter_kind, config.adapter_width, config.adapter_learning_rate) == ("parallel", 64, 1e-5)
    assert config.augmentation == "none"
    assert config.student_learning_rate == 5e-4  # trained from scratch
    assert on_text(student="bert:2").student_learning_rate == 5e-5
    assert on_text(student="bert-base-uncased", teacher="bert-base-uncased").student_learning_rate == 5e-5
    assert on_text(student_learning_rate=0.5).student_learning_rate == 0.5
    assert TrialConfig(**config.model_dump()) == config


def test_a_trial_on_images_is_what_it_was() -> None:
    assert (TrialConfig().optimiser, TrialConfig().clip_norm, TrialConfig().rate_warmup) == ("sgd", 0.0, 0.0)
    assert "optimiser" not in TrialConfig().changed_fields
    assert TrialConfig(dataset="glue:sst2").changed_fields["optimiser"] == "adamw"


@pytest.mark.parametrize("method", ["fitnet", "at", "sp", "vid", "sftn"])
def test_a_method_that_matches_maps_of_images_is_refused_on_text(method: str) -> None:
    with pytest.raises(ValidationError, match=rf"method '{method}' matches maps .* 'glue:sst2' is of text.*pkd"):
        on_text(method=method)


@pytest.mark.parametrize("method", ["pkd", "pea_kd"])
def test_a_method_of_language_models_is_refused_on_images(method: str) -> None:
    with pytest.raises(ValidationError, match=rf"method '{method}' matches layers of language models.*of images"):
        TrialConfig(method=method)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"student": "cnn_3_4"}, "model 'cnn_3_4': for text name bert_L_H"),
        ({"student": "bert_2_33"}, "multiples of 32"),
        ({"teacher": "bert:6"}, "model 'bert:6': for text"),
        ({"augmentation": "views"}, "text has one view"),
        ({"teacher": "bert_4_128", "student": "bert:3"}, "no 3 that are evenly spaced"),
        ({"teacher": "bert_4_128", "student": "bert:5", "student_layers": "last"}, "more than its teacher's 4"),
        ({"method": "pkd", "teacher": "bert_4_128", "student": "bert_2_64"}, "states of equal width.*64.*128"),
        ({"method": "pkd", "teacher": "bert_4_128", "student": "bert_1_128"}, "layers below the last"),
        ({"method": "pkd", "teacher": "bert_4_128", "student": "bert_3_128"}, "no 3 that are evenly spaced"),
    ],
)
def test_what_does_not_go_together_on_text_is_refused_before_any_work(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        on_text(**values)


def test_a_text_model_is_refused_on_images() -> None:
    with pytest.raises(ValidationError, match="'bert_2_64' reads text, and the dataset is of images"):
        TrialConfig(student="bert_2_64")


def test_a_student_of_the_teachers_layers_needs_it_whatever_the_method() -> None:
    assert on_text(method="ce", student="bert:2").begins_as_teacher
    assert not on_text(method="ce").begins_as_teacher
