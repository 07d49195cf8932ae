"""Config for training a teacher, and the training recipe."""

from trainables.spec.modality import is_text
from trainables.spec.precision import Precision
from trainables.spec.recipes import TeacherRecipe, find_recipe
from trainables.spec.text_defaults import TEACHER_TRAINING
from trainables.spec.trial import TrialConfig


def training_config(
    recipe: TeacherRecipe,
    *,
    dataset: str,
    model: str,
    seed: int,
    split_seed: int,
    split_number: int = 0,
    precision: Precision = "fp32",
) -> TrialConfig:
    """Return the config for training a teacher with cross-entropy alone.

    Raises:
        ValueError: a value is out of bounds.
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
            "split_number": split_number,
            "seed": seed,
            "data_seed": seed,
            **(TEACHER_TRAINING if is_text(dataset) else {}),
        }
    )


def teacher_recipe(config: TrialConfig) -> TeacherRecipe:
    """Return the training recipe for the teacher in `config`."""
    return find_recipe(
        config.teacher_recipe, dataset=config.dataset, model=config.teacher, epochs=config.teacher_epochs
    )


def teacher_trial(config: TrialConfig) -> TrialConfig:
    """Return the config for training the teacher of `config` with cross-entropy alone.

    Some methods train a special teacher for a given student. The returned config then names the student in the field
    `teacher`, and copies the fields in `MethodSpec.teacher_fields`.
    """
    trial = training_config(
        teacher_recipe(config),
        dataset=config.dataset,
        model=config.teacher,
        seed=config.seed_of_teacher,
        split_seed=config.split_seed,
        split_number=config.split_number,
    )
    own = {name: getattr(config, name) for name in sorted(config.method_spec.teacher_fields)}
    return TrialConfig.model_validate({**trial.model_dump(), **own, "teacher": config.student}) if own else trial
