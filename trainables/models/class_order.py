"""Class order of a fine-tuned model, from the class names in the configuration; imports no torch.

Two checkpoints of one task may order the classes differently. `id2label` in config.json names them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainables.spec.glue import GlueTask

_UNNAMED = re.compile(r"label_\d+")


class ClassNamesError(ValueError):
    """Configuration with other classes than the task, or with contradictory class names."""


class ClassOrder(NamedTuple):
    """Mapping from a model's logits to a task's classes.

    Args:
        names: the model's class names, in the model's order; empty for a model without class names.
        order: for each class of the task, the index of the model's logit.
        labels: the task's class names.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def note(self) -> str:
        """Summary of the mapping for display."""
        wanted = ", ".join(self.labels)
        if not self.names:
            return f"config.json does not name the classes; assuming {wanted}, in this order"
        if self.order == tuple(range(len(self.labels))):
            return f"classes {wanted}, in this order"
        return f"classes reordered by name, from {', '.join(self.names)} to {wanted}"


def class_order(config: Mapping[str, Any], task: GlueTask, *, where: str) -> ClassOrder:
    """Match a model's classes with a task's by name, ignoring case.

    Args:
        config: content of the model's config.json.
        task: task with the class names. The spellings in GLUE's files (such as 0 and 1) are accepted too.
        where: model name for messages.

    Raises:
        ClassNamesError: the names differ from the task's (the message lists both), or `id2label` contradicts
            `label2id`.
    """
    count = len(task.labels)
    names, numbered = _by_number(config.get("id2label"), where), _by_name(config.get("label2id"), where)
    if names and numbered and _has_names(names) and _has_names(numbered) and names != numbered:
        raise ClassNamesError(
            f"{where}: config.json contradicts itself: id2label has {', '.join(names)}, label2id "
            f"{', '.join(numbered)}. Correct one of them"
        )
    found = next((each for each in (names, numbered) if each and _has_names(each)), ())
    if not found:
        return ClassOrder((), tuple(range(count)), task.labels)
    spelled = [_normalised(name) for name in found]
    for known in (task.labels, task.spellings):
        wanted = [_normalised(label) for label in known]
        if sorted(wanted) == sorted(spelled):
            return ClassOrder(found, tuple(spelled.index(label) for label in wanted), task.labels)
    raise ClassNamesError(
        f"{where} has the classes {', '.join(found)}, but {task.dataset} has {', '.join(task.labels)}: give a "
        "checkpoint that was fine-tuned on this task. If this one was, use these class names in the id2label "
        "of its config.json"
    )


def read_class_order(folder: Path, task: GlueTask) -> ClassOrder:
    """Match the classes of the model in a folder with a task's classes.

    Raises:
        ClassNamesError: see `class_order`; or config.json cannot be read.
    """
    return class_order(read_raw_config(folder), task, where=str(folder))


def read_raw_config(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's config.json.

    Raises:
        ClassNamesError: the file cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClassNamesError(f"{folder}: config.json cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ClassNamesError(f"{folder}: config.json is not a JSON object")
    return content


def _by_number(content: Any, where: str) -> tuple[str, ...]:
    """Return the names in `id2label`, in order."""
    if not content:
        return ()
    try:
        numbered = {int(key): str(name) for key, name in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ClassNamesError(f"{where}: id2label in config.json does not map numbers to names") from None
    return _in_order(numbered, where, "id2label")


def _by_name(content: Any, where: str) -> tuple[str, ...]:
    """Return the names in `label2id`, in the order of their numbers."""
    if not content:
        return ()
    try:
        numbered = {int(number): str(name) for name, number in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ClassNamesError(f"{where}: label2id in config.json does not map names to numbers") from None
    return _in_order(numbered, where, "label2id")


def _in_order(numbered: Mapping[int, str], where: str, field: str) -> tuple[str, ...]:
    if sorted(numbered) != list(range(len(numbered))):
        raise ClassNamesError(f"{where}: {field} in config.json does not number the classes from 0")
    return tuple(numbered[number] for number in range(len(numbered)))


def _has_names(names: Sequence[str]) -> bool:
    return not all(_UNNAMED.fullmatch(name.strip().lower()) for name in names)


def _normalised(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())
