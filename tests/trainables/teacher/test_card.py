import pytest
from statsmodels.stats.proportion import proportion_confint

from trainables.teacher.card import Proportion, accuracies, model_card

METADATA = {
    "architecture": "resnet20", "dataset": "cifar100", "num_classes": 100, "in_channels": 3, "image_size": 32,
    "mean": [0.5071, 0.4865, 0.4409], "std": [0.2673, 0.2564, 0.2762], "data_digest": "abc", "weights": "def",
    "recipe": {
        "name": "literature", "epochs": 240, "batch_size": 64, "learning_rate": 0.05, "momentum": 0.9,
        "weight_decay": 5e-4, "schedule": "step", "augmentation": "views",
    },
    "milestones": [150, 180, 210], "precision": "fp32", "device": "cpu", "threads": 1, "pretrained": False,
    "seed": 3, "split_seed": 0,
    "parameters": 278_324, "train_samples": 45_000, "validation_correct": [3450, 5000], "test_correct": [6906, 10_000],
    "versions": {"torch": "2.6.0"}, "command": "python -m trainables.teacher --dataset cifar100",
}  # fmt: skip


@pytest.mark.parametrize(("correct", "samples"), [(0, 10), (10, 10), (1, 1), (335, 360), (6906, 10_000)])
def test_an_interval_is_wilsons(correct, samples):
    share = Proportion.of(correct, samples)
    expected = proportion_confint(correct, samples, alpha=0.05, method="wilson")
    assert (share.low, share.high) == pytest.approx(expected, abs=1e-12)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_bounds_of_none_and_of_all_are_those_by_hand():
    # With z² = 3.841459, the bounds for 0 of n are 0 and z² / (n + z²).
    none, every = Proportion.of(0, 10), Proportion.of(10, 10)
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(3.841459 / 13.841459, abs=1e-7)
    assert every.low == pytest.approx(10 / 13.841459, abs=1e-7)


def test_a_card_tells_accuracies_with_intervals_and_how_to_do_it_again():
    card = model_card(METADATA, file_name="teacher.safetensors")
    assert "| validation | 0.6900 | [0.6770, 0.7027] | 5,000 |" in card
    assert "| test | 0.6906 | [0.6815, 0.6996] | 10,000 |" in card
    for part in (
        "278,324 parameters", "0.05 (step, divided by ten after epochs 150, 180, 210)", "seed 3", "torch 2.6.0",
        METADATA["command"], "minus 0.5071, 0.4865, 0.4409", "--teacher-checkpoint teacher.safetensors",
    ):  # fmt: skip
        assert part in card
    assert accuracies(METADATA)["test"].value == 0.6906


def test_a_card_of_a_teacher_on_text_speaks_of_sentences():
    sample = {"dataset": "glue:sst2", "tokeniser": "{}", "max_length": 128}
    assert "for the random choice of the sentences" in model_card(METADATA | sample, file_name="x.safetensors")
    assert "for the random choice of the images" in model_card(METADATA, file_name="x.safetensors")
