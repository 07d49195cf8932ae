from dataclasses import replace

import pytest

from trainables.spec.datasets import DATASETS
from trainables.spec.modality import is_text
from trainables.spec.recipes import RECIPES, default_epochs, find_recipe
from trainables.spec.teacher_trial import teacher_trial
from trainables.spec.trial import TrialConfig
from trainables.steps.sgd import schedule_factor
from trainables.teacher.request import RequestError, resolve_request


@pytest.mark.parametrize(
    ("model", "rate"),
    [("resnet56", 0.05), ("wrn_40_2", 0.05), ("MobileNetV2", 0.01), ("ShuffleV1", 0.01), ("ShuffleV2", 0.01)],
)
def test_the_literatures_recipe_is_that_of_the_literature(model, rate):
    recipe = find_recipe("literature", dataset="cifar100", model=model)
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (rate, 0.9, 5e-4)
    assert (recipe.batch_size, recipe.epochs, recipe.schedule) == (64, 240, "step")
    rates = [rate * schedule_factor(recipe.schedule, epoch, recipe.epochs) for epoch in (149, 150, 180, 210, 239)]
    assert rates == pytest.approx([rate, rate * 0.1, rate * 0.01, rate * 1e-3, rate * 1e-3])


@pytest.mark.parametrize(
    ("epochs", "after"), [(240, (150, 180, 210)), (24, (15, 18, 21)), (30, (19, 23, 27)), (1, (1, 1, 1))]
)
def test_milestones_are_in_proportion_and_are_where_the_rate_falls(epochs, after):
    assert find_recipe("literature", dataset="cifar100", model="resnet20", epochs=epochs).milestones == after
    falls = [
        epoch
        for epoch in range(1, epochs)
        for _ in range(
            round(10 * schedule_factor("step", epoch - 1, epochs) / schedule_factor("step", epoch, epochs)) // 100
        )
    ]
    assert falls == [milestone for milestone in after if milestone < epochs]


@pytest.mark.parametrize("dataset", [*(name for name in DATASETS if not is_text(name)), "image_folder:/somewhere"])
def test_the_short_recipe_is_a_cosine_of_few_epochs_for_every_dataset(dataset):
    recipe = find_recipe("short", dataset=dataset, model="resnet20")
    assert recipe.schedule == "cosine"
    assert recipe.milestones == ()
    assert 10 <= recipe.epochs <= 40


def test_epochs_may_be_given():
    assert find_recipe("literature", dataset="digits", model="cnn_3_4", epochs=12).epochs == 12


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'literature'"):
        default_epochs("litterature", "digits")
    assert RECIPES == ("short", "literature", "one_cycle")


@pytest.mark.parametrize(("dataset", "model"), [("cifar100", "resnet56"), ("glue:sst2", "bert_4_128")])
def test_the_one_cycle_recipe_differs_from_the_short_one_in_the_schedule_alone(dataset, model):
    short, found = (find_recipe(name, dataset=dataset, model=model) for name in ("short", "one_cycle"))
    assert replace(found, name="short", schedule=short.schedule) == short
    assert found.schedule == "one_cycle"
    assert found.milestones == ()
    config = TrialConfig(dataset=dataset, teacher=model, student=model, teacher_recipe="one_cycle", teacher_epochs=7)
    trial = teacher_trial(config)
    assert (trial.student_schedule, trial.epochs) == ("one_cycle", 7)


def test_a_one_cycle_teacher_of_one_epoch_is_refused_before_any_work():
    with pytest.raises(ValueError, match="teacher_recipe 'one_cycle' ends at 1/250,000 of the learning rate"):
        TrialConfig(teacher_recipe="one_cycle", teacher_epochs=1)
    arguments = {"dataset": "digits", "model": "cnn_3_4", "recipe": "short", "seed": 0, "split_seed": 0}
    where = {"precision": "fp32", "device": "cpu", "threads": 1}
    for overrides in ({"schedule": "one_cycle", "epochs": 1}, {"schedule": "one_cycle", "epochs": 2}):
        if overrides["epochs"] == 2:
            assert "SGD at 0.05 (one_cycle)" in resolve_request(**arguments, **where, overrides=overrides).description
        else:
            with pytest.raises(RequestError, match="give 2 epochs or more, or another schedule"):
                resolve_request(**arguments, **where, overrides=overrides)
