"""Checks of a plan against external state, for example dataset files or a resumed study's recorded plan."""

import importlib.util
import os
import re
from typing import Any, Final

from search_spaces import Bounds, SearchSpace
from study.plan.beliefs import Belief
from study.plan.objectives import Limit
from study.plan.places import check_mirror_place
from study.plan.plan import CONTROLS, EXECUTION_FIELDS, StudyPlan
from study.plan.teacher_storage import check_teacher_storage
from trainables.data.registry import dataset_info
from trainables.process.errors import UsageError
from trainables.spec.architectures import ensemble_members
from trainables.spec.datasets import FOLDER_PREFIX, check_files
from trainables.spec.digest import DIGEST_VERSION
from trainables.spec.methods import METHOD_SPECS, is_known_method, method_spec
from trainables.spec.own_data import is_own_data
from trainables.spec.searchable import ALWAYS_READ

_DIGESTS: Final = re.compile(r"(?<=@)[0-9a-f]{16}\b")  # digests of user code
_FIRST_LINE_BYTES: Final = 4096  # Optuna writes the name `op_code` near the start
# Modules imported by an option. The package names are the same. The first is also the name of the extra.
_LIBRARIES: Final = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb_offline": ("wandb",)}


def controls_for(method: str, *, adapter: bool) -> tuple[str, ...]:
    """Return the controls for a new study.

    If the study adds an adapter to a method that also works without one, the method alone becomes a third control.

    Args:
        method: the study's method. The plan rejects unknown names.
        adapter: whether the study trains an adapter with the method.
    """
    alone = adapter and is_known_method(method) and method_spec(method).takes_adapter
    return (*CONTROLS, method) if alone else CONTROLS


def refuse_differences(recorded: StudyPlan, asked: dict[str, Any]) -> None:
    """Check that the values given at a resume equal the recorded plan.

    Args:
        recorded: plan on disk.
        asked: plan fields given on the command line. Config fields are under `base`.

    Raises:
        UsageError: values differ. The message lists each field with both values.
    """
    differences = []
    flat = {**{k: v for k, v in asked.items() if k != "base"}, **asked.get("base", {})}
    for field, value in flat.items():
        if field in EXECUTION_FIELDS:
            continue
        source = recorded.base if field in asked.get("base", {}) else recorded
        if getattr(source, field) != value:
            own, given = (_shown(each) for each in (getattr(source, field), value))
            differences.append(f"{field}: the study has {own}, but {given} was given{_changed(own, given)}")
    current = StudyPlan(**{**recorded.model_dump(), "space_digest": ""}).space_digest
    if recorded.digest_version == DIGEST_VERSION and current != recorded.space_digest:
        differences.append(f"space: the bounds of {recorded.space!r} have changed since the study was started")
    if differences:
        raise UsageError(
            f"study {recorded.name!r} cannot be resumed with another plan:\n  "
            + "\n  ".join(differences)
            + "\nLeave these options out to resume as planned, or start a new study under another name."
        )


def _changed(own: str, given: str) -> str:
    """Return a clause if two texts name the same user code with different content, or an empty text."""
    if own == given or _DIGESTS.sub("", own) != _DIGESTS.sub("", given):
        return ""
    return " (the file, or a module that it imports, was changed; the study goes on with a copy of its own)"


def _shown(value: Any) -> str:
    """Return a value for a message; bounds, limits and beliefs as typed on the command line."""
    if isinstance(value, tuple) and value and all(isinstance(each, Bounds | Limit | Belief) for each in value):
        return ", ".join(each.text for each in value)
    return repr(value)


def check_data_root(plan: StudyPlan) -> None:
    """Check that all dataset files exist.

    Raises:
        UsageError: files are missing or an image folder is invalid. The message lists the files or the problem.
    """
    if plan.data_root is not None and not plan.data_root.is_dir():
        raise UsageError(f"--data-root {plan.data_root} is not a folder")
    try:
        check_files(dataset_info(plan.base.dataset), plan.data_root)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_teacher_outputs(plan: StudyPlan) -> None:
    """At a resume, check the storage limit for teacher outputs, because the limit may have changed.

    Raises:
        UsageError: the teacher outputs exceed the limit.
    """
    try:
        check_teacher_storage(plan)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_images(plan: StudyPlan, *, runs: bool) -> None:
    """Check that all images in a folder, or in a user's own dataset, can be decoded.

    If files in a folder were checked before, they are not decoded again.

    Args:
        plan: study plan.
        runs: whether trials will run. If they run on this machine, the decoded training images are kept for them.

    Raises:
        UsageError: some files cannot be used. The message names them.
    """
    if not (plan.base.dataset.startswith(FOLDER_PREFIX) or is_own_data(plan.base.dataset)):
        return
    from trainables.data.image_check import check_image_folder

    try:
        check_image_folder(plan.base.dataset, keep=runs and plan.address == "local")
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None


def check_optuna_storage(plan: StudyPlan) -> None:
    """Check that the search can be mirrored to the file given by `--optuna-storage`.

    Raises:
        UsageError: the study has no search, the file has other content, or the file cannot be written.
    """
    path = plan.optuna_storage
    if path is None:
        return
    if not plan.searches:
        raise UsageError(f"--optuna-storage mirrors a search, but space {plan.space!r} has no search: leave it out")
    if ":/" in str(path):
        raise UsageError(f"--optuna-storage {path}: give a file path, such as studies.journal, not a URI")
    check_mirror_place(plan)
    if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe would block forever
        raise UsageError(f"--optuna-storage {path} is a device or a pipe: give a regular file")
    try:
        with path.open("rb") as file:
            if (start := file.readline(_FIRST_LINE_BYTES)) and b'"op_code"' not in start:
                raise UsageError(f"--optuna-storage {path} is not an Optuna journal: give another file, or a new one")
    except FileNotFoundError:
        folder = next(each for each in path.parents if each.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise UsageError(f"--optuna-storage: cannot write to {folder}; give a file in a writable folder") from None
    except OSError as error:
        raise UsageError(f"--optuna-storage {path} cannot be read ({error.strerror}): give a file") from None


def check_space_fits_method(plan: StudyPlan) -> None:
    """Check that the method reads every parameter of the space.

    Raises:
        UsageError: the method ignores some parameters. The message names them.
    """
    read = plan.base.method_spec.fields | ALWAYS_READ  # a comparison has no scientific parameters
    given = {each.field for each in plan.given_bounds}  # checked by `check_bounds`
    ignored = [name for name in plan.search_space.scientific if name not in read | given]
    if ignored:
        varied = set(plan.search_space.scientific) - given
        able = [method for method in METHOD_SPECS if varied <= method_spec(method).fields | ALWAYS_READ]
        able += [
            f"{method} with --adapter"
            for method in METHOD_SPECS
            if method not in able and varied <= method_spec(method, adapter=True).fields | ALWAYS_READ
        ]
        raise UsageError(
            f"space {plan.space!r} varies {', '.join(ignored)}, which method {plan.base.method!r} does not use; "
            f"methods that do: {', '.join(able) or 'none'}"
        )
    _check_space_fits_teacher(plan)


def check_trial_files(plan: StudyPlan) -> None:
    """Check that the libraries for `--tensorboard` and `--wandb-offline` are installed.

    Raises:
        UsageError: a library is missing.
    """
    for field, packages in _LIBRARIES.items():
        missing = [each for each in packages if importlib.util.find_spec(each) is None]
        if getattr(plan, field) and missing:
            flag = f"--{field.replace('_', '-')}"
            raise UsageError(
                f"{flag} needs {' and '.join(missing)}, not installed here: pip install {' '.join(packages)} (or the "
                f"extra {packages[0]!r} of pesfkd), or leave out {flag}"
            )


def _check_space_fits_teacher(plan: StudyPlan) -> None:
    """Check that every choice in the space is compatible with an ensemble of teachers."""
    space = plan.search_space
    if not ensemble_members(plan.base.teacher) or plan.base.teacher_recipe != "checkpoint":
        return
    parameters = space.parameters if isinstance(space, SearchSpace) else ()
    if any(each.name == "adapter_kind" and "feature" in each.choices for each in parameters):
        raise UsageError(
            f"space {plan.space!r} tries adapter_kind 'feature', which applies the last layer of a single network, and "
            f"teacher {plan.base.teacher!r} is an ensemble: give one checkpoint, or choose another space, such as "
            "adapter_width"
        )
