"""Reconstruction of the command to start a study with the same settings, without the study name.

The command is derived from the plan, not from the typed command. If a study was resumed, confirmed later or started
with `--smoke`, no single typed command describes it. Options that define the study are always included, because later
versions may have other defaults. Execution options are included only if they differ from the default.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from search_spaces import Bounds
from study.plan.confirmation import AUTO
from study.plan.folder import own_store
from study.plan.methods import ComparedMethod
from study.plan.options import OPTIONS, names_into
from study.plan.plan import StudyPlan
from study.plan.user_code import typed_reference
from trainables.spec.architectures import ensemble_members
from trainables.spec.methods.row_names import short_name
from trainables.spec.modality import is_text
from trainables.storage.uris import redact_place

if TYPE_CHECKING:
    from collections.abc import Iterator

_BASE: Final = ("dataset", "student", "teacher", "epochs", "precision")
# `options_of` yields `tracking_uri` itself. `time_budget` is not printed, because it applies to a single run.
_HANDLED_SEPARATELY: Final = ("time_budget", "tracking_uri")
_IF_NOT_DEFAULT: Final = tuple(
    name
    for name in names_into("plan")
    if name not in _HANDLED_SEPARATELY and (OPTIONS[name].part == "execution" or OPTIONS[name].panel == "Teacher")
)


def _typed_search(plan: StudyPlan, students: Bounds) -> str:
    """Return the `--search` argument for students, which may include the user's own networks."""
    return f"{students.field}={','.join(typed_reference(plan, str(each)) for each in students.choices)}"


def _typed_method(plan: StudyPlan, method: ComparedMethod) -> str:
    """Return the `--methods` argument for a compared method, which may be the user's own."""
    name = str(method.fields["method"])
    return method.name.replace(short_name(name), typed_reference(plan, name), 1)


def start_command(plan: StudyPlan) -> str:
    """Return the command for a study with the same settings under a new name, with secrets in URIs masked.

    Args:
        plan: study plan.
    """
    words = ["python", "-m", "study.launch"]
    for name, value in options_of(plan):
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [redact_place(str(value))])]
    return shlex.join(words)


def options_of(plan: StudyPlan) -> "Iterator[tuple[str, Any]]":
    """Yield the options for a study with the same settings, in the order of the command's help.

    Names are flag names with underscores. For a flag without argument, the value is True.
    """
    base = plan.base
    yield "space", typed_reference(plan, plan.space)
    if plan.compared:
        yield "methods", ",".join(_typed_method(plan, method) for method in plan.compared)
    else:
        yield "method", typed_reference(plan, base.method)
        if base.adapter:
            yield "adapter", True
    searched = {each.field for each in plan.search}
    for name in _BASE:
        if name not in searched:
            value = getattr(base, name)
            yield name, typed_reference(plan, value) if isinstance(value, str) else value
    if base.begins_as_teacher and "student_layers" not in searched:
        yield "student_layers", base.student_layers
    for each in plan.search:
        yield "search", each.text if each.field != "student" else _typed_search(plan, each)
    for field, value in plan.overrides.items():
        yield "set", f"{field}={value}"
    if plan.searches:
        yield "trials", plan.trials
        if not plan.compared:
            yield "promising", plan.promising
        else:
            yield "searches", plan.searches_per_method
            yield "budget", plan.budget
        yield "sampler", plan.sampler
    if plan.objectives:
        yield "objectives", ",".join(plan.objectives)
    for limit in plan.limits:
        yield "limit", limit.text
    if plan.warm_start:
        yield "warm_start", ",".join(each.place for each in plan.warm_start)
    for belief in plan.prior:
        is_student = belief.field == "student"
        yield "prior", f"student={typed_reference(plan, str(belief.value))}" if is_student else belief.text
    if plan.until is not None:
        yield "until", plan.until
    if plan.latency is not None:
        yield "latency", plan.latency
    if plan.replicates_detect is None:
        yield "replicates", plan.replicates
    else:
        yield "replicates", AUTO
        yield "detect", plan.replicates_detect
        yield "most_seeds", plan.replicates
    # A study with sequential repetitions is confirmed only after it has finished, by another command.
    if plan.confirmation is not None and plan.replicates_detect is None:
        yield "confirm", plan.confirmation.configs
        request = plan.confirmation
        yield "seeds", request.seeds if request.detect is None else AUTO
        if request.detect is not None:
            yield "detect", request.detect
            yield "most_seeds", request.seeds
        if request.epochs is not None:
            yield "confirm_epochs", request.epochs
        if request.teachers > 1:
            yield "teachers", request.teachers
        if request.splits > 1:
            yield "splits", request.splits
    if not plan.compared:
        yield "scheduler", plan.scheduler
    yield "seed", plan.seed
    yield from teacher_options(plan)
    for name in _IF_NOT_DEFAULT:
        value = getattr(plan, name)
        if value != StudyPlan.model_fields[name].default:
            yield name, value
    if plan.output_dir != Path("study_results"):
        yield "output_dir", plan.output_dir
    if plan.tracking_uri != own_store(plan.output_dir):
        yield "tracking_uri", plan.tracking_uri


def teacher_options(plan: StudyPlan) -> "Iterator[tuple[str, Any]]":
    """Yield the options for a study's teacher, with their values.

    Args:
        plan: study plan.
    """
    if plan.teacher_checkpoint is None:
        yield "teacher_recipe", plan.base.teacher_recipe
        if plan.base.teacher_epochs:
            yield "teacher_epochs", plan.base.teacher_epochs
        return
    yield "teacher_checkpoint", plan.teacher_checkpoint
    if is_text(plan.base.dataset):
        return
    if plan.teacher_weights is not None and not plan.teacher_weights.is_plain:
        yield "teacher_weights", plan.teacher_weights.choice
    if ensemble_members(plan.base.teacher):  # each contains its own normalisation
        return
    if plan.teacher_normalisation is not None and not _contains_normalisation(plan.teacher_checkpoint):
        mean, std = (",".join(map(repr, values)) for values in plan.teacher_normalisation)
        yield "teacher_normalisation", f"{mean}/{std}"


def _contains_normalisation(checkpoint: Path) -> bool:
    """Return whether a checkpoint contains a normalisation; `--teacher-normalisation` is then left out."""
    from trainables.models import CheckpointError
    from trainables.models.checkpoints import is_ours

    try:
        return is_ours(checkpoint)
    except CheckpointError:  # the file is gone, but the study has a copy
        return checkpoint.suffix == ".safetensors"
