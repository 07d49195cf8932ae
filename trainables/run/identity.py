"""Identity checks: dataset, teacher, teacher outputs and saved state must belong to the trial."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainables.data.dataset import Dataset
from trainables.spec.methods import method_spec
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    from trainables.teacher_outputs.batch import TeacherOutputs
    from trainables.teacher_outputs.frozen import FrozenTeacher


def check_fit(config: TrialConfig, dataset: Dataset, teacher: "FrozenTeacher | None") -> None:
    """Check that dataset and teacher fit a trial.

    Raises:
        ValueError: with the reason, if they do not fit.
    """
    if dataset.name != config.dataset:
        raise ValueError(f"the trial is of dataset {config.dataset!r} and was given {dataset.name!r}")
    if dataset.seed != config.split_seed:
        raise ValueError(f"the trial has split_seed {config.split_seed}, the dataset was split by {dataset.seed}")
    if dataset.split_number != config.split_number:
        raise ValueError(
            f"the trial has split_number {config.split_number}, the dataset has split {dataset.split_number}"
        )
    if teacher is None:
        if method_spec(config.method).needs_teacher:
            raise ValueError(f"method {config.method!r} needs a teacher: pass one (see ensure_teacher, load_teacher)")
        if config.begins_as_teacher:
            raise ValueError(f"student {config.student!r} begins with layers of its teacher, and there is none")
    elif teacher.head.out_features != dataset.num_classes:
        raise ValueError(
            f"the teacher knows {teacher.head.out_features} classes, dataset {dataset.name!r} has {dataset.num_classes}"
        )


def check_outputs(config: TrialConfig, outputs: "TeacherOutputs | None") -> None:
    """Check the teacher outputs for everything needed by the method.

    Raises:
        ValueError: if the method needs feature maps and the outputs have none.
    """
    if method_spec(config.method).needs_maps and not getattr(outputs, "gives_maps", False):
        raise ValueError(
            f"method {config.method!r} matches maps of both nets, which stored outputs of the teacher do not have: "
            "give the trial no teacher_outputs, or LiveTeacherOutputs(teacher, maps=True)"
        )


def check_identity(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Compare the identity of a saved state with this trial's identity.

    Args:
        theirs: identity stored with the state.
        ours: identity of this trial; see `DistillationRun.identity`.

    Raises:
        ValueError: with the first differing entry and, for the config, the differing fields.
    """
    for name, expected in ours.items():
        found = theirs.get(name)
        difference = "" if found == expected else f"{found} (here {expected})"
        if difference and name == "config" and found is not None:
            difference = _different_fields(found, expected)  # empty if only the field order differs
        if difference:
            raise ValueError(f"the state is of another trial: its {name} has {difference}")


def _different_fields(theirs: str, ours: str) -> str:
    found, here = json.loads(theirs), json.loads(ours)
    names = [name for name in sorted(found | here) if found.get(name) != here.get(name)]
    return ", ".join(f"{name} {found.get(name)!r} (here {here.get(name)!r})" for name in names)
