"""Choice of the teacher: trained by the study, or loaded from a checkpoint and copied.

A checkpoint is read and checked at planning time, before any work starts. From then on, the study identifies the
teacher by a digest of weights, architecture and normalisation. The teacher is copied to the folder with all teachers,
so resuming the study does not need the checkpoint.

Several checkpoints, separated by commas, give an ensemble: one teacher with the mean of the members' probabilities.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from study.plan.checkpoints import absolute_checkpoints, checkpoints_of
from study.plan.plan import StudyPlan
from trainables.data.registry import dataset_info
from trainables.display.numbers import counted, listed
from trainables.process.errors import StudyError, UsageError
from trainables.spec.architectures import MOST_TEACHERS, ensemble_members
from trainables.spec.datasets import DatasetInfo
from trainables.spec.methods import method_spec
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    from trainables.teacher.given import DataShape, GivenTeacher, Normalisation

_MOST_NAMED: Final = 6  # maximum number of further teachers' seeds listed one by one
_FOR_TRAINING: Final = ("teacher_recipe", "teacher_epochs")
_OF_CHECKPOINTS: Final = ("teacher_checkpoint", "teacher_normalisation", "teacher_weights")


def choose_teacher(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the plan values for a new study's teacher. Empty if the study trains the teacher.

    Args:
        values: values of all options.
        given: options given by the user.

    Raises:
        UsageError: options contradict each other, or the checkpoint contains no teacher for these data.
    """
    path: Path | None = values["teacher_checkpoint"]
    if path is None:
        for name in _OF_CHECKPOINTS:
            if values.get(name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} needs a teacher from --teacher-checkpoint")
        if is_text(values["dataset"]):
            _check_pretrained(values, given)
        return {}
    for name in _FOR_TRAINING:
        if name in given:
            raise UsageError(
                f"--{name.replace('_', '-')} is for training a teacher, but --teacher-checkpoint gives a trained one: "
                "leave out one of the two"
            )
    _check_ensemble_options(path, values)
    teacher = _read(
        path, values["dataset"], given.get("teacher"), values["teacher_normalisation"], values.get("teacher_weights")
    )
    if is_text(values["dataset"]):
        _check_given_text(teacher, path, values)
        _check_pretrained(values, given, names=("student",), tokeniser=teacher.tokeniser)
    return {
        "base": {
            "teacher": teacher.identity["architecture"],
            "teacher_recipe": "checkpoint",
            "teacher_epochs": 0,
            "teacher_digest": teacher.digest,
        },
        "teacher_checkpoint": absolute_checkpoints(path),
        "teacher_normalisation": tuple(teacher.normalisation),
        "teacher_weights": teacher.taken,
    }


def _check_ensemble_options(path: Path, values: dict[str, Any]) -> None:
    """Check that the options are compatible with several checkpoints.

    Raises:
        UsageError: an option is for a single checkpoint, or it is a text dataset.
    """
    paths = checkpoints_of(path)
    if len(paths) == 1:
        return
    if is_text(values["dataset"]):
        raise UsageError("--teacher-checkpoint: an ensemble of teachers is for images; give one folder for text")
    if Path() in paths:
        raise UsageError(f"--teacher-checkpoint {path}: a name between two commas is empty; give A,B,C")
    if len(paths) > MOST_TEACHERS:
        raise UsageError(
            f"--teacher-checkpoint: {len(paths)} checkpoints are given; an ensemble has at most {MOST_TEACHERS}"
        )
    for name in ("teacher_normalisation", "teacher_weights"):
        if values.get(name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is for a single checkpoint: leave it out, and give checkpoints that "
                "contain their normalisation and one set of weights"
            )


def _check_given_text(teacher: "GivenTeacher", path: Path, values: dict[str, Any]) -> None:
    """Check that a language model from a checkpoint has enough positions for the tokens in the task's sentences."""
    from trainables.data.text.tokeniser import parse_tokeniser
    from trainables.models.pretrained import check_positions

    positions = teacher.identity["model"]["max_position_embeddings"]
    assert teacher.tokeniser is not None
    try:
        tokeniser = parse_tokeniser(teacher.tokeniser, where=str(path))
        check_positions(positions, values["dataset"], values["data_root"], tokeniser, where=str(path))
    except ValueError as error:
        raise UsageError(f"--teacher-checkpoint: {error}") from None


def _check_pretrained(
    values: dict[str, Any],
    given: dict[str, Any],
    names: tuple[str, ...] = ("teacher", "student"),
    *,
    tokeniser: str | None = None,
) -> None:
    """Check that language models given by a folder or a Hub name exist and can be distilled.

    Args:
        values: values of all options.
        given: options given by the user.
        names: options to check. The first model determines the tokeniser unless `tokeniser` is given.
        tokeniser: content of `tokenizer.json` from a given teacher.
    """
    from trainables.spec.architectures import check_text_model_name, is_pretrained_text_name

    for name in names:
        model = given.get(name)
        if model is None:
            continue
        try:
            check_text_model_name(model, student=name == "student")
            if is_pretrained_text_name(model) and not (values["download"] and values["dry_run"]):
                # A dry run with --download skips this, because the files are not there yet.
                from trainables.data.text.tokeniser import load_tokeniser, parse_tokeniser
                from trainables.models.pretrained import check_folder, find_folder, read_config

                folder = find_folder(model, download=values["download"])
                read_config(folder)  # an unsupported model type is reported before an unsupported tokeniser
                reads = parse_tokeniser(tokeniser, where="the teacher") if tokeniser else load_tokeniser(folder)
                tokeniser = reads.json
                check_folder(folder, values["dataset"], values["data_root"], tokeniser=reads)
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from None


def check_same_teacher(plan: StudyPlan, given: dict[str, Any]) -> dict[str, Any]:
    """At a resume, check that a checkpoint at another path contains the study's teacher.

    Args:
        plan: study plan.
        given: options given by the user.

    Returns:
        Changed plan values.

    Raises:
        UsageError: the checkpoint contains another teacher, or the study trains its own teacher.
    """
    path: Path | None = given.get("teacher_checkpoint")
    text: str | None = given.get("teacher_normalisation")
    weights: str | None = given.get("teacher_weights")
    if path is None and text is None and weights is None:
        return {}
    own = plan.base.teacher_digest
    if not own:
        asked = [name for name in _OF_CHECKPOINTS if given.get(name) is not None]
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(f"study {plan.name!r} trained its own teacher and keeps using it: leave out {flags}")
    place = path or plan.teacher_checkpoint
    assert place is not None
    _check_ensemble_options(place, {"dataset": plan.base.dataset, **given})
    teacher = _read_again(plan, place, text or plan.teacher_normalisation, weights)
    if teacher.digest != own:
        raise UsageError(
            f"study {plan.name!r} has another teacher: the digest of {path or plan.teacher_checkpoint} is "
            f"{teacher.digest}, the study's is {own}. Leave the option out to use the study's own copy of the teacher."
        )
    if path is None:
        return {}
    return {"teacher_checkpoint": absolute_checkpoints(path), "teacher_weights": teacher.taken}


def _read_again(
    plan: StudyPlan,
    path: Path | None,
    normalisation: "str | tuple[tuple[float, ...], tuple[float, ...]] | None",
    weights: str | None = None,
) -> "GivenTeacher":
    """Read a study's teacher from a checkpoint that may have been saved again in another layout.

    Args:
        plan: study plan.
        path: current checkpoint path.
        normalisation: normalisation as given by the user or as planned.
        weights: weights to read from the file. If None, the function looks for the study's own weights.

    Raises:
        UsageError: the checkpoint cannot be read.
    """
    taken = plan.teacher_weights
    choices = [weights] if weights is not None or taken is None else [taken.place, taken.kind, None]
    errors = []
    teacher: GivenTeacher | None = None
    for choice in dict.fromkeys(choices):
        try:
            teacher = _read(path, plan.base.dataset, plan.base.teacher, normalisation, choice)
        except UsageError as error:
            errors.append(error)
            continue
        if teacher.digest == plan.base.teacher_digest:
            break
    if teacher is None:
        raise errors[-1]
    return teacher


def keep_teacher(plan: StudyPlan) -> None:
    """Ensure that the teachers folder has a complete copy of a teacher from a checkpoint.

    Raises:
        StudyError: the copy is missing, and the original checkpoint is missing or changed.
    """
    if not plan.base.teacher_digest:
        return
    from trainables.teacher.files import is_kept, keep_given_teacher

    if is_kept(plan.teachers_folder, plan.base.teacher_digest):
        return
    normalisation = plan.teacher_normalisation
    assert plan.teacher_checkpoint is not None
    try:
        teacher = _read_again(plan, plan.teacher_checkpoint, normalisation)
    except UsageError as error:
        raise StudyError(
            f"the study's copy of the teacher is missing, and the original cannot be read: {error}"
        ) from None
    if teacher.digest != plan.base.teacher_digest:
        raise StudyError(
            f"the study's copy of the teacher is missing, and {plan.teacher_checkpoint} has changed: its digest is "
            f"{teacher.digest}, the study's teacher has {plan.base.teacher_digest}. Give the original file: "
            "--resume NAME --teacher-checkpoint PATH"
        )
    keep_given_teacher(teacher, plan.teachers_folder)


def describe_teacher(plan: StudyPlan) -> str:
    """Return a description of the study's teachers and their sources."""
    if not plan.teachers:
        return "none: no method of the study needs one"
    without = "" if plan.base.method_spec.needs_teacher else f" ({plan.base.method} needs none)"
    described = "; ".join(describe_one_teacher(plan, method) for method in plan.teachers) + without
    return described + _describe_further(plan)


def _describe_further(plan: StudyPlan) -> str:
    """Return a clause on the teachers used only by the confirmation; empty without any."""
    request, further = plan.confirmation, len(plan.further_teachers)
    if request is None or not further:
        return ""
    seeds = plan.teacher_seeds
    named = listed([str(each) for each in seeds]) if len(seeds) <= _MOST_NAMED else f"{seeds[0]} to {seeds[-1]}"
    on_each = f", on each of {request.splits} splits" if request.splits > 1 else ""
    count = len(plan.teachers) * further
    return (
        f"; {counted(count, 'further teacher')} for the confirmation, trained alike with seed"
        f"{'s' if request.teachers > 1 else ''} {named} in all{on_each}: {count * plan.base.teacher_epochs} more "
        "teacher epochs, unless they are there"
    )


def describe_one_teacher(plan: StudyPlan, method: str, trial: TrialConfig | None = None) -> str:
    """Return a description of one teacher in `plan.teachers` or `plan.further_teachers`.

    Args:
        plan: study plan.
        method: method with its own teacher. Empty for the shared teacher.
        trial: trial config from the same mapping, for naming the seed and split in a confirmation with several
            teachers.
    """
    base = plan.base
    if trial is not None and plan.further_teachers:
        assert plan.confirmation is not None
        own = f"{describe_one_teacher(plan, method)}, seed {trial.seed_of_teacher}"
        return own + (
            f", split {trial.split_number + 1} of {plan.confirmation.splits}" * (plan.confirmation.splits > 1)
        )
    if method:
        return (
            f"{base.teacher} for {method} alone, trained by recipe {base.teacher_recipe} for {base.teacher_epochs} "
            f"epochs with branches that end like {base.student}, once for all trials of {method}"
        )
    if not base.teacher_digest:
        users = [control for control in plan.controls if method_spec(control).needs_teacher]
        shared = base.method_spec.needs_teacher and not base.method_spec.teacher_fields
        used_by = "" if shared else f", for {', '.join(users)}"
        return f"{base.teacher}, trained by recipe {base.teacher_recipe} for {base.teacher_epochs} epochs{used_by}"
    if is_text(base.dataset):
        return (
            f"{base.teacher} from {plan.teacher_checkpoint} (digest {base.teacher_digest}), with its own tokeniser"
            + _classes_of(plan)
        )
    assert plan.teacher_normalisation is not None
    if members := ensemble_members(base.teacher):
        return (
            f"mean probability of {listed(list(members))} from {plan.teacher_checkpoint} (digest "
            f"{base.teacher_digest}), each with its own normalisation"
        )
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in plan.teacher_normalisation)
    weights = plan.teacher_weights.in_passing if plan.teacher_weights is not None else ""
    return (
        f"{base.teacher} from {plan.teacher_checkpoint} (digest {base.teacher_digest}{weights}), images normalised by "
        f"means {mean} / standard deviations {std}"
    )


def _classes_of(plan: StudyPlan) -> str:
    """Return the mapping from a given language model's classes to the task's classes. Empty if the folder is gone."""
    from trainables.models.class_order import ClassNamesError, read_class_order

    path, task = plan.teacher_checkpoint, dataset_info(plan.base.dataset).task
    assert task is not None
    if path is None or not path.is_dir():
        return ""
    try:
        return f"; {read_class_order(path, task).note}"
    except ClassNamesError:
        return ""


def _read(
    path: Path | None,
    dataset: str,
    architecture: str | None,
    normalisation: "str | tuple[tuple[float, ...], tuple[float, ...]] | None",
    weights: str | None,
) -> "GivenTeacher":
    # Reading a checkpoint needs torch, so torch is imported only from here on.
    from trainables.models import CheckpointError
    from trainables.models.checkpoints import is_ours
    from trainables.teacher.given import DataShape, Normalisation, read_given_teacher

    assert path is not None
    if is_text(dataset):
        from trainables.teacher.given_text import read_given_text_teacher

        if isinstance(normalisation, str):
            raise UsageError("--teacher-normalisation is only for images: leave it out")
        if weights is not None:
            raise UsageError("--teacher-weights is only for checkpoints of image models: leave it out")
        try:
            return read_given_text_teacher(path, dataset, architecture=architecture)
        except CheckpointError as error:
            raise UsageError(f"--teacher-checkpoint: {error}") from None
    info = dataset_info(dataset)
    shape = DataShape(dataset, info.num_classes, info.channels, info.image_size)
    paths = checkpoints_of(path)
    if len(paths) > 1:
        return _read_ensemble(paths, shape, architecture)
    if architecture is not None:
        _check_architecture(architecture, info)
    try:
        if isinstance(normalisation, tuple):  # from a plan; checkpoints of this project contain their own
            wanted = None if is_ours(path) else Normalisation(*normalisation)
        else:
            wanted = parse_normalisation(normalisation) if normalisation is not None else None
        return read_given_teacher(path, shape, architecture=architecture, normalisation=wanted, weights=weights)
    except (CheckpointError, ValueError) as error:
        raise UsageError(f"--teacher-checkpoint: {error}") from None


def _read_ensemble(paths: "list[Path]", shape: "DataShape", architectures: str | None) -> "GivenTeacher":
    """Read the checkpoints of an ensemble.

    Args:
        paths: two or more checkpoints.
        shape: data shape.
        architectures: architectures, joined by `+`, of checkpoints that do not state one.

    Raises:
        UsageError: a checkpoint contains no teacher for these data, or two contain the same.
    """
    from trainables.models import CheckpointError
    from trainables.teacher.given_ensemble import join_given_teachers

    names = ensemble_members(architectures) if architectures is not None else (None,) * len(paths)
    if len(names) != len(paths):
        raise UsageError(
            f"--teacher {architectures}: {len(paths)} checkpoints are given; name as many architectures, as in "
            f"{'+'.join(['resnet20'] * len(paths))}, or leave the option out if the checkpoints state them"
        )
    teachers = [_read(each, shape.dataset, name, None, None) for each, name in zip(paths, names, strict=True)]
    try:
        return join_given_teachers(teachers, paths, shape)
    except CheckpointError as error:
        raise UsageError(f"--teacher-checkpoint: {error}") from None


def _check_architecture(name: str, info: DatasetInfo) -> None:
    """Check that an architecture exists and accepts the dataset's images, before reading weights for it."""
    from trainables.process.threads import one_thread
    from trainables.run.shape_check import ShapeError, Wanted, check_network
    from trainables.spec.architectures import check_model_name

    try:
        with one_thread():
            check_network(check_model_name(name), Wanted(info, trains=False), flag="--teacher", given=True)
    except ShapeError as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"--teacher: {error}") from None


def parse_normalisation(text: str) -> "Normalisation":
    """Parse the means and standard deviations of pixels in [0, 1], as in `0.5,0.5,0.5/0.25,0.25,0.25`.

    Raises:
        ValueError: the text has another format, or the values are out of bounds.
    """
    from trainables.teacher.given import NORMALISATION_BOUNDS, Normalisation, is_normalisation

    try:
        mean, std = (tuple(float(word) for word in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise ValueError(
            f"--teacher-normalisation {text!r}: give means, a slash and standard deviations, one of each per channel, "
            "such as 0.5071,0.4867,0.4408/0.2675,0.2565,0.2761"
        ) from None
    if not is_normalisation(normalisation := Normalisation(mean, std)):
        raise ValueError(f"--teacher-normalisation {text!r}: {NORMALISATION_BOUNDS}")
    return normalisation
