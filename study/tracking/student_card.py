"""Model card for a confirmed student: one Markdown page, stored next to the weights and with the version in MLflow.

The card describes the student, the training data, the accuracy with intervals, how to load the student, and known
limits.
"""

import shlex
from pathlib import Path
from typing import Final

from analysis.questions.confirmation import ConfirmationResult, ConfirmedConfig
from analysis.statistics.estimates import Estimate
from study.ledger.entry import TrialEntry
from study.ledger.study_data import StudyData
from study.plan.plan import StudyPlan
from trainables.data.class_names import in_words
from trainables.display.numbers import NETWORK_PLACES, format_difference, format_interval, format_number, format_p
from trainables.spec.modality import is_text, samples_of
from trainables.spec.own_data import short_name
from trainables.spec.trial import TrialConfig
from trainables.teacher.card import Proportion

_NAMED_CLASSES: Final = 20
# Meaning of the pixel values, for datasets with values other than plain brightness.
_SCALED: Final = {"digits": " (scikit-learn's 0 to 16, times 15)"}


def card_path(student: Path) -> Path:
    """Return the path to the model card for a student file."""
    return student.with_suffix(".md")


def card_of(
    plan: StudyPlan,
    entry: TrialEntry,
    first: ConfirmedConfig,
    result: ConfirmationResult,
    *,
    data: StudyData,
    registered_as: str,
) -> str:
    """Return the model card in Markdown.

    Args:
        plan: the study.
        entry: the student's trial.
        first: the confirmation's first choice, to which `entry` belongs.
        result: result of the confirmation.
        data: dataset of the study.
        registered_as: the student's name in MLflow.
    """
    base, config = plan.base, entry.config
    alike = "length and kind" if is_text(base.dataset) else "size"
    lines = [
        f"# {config.student} on {short_name(base.dataset)}, distilled from {base.teacher} by {config.method}",
        "",
        *_accuracies(plan, entry, first, result, data),
        "",
        *_use(plan, entry, data, registered_as),
        "",
        "## Training",
        "",
        *_training(plan, entry, data),
        "",
        "## Limits",
        "",
        f"The student was trained and tested only on {samples_of(base.dataset)} like those of "
        f"{short_name(base.dataset)}, with the same {alike} and classes. For other inputs it gives predictions without "
        "a warning. Only "
        f"{_tested_for(result.objective)} was tested, not fairness between groups, robustness or calibration under a "
        "change of data. Intervals over seeds describe repeated training on these data, not on other data.",
    ]
    return "\n".join(lines) + "\n"


def _accuracies(
    plan: StudyPlan, entry: TrialEntry, first: ConfirmedConfig, result: ConfirmationResult, data: StudyData
) -> list[str]:
    _, validation, test = data.split_sizes
    samples, over = samples_of(plan.base.dataset), first.beyond_seeds
    compared = [
        f"| {each.against_label} | {format_difference(each.difference)} | {each.difference.n} | "
        f"{format_p(each.corrected_p)} |"
        for each in result.of_first()
    ]
    return [
        "| accuracy of | split | mean or share | 95% interval | n |",
        "| --- | --- | ---: | --- | --- |",
        _over_seeds("test", first.test_accuracy, result.objective),
        *([] if over is None else [_over_seeds("test", over.mean, result.objective, over=over.over, unit=over.unit)]),
        _over_seeds("validation", first.accuracy, result.objective),
        _of_these_weights("test", entry.last.get("test/accuracy"), test, samples),
        _of_these_weights("validation", entry.last.get("val/accuracy"), validation, samples),
        "",
        f"Over seeds: {first.test_accuracy.method}. These weights are from the first of those seeds, regardless of the "
        f"accuracies, at the last epoch. Their intervals are Wilson intervals over the {samples} of the split. The "
        f"config was chosen on the validation split{_shorter(plan, entry)}, before the test split was evaluated.",
        "",
        f"| test {result.objective} minus that of | difference | n | p (Holm) |",
        "| --- | --- | --- | --- |",
        *compared,
    ]


def _shorter(plan: StudyPlan, entry: TrialEntry) -> str:
    """Return a clause about the training behind the config's choice, if the number of epochs differs."""
    same = entry.config.epochs == plan.base.epochs
    return "" if same else f", after {plan.base.epochs} epochs of training instead of {entry.config.epochs}"


def _over_seeds(split: str, accuracy: Estimate, objective: str, *, over: str = "seeds", unit: str = "seed") -> str:
    name = f"the config, over {over}" + ("" if objective == "accuracy" else f": {objective}")
    mean, interval = format_number(accuracy.value), format_interval(accuracy)
    return f"| {name} | {split} | {mean} | {interval} | {accuracy.n} {unit}s |"


def _of_these_weights(split: str, accuracy: float | None, size: int, samples: str) -> str:
    if accuracy is None:
        return f"| these weights | {split} | not measured | | |"
    share = Proportion.of(round(accuracy * size), size)
    value, interval = format_number(accuracy, NETWORK_PLACES), format_interval(share, NETWORK_PLACES)
    return f"| these weights | {split} | {value} | {interval} | {size:,} {samples} |"


def _tested_for(objective: str) -> str:
    return "accuracy" if objective == "accuracy" else f"{objective} and accuracy"


def _use(plan: StudyPlan, entry: TrialEntry, data: StudyData, registered_as: str) -> list[str]:
    size = data.image_size
    if is_text(entry.config.dataset):
        return [
            "## Use",
            "",
            "Takes sentences as int32 (batch, 2, tokens): token ids, padded with 0 at the end, and segment ids; "
            "returns logits (batch, classes). The tokeniser is in the file's metadata (`tokeniser`, the content of a "
            "tokenizer.json).",
            *_classes(data.class_names),
            "",
            "```python",
            f'mlflow.pyfunc.load_model("models:/{registered_as}@ALIAS").predict(tokens)  # needs pesfkd[text]',
            f'student = trainables.students.file.load_student(Path("{entry.trial_id}.safetensors"))',
            'tokenizers.Tokenizer.from_str(student.about["tokeniser"])',
            "```",
        ]
    return [
        "## Use",
        "",
        f"Takes uint8 images (batch, {data.channels}, {size}, {size}), pixels 0 to {data.largest_pixel}"
        f"{_SCALED.get(plan.base.dataset, '')}, not normalised; returns logits (batch, classes).",
        *_classes(data.class_names),
        "",
        "```python",
        f'mlflow.pyfunc.load_model("models:/{registered_as}@ALIAS").predict(images)  # needs pesfkd to be installed',
        f'trainables.students.file.load_student(Path("{entry.trial_id}.safetensors")).logits(torch.from_numpy(images))',
        "```",
        "",
        f"Without pesfkd: `{_command(plan, 'study.export', plan.name, '--format', 'onnx')}` (or `torch-export`).",
    ]


def _classes(names: tuple[str, ...]) -> list[str]:
    """List the class names, shortened if there are many."""
    if not names:
        return []
    rest = "" if len(names) <= _NAMED_CLASSES else "; all of them are in the file's metadata (`class_names`)"
    return ["", f"Classes, in the order of the logits: {in_words(names, most=_NAMED_CLASSES)}{rest}."]


def _training(plan: StudyPlan, entry: TrialEntry, data: StudyData) -> list[str]:
    base, config = plan.base, entry.config
    samples = ", ".join(f"{count:,}" for count in data.split_sizes)
    return [
        f"- data: `{short_name(base.dataset)}` ({data.source}), {data.num_classes} classes; {samples} "
        f"{samples_of(base.dataset)} to train, validate and test, split seed {config.split_seed}"
        + (f", split {config.split_number + 1} into train and validation" if config.split_number else ""),
        f"- teacher: {_teacher(plan, entry)}",
        f"- {config.epochs} epochs, batches of {config.batch_size}, seed {config.seed}, data seed {config.data_seed}; "
        f"{_settings(config)}",
        f"- study `{plan.name}`, trial `{entry.trial_id}`; run this trial again: "
        f"`{_command(plan, 'study.rerun', entry.trial_id)}`",
    ]


def _command(plan: StudyPlan, *words: str) -> str:
    """Return the shell command, with --output-dir if the study is not in the default folder."""
    elsewhere = plan.output_dir != type(plan).model_fields["output_dir"].default
    return shlex.join(["python", "-m", *words, *(["--output-dir", str(plan.output_dir)] if elsewhere else [])])


def _teacher(plan: StudyPlan, entry: TrialEntry) -> str:
    config = entry.config
    if not config.method_spec.needs_teacher:
        return f"none: {config.method} needs no pretrained teacher"
    if plan.base.teacher_digest:
        origin = f"given as a checkpoint, digest `{plan.base.teacher_digest}`{_classes_of_teacher(plan)}"
        origin += plan.teacher_weights.in_passing if plan.teacher_weights is not None else ""
    else:
        origin = f"trained for {config.teacher_epochs} epochs by recipe `{config.teacher_recipe}`, seed "
        origin += str(config.seed_of_teacher)
    accuracy = entry.last.get("val/accuracy_teacher")
    known = "" if accuracy is None else f"; accuracy {format_number(accuracy, NETWORK_PLACES)} on the validation split"
    return f"`{config.teacher}`, {origin}{known}"


def _classes_of_teacher(plan: StudyPlan) -> str:
    """Describe the mapping from a Hugging Face teacher's labels to the task's classes.

    The description is read from the stored teacher copy. Empty for other teachers.
    """
    from trainables.storage.atomic import StoredFileError
    from trainables.storage.tensors import read_tensors
    from trainables.teacher.files import CLASSES, stored_path

    try:
        _, metadata = read_tensors(stored_path(plan.teachers_folder, plan.base.teacher_digest))
    except StoredFileError:
        return ""
    return f", {metadata[CLASSES]}" if CLASSES in metadata else ""


def _settings(config: TrialConfig) -> str:
    read = sorted(config.method_spec.fields | {name for name in type(config).model_fields if name[:8] == "student_"})
    return ", ".join(f"{name} {getattr(config, name)}" for name in read)
