"""The trial that the training of a teacher is, and its recipe."""

from trainables.spec.modality import is_text
from trainables.spec.precision import Precision
from trainables.spec.recipes import TeacherRecipe, find_recipe
from trainables.spec.text_defaults import TEACHER_TRAINING
from trainables.spec.trial import TrialConfig


def training_config(
    recipe: TeacherRecipe, *, dataset: str, model: str, seed: int, split_seed: int, precision: Precision = "fp32"
) -> TrialConfig:
    """The trial that a teacher's training is: a network trained by cross-entropy alone.

    Raises:
        ValueError: for a value out of its bounds.
    """
    return TrialConfig.model_validate(
        {
            "method": "ce",
            "dataset": dataset,
            "student": model,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "precision": precision,
            "student_learning_rate": recipe.learning_rate,
            "student_momentum": recipe.momentum,
            "student_weight_decay": recipe.weight_decay,
            "student_schedule": recipe.schedule,
            "augmentation": recipe.augmentation,
            "split_seed": split_seed,
            "seed": seed,
            "data_seed": seed,
            **(TEACHER_TRAINING if is_text(dataset) else {}),
        }
    )


def teacher_recipe(config: TrialConfig) -> TeacherRecipe:
    """How the teacher of `config` is trained."""
    return find_recipe(
        config.teacher_recipe, dataset=config.dataset, model=config.teacher, epochs=config.teacher_epochs
    )


def teacher_trial(config: TrialConfig) -> TrialConfig:
    """The trial that the teacher of `config` is itself: a network trained by cross-entropy alone.

    Where the method trains a teacher of its own, the trial also names the student that it is for, as its `teacher`, and
    has the fields that the training depends on.
    """
    trial = training_config(
        teacher_recipe(config),
        dataset=config.dataset,
        model=config.teacher,
        seed=config.teacher_seed,
        split_seed=config.split_seed,
    )
    own = {name: getattr(config, name) for name in sorted(config.method_spec.teacher_fields)}
    return TrialConfig.model_validate({**trial.model_dump(), **own, "teacher": config.student}) if own else trial
