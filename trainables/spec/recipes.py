"""Recipes for training teachers: named sets of hyperparameters, each of which can be overridden.

Imports no torch, so plans are checked quickly.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from trainables.spec.architectures import is_pretrained_text_name
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.text_defaults import rate_of

RecipeName = Literal["short", "literature", "one_cycle"]
# Origin of a trial's teacher.
TeacherOrigin = Literal["short", "literature", "one_cycle", "checkpoint"]

RECIPES: Final[tuple[str, ...]] = get_args(RecipeName)

# Fractions of the epochs: 150, 180 and 210 of 240, as in CRD, PESF-KD and most CIFAR-100 distillation papers.
STEP_MILESTONES: Final = (0.625, 0.75, 0.875)
# The same papers train these architectures with a fifth of the usual learning rate.
_SLOWER: Final = frozenset({"MobileNetV2", "ShuffleV1", "ShuffleV2"})
_LEARNING_RATE: Final = 0.05
_SLOWER_LEARNING_RATE: Final = 0.01
_LITERATURE_EPOCHS: Final = 240
# Epochs by dataset (or by the name's part before a colon). More epochs gain little accuracy.
_SHORT_EPOCHS: Final[dict[str, int]] = {
    "digits": 30,
    "mnist": 10,
    "fashion_mnist": 15,
    "cifar10": 30,
    "cifar100": 40,
    "tiny_imagenet": 30,
    "image_folder": 20,
    "glue": 5,
}
# As in fine-tuning BERT (Devlin et al., 2019): 3 epochs, and the smallest learning rate in the paper.
_LITERATURE_TEXT_EPOCHS: Final = 3
_LITERATURE_TEXT_RATE: Final = 2e-5
_OTHER_SHORT_EPOCHS: Final = 30
# Recipes with a schedule independent of the data.
_SCHEDULES: Final = {"one_cycle": "one_cycle"}


@dataclass(frozen=True)
class TeacherRecipe:
    """Complete hyperparameters for training a teacher, independent of a trial's defaults.

    Args:
        name: original recipe name, before overrides.
        epochs: passes over the train split.
        batch_size: samples per step.
        learning_rate: initial learning rate, for SGD without Nesterov momentum, or AdamW on text; the largest learning
            rate in the schedule one_cycle.
        momentum: SGD's momentum, or AdamW's β₁.
        weight_decay: weight decay, applied to all parameters by SGD and to matrices only by AdamW.
        schedule: cosine, step, linear, one_cycle or constant (see `trainables.steps.sgd`). step divides the rate by
            ten at 62.5, 75 and 87.5% of the epochs, which are 150, 180 and 210 of 240.
        augmentation: views (the dataset's augmented views) or none.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str
    augmentation: str

    @property
    def milestones(self) -> tuple[int, ...]:
        """Finished epochs before each division of the rate by ten."""
        if self.schedule != "step":
            return ()
        return tuple(math.ceil(milestone * self.epochs) for milestone in STEP_MILESTONES)


def default_epochs(recipe: str, dataset: str) -> int:
    """Return the default number of epochs for a recipe.

    Raises:
        ValueError: the recipe is unknown.
    """
    if recipe not in RECIPES:
        raise ValueError(unknown_name("teacher recipe", recipe, RECIPES))
    if recipe == "literature":
        return _LITERATURE_TEXT_EPOCHS if is_text(dataset) else _LITERATURE_EPOCHS
    return _SHORT_EPOCHS.get(dataset.partition(":")[0], _OTHER_SHORT_EPOCHS)


def find_recipe(name: str, *, dataset: str, model: str, epochs: int | None = None) -> TeacherRecipe:
    """Return a recipe for a dataset and an architecture.

    Args:
        name: literature, short, or one_cycle, which is short with the schedule one_cycle.
        dataset: canonical name.
        model: architecture.
        epochs: number of epochs; None for the recipe's default.

    Raises:
        ValueError: the recipe is unknown.
    """
    if is_text(dataset):
        fine_tuned = name == "literature" and is_pretrained_text_name(model)
        return TeacherRecipe(
            name=name,
            epochs=epochs or default_epochs(name, dataset),
            batch_size=32,
            learning_rate=_LITERATURE_TEXT_RATE if fine_tuned else rate_of(model),
            momentum=0.9,
            weight_decay=0.01,
            schedule=_SCHEDULES.get(name, "linear"),
            augmentation="none",
        )
    return TeacherRecipe(
        name=name,
        epochs=epochs or default_epochs(name, dataset),
        batch_size=64,
        learning_rate=_SLOWER_LEARNING_RATE if model in _SLOWER else _LEARNING_RATE,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step" if name == "literature" else _SCHEDULES.get(name, "cosine"),
        augmentation="views",
    )
