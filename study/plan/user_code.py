"""User code in a study: named on the command line, kept in the study's folder, sent to the trials.

A study keeps the sources and never reads the user's file again. Changing or removing the file therefore has no effect.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from study.plan.plan import StudyPlan
from trainables.process.errors import UsageError
from trainables.spec.architectures import ensemble_members, ensemble_name, is_model_code
from trainables.spec.datasets import is_code
from trainables.spec.modality import is_text
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name, sources_of
from trainables.user_code.reference import CANONICAL, canonical, is_canonical
from trainables.user_code.storage import save_sources

CODE_FOLDER: Final = "code"
_NETWORKS: Final = ("student", "teacher")
_STRING: Final = re.compile(r'"([^"\\]*)"')


def with_canonical_names(values: Mapping[str, Any], *, dataset: str) -> dict[str, Any]:
    """Return options with each user network or dataset, for example `net.py:make`, replaced by a canonical name.

    The networks are in --student, --teacher, ensembles of teachers, and the students in --search and --prior. The
    sources are registered in this process and are not executed.

    Args:
        values: options by name.
        dataset: study dataset.

    Raises:
        UsageError: the code cannot be found or read, or the dataset is text.
    """
    found = dict(values)
    if isinstance(data := values.get("dataset"), str) and is_code(data):
        try:
            found["dataset"] = canonical_name(data)
        except UserCodeError as error:
            raise UsageError(f"--dataset: {error}") from None
    for option in _NETWORKS:
        if isinstance(text := values.get(option), str):
            found[option] = ensemble_name([_canonical(f"--{option}", each, dataset) for each in _members(text)])
    for option in ("search", "prior"):
        if values.get(option):
            found[option] = [_canonical_student(option, argument, dataset) for argument in values[option]]
    return found


def _canonical_student(option: str, argument: str, dataset: str) -> str:
    field, separator, text = argument.partition("=")
    if field.strip() != "student":
        return argument
    names = (_canonical(f"--{option} {argument}", each.strip(), dataset) for each in text.split(","))
    return f"{field}{separator}{','.join(names)}"


def _members(text: str) -> list[str]:
    """Return the networks in an ensemble, or the text itself. A path may contain a plus, too."""
    members = text.split("+")
    return members if all(map(is_model_code, members)) else [text]


def _canonical(flag: str, text: str, dataset: str) -> str:
    if not is_model_code(text):
        return text
    if is_text(dataset):
        raise UsageError(f"{flag} {text}: networks of your own are for images, and {dataset} is text")
    try:
        return canonical_name(text)
    except UserCodeError as error:
        raise UsageError(f"{flag}: {error}") from None


def code_names(plan: StudyPlan) -> Iterator[str]:
    """Yield the canonical names of all user code in a plan, in any field."""
    content = plan.model_dump(mode="json", include={"base", "overrides", "compared", "space", "search"})
    texts = (part for text in _STRING.findall(json.dumps(content)) for part in ensemble_members(text) or (text,))
    yield from filter(CANONICAL.fullmatch, dict.fromkeys(texts))


def sources_in(plan: StudyPlan) -> list[dict[str, Any]]:
    """Return the sources of all user code in a plan, as JSON values, each once.

    Raises:
        UserCodeError: the sources for a name are unknown.
    """
    found = {canonical(name).digest: sources_of(name) for name in code_names(plan)}
    return [each.to_json() for each in found.values()]


def keep_code(plan: StudyPlan) -> None:
    """Write the sources of all user code in a plan to the study's folder.

    Raises:
        OSError: a file cannot be written.
    """
    save_sources((sources_of(name) for name in code_names(plan)), code_folder(plan.directory))


def code_folder(directory: Path) -> Path:
    """Return the folder for a study's code."""
    return directory / CODE_FOLDER


def typed_reference(plan: StudyPlan, name: str) -> str:
    """Return the command-line text for the same network or dataset: `name`, unless it is code.

    For user code, the text names the study's own copy or an installed module.
    """
    members = ensemble_members(name) or (name,)
    return ensemble_name([_typed(plan, each) for each in members]) if all(map(is_canonical, members)) else name


def _typed(plan: StudyPlan, name: str) -> str:
    own = canonical(name)
    if PurePosixPath(own.title).suffix != ".py":
        return name
    return f"{code_folder(plan.directory) / own.digest / own.title}:{own.name}"
