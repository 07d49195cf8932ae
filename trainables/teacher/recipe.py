"""How teachers are trained: named sets of hyperparameters, of which each may be given otherwise.

It imports no torch, so that a plan is checked in no time.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from trainables.naming import unknown_name

RecipeName = Literal["short", "literature"]
# How a trial's teacher came about.
TeacherOrigin = Literal["short", "literature", "checkpoint"]

RECIPES: Final[tuple[str, ...]] = get_args(RecipeName)

# CRD, PESF-KD and most of the CIFAR-100 distillation literature train these at a fifth of the others' rate.
_SLOWER: Final = frozenset({"MobileNetV2", "ShuffleV1", "ShuffleV2"})
_LEARNING_RATE: Final = 0.05
_SLOWER_LEARNING_RATE: Final = 0.01
_LITERATURE_EPOCHS: Final = 240
# By dataset, as long as its teachers gain much by it; what is before a colon names the dataset.
_SHORT_EPOCHS: Final[dict[str, int]] = {
    "digits": 30,
    "mnist": 10,
    "fashion_mnist": 15,
    "cifar10": 30,
    "cifar100": 40,
    "tiny_imagenet": 30,
    "image_folder": 20,
}
_OTHER_SHORT_EPOCHS: Final = 30


@dataclass(frozen=True)
class TeacherRecipe:
    """Every hyperparameter that matters to a teacher's training, so that no default of a trial changes a teacher.

    Args:
        name: of the set that it began as.
        epochs: passes over the train split.
        batch_size: samples per step.
        learning_rate: of the first epoch; SGD, Nesterov off.
        momentum: of SGD.
        weight_decay: on all parameters.
        schedule: cosine, step or constant (see `trainables.optimisation`); step divides the rate by ten at 62.5, 75 and
            87.5% of the epochs, which are 150, 180 and 210 of 240.
        augmentation: the dataset's views, or none.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str
    augmentation: str


def default_epochs(recipe: str, dataset: str) -> int:
    """How many epochs a recipe takes where nothing else is asked for.

    Raises:
        ValueError: for an unknown recipe.
    """
    if recipe not in RECIPES:
        raise ValueError(unknown_name("teacher recipe", recipe, RECIPES))
    if recipe == "literature":
        return _LITERATURE_EPOCHS
    return _SHORT_EPOCHS.get(dataset.partition(":")[0], _OTHER_SHORT_EPOCHS)


def find_recipe(name: str, *, dataset: str, model: str, epochs: int | None = None) -> TeacherRecipe:
    """The recipe of that name for a dataset and an architecture.

    Args:
        name: literature or short.
        dataset: canonical name.
        model: architecture.
        epochs: instead of the recipe's own.

    Raises:
        ValueError: for an unknown recipe.
    """
    return TeacherRecipe(
        name=name,
        epochs=epochs or default_epochs(name, dataset),
        batch_size=64,
        learning_rate=_SLOWER_LEARNING_RATE if model in _SLOWER else _LEARNING_RATE,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="step" if name == "literature" else "cosine",
        augmentation="views",
    )
