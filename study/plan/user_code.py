"""Code of the user in a study: named on the command line, kept in the study's folder, sent to the trials.

A study keeps the sources and never reads the user's file again, so a file that was changed or removed changes nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from study.plan.plan import StudyPlan
from trainables.process.errors import UsageError
from trainables.spec.architectures import is_other_reference
from trainables.spec.datasets import is_code
from trainables.spec.modality import is_text
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name, sources_of
from trainables.user_code.reference import CANONICAL, canonical, looks_like_reference
from trainables.user_code.storage import save_sources

CODE_FOLDER: Final = "code"
_NETWORKS: Final = ("student", "teacher")
_STRING: Final = re.compile(r'"([^"\\]*)"')


def with_canonical_names(values: Mapping[str, Any], *, dataset: str) -> dict[str, Any]:
    """Return options with each network and dataset of the user's own, as `net.py:make`, by its canonical name.

    The sources become known to this process. Nothing of them is executed.

    Args:
        values: options by name.
        dataset: dataset of the study.

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
        text = values.get(option)
        if not isinstance(text, str) or is_other_reference(text) or not looks_like_reference(text):
            continue
        if is_text(dataset):
            raise UsageError(f"--{option} {text}: networks of your own are for images, and {dataset} is text")
        try:
            found[option] = canonical_name(text)
        except UserCodeError as error:
            raise UsageError(f"--{option}: {error}") from None
    return found


def code_names(plan: StudyPlan) -> Iterator[str]:
    """Yield the canonical names of all code that a plan names, in any field."""
    content = plan.model_dump(mode="json", include={"base", "overrides", "compared", "space"})
    for text in dict.fromkeys(_STRING.findall(json.dumps(content))):
        if CANONICAL.fullmatch(text):
            yield text


def sources_in(plan: StudyPlan) -> list[dict[str, Any]]:
    """Return the sources of all code that a plan names, as JSON values, each once.

    Raises:
        UserCodeError: the sources of a name are not known.
    """
    found = {canonical(name).digest: sources_of(name) for name in code_names(plan)}
    folder = code_folder(plan.directory).absolute()
    return [{**each.to_json(), "shown": str(folder / digest)} for digest, each in found.items()]


def keep_code(plan: StudyPlan) -> None:
    """Write the sources of all code that a plan names to the study's folder.

    Raises:
        OSError: a file cannot be written.
    """
    save_sources((sources_of(name) for name in code_names(plan)), code_folder(plan.directory))


def code_folder(directory: Path) -> Path:
    """Return the folder of a study's code."""
    return directory / CODE_FOLDER


def typed_reference(plan: StudyPlan, name: str) -> str:
    """Return the text that names the same code on the command line: the study's own copy, or an installed module."""
    own = canonical(name)
    if PurePosixPath(own.title).suffix != ".py":
        return name
    return f"{code_folder(plan.directory) / own.digest / own.title}:{own.name}"
