"""Which logit of a fine-tuned model means which class, from the names in its configuration; imports no torch.

Two checkpoints of one task may order its classes differently. The `id2label` of config.json names them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainables.spec.glue import GlueTask

_UNNAMED = re.compile(r"label_\d+")


class ClassNamesError(ValueError):
    """A configuration that names other classes than the task has, or contradicts itself."""


class ClassOrder(NamedTuple):
    """How the logits of a model become those of a task.

    Args:
        names: of the model's classes in its own order; empty if it does not name them.
        order: for each class of the task, its position among the model's.
        labels: of the task.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def note(self) -> str:
        """What was done, for a person."""
        wanted = ", ".join(self.labels)
        if not self.names:
            return f"classes have no names in its config.json; they are taken as {wanted}, in this order"
        if self.order == tuple(range(len(self.labels))):
            return f"classes {wanted}, in this order"
        return f"classes reordered by name, from {', '.join(self.names)} to {wanted}"


def class_order(config: Mapping[str, Any], task: GlueTask, *, where: str) -> ClassOrder:
    """Match the classes of a model with those of a task, by name and without case.

    Args:
        config: content of the model's config.json.
        task: names its classes, and how GLUE's files write them (0 and 1, for one), which is accepted too.
        where: names the model.

    Raises:
        ClassNamesError: the names are not the task's, naming both lists; or `id2label` and `label2id` differ.
    """
    count = len(task.labels)
    names, numbered = _by_number(config.get("id2label"), where), _by_name(config.get("label2id"), where)
    if names and numbered and _named(names) and _named(numbered) and names != numbered:
        raise ClassNamesError(
            f"{where}: its config.json contradicts itself: id2label has {', '.join(names)}, label2id "
            f"{', '.join(numbered)}. Correct one of them"
        )
    found = next((each for each in (names, numbered) if each and _named(each)), ())
    if not found:
        return ClassOrder((), tuple(range(count)), task.labels)
    spelled = [_plain(name) for name in found]
    for known in (task.labels, task.spellings):
        wanted = [_plain(label) for label in known]
        if sorted(wanted) == sorted(spelled):
            return ClassOrder(found, tuple(spelled.index(label) for label in wanted), task.labels)
    raise ClassNamesError(
        f"{where} has the classes {', '.join(found)}, and {task.dataset} has {', '.join(task.labels)}: give a "
        "checkpoint that was fine-tuned on this task. If it was, name its classes so in the id2label of its config.json"
    )


def read_class_order(folder: Path, task: GlueTask) -> ClassOrder:
    """The same from a model's folder.

    Raises:
        ClassNamesError: see `class_order`; or config.json cannot be read.
    """
    return class_order(read_raw_config(folder), task, where=str(folder))


def read_raw_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        ClassNamesError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClassNamesError(f"{folder}: its config.json cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ClassNamesError(f"{folder}: its config.json is no JSON object")
    return content


def _by_number(content: Any, where: str) -> tuple[str, ...]:
    """The names of `id2label`, in order."""
    if not content:
        return ()
    try:
        numbered = {int(key): str(name) for key, name in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ClassNamesError(f"{where}: the id2label of its config.json does not map numbers to names") from None
    return _in_order(numbered, where, "id2label")


def _by_name(content: Any, where: str) -> tuple[str, ...]:
    """The names of `label2id`, in the order of their numbers."""
    if not content:
        return ()
    try:
        numbered = {int(number): str(name) for name, number in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise ClassNamesError(f"{where}: the label2id of its config.json does not map names to numbers") from None
    return _in_order(numbered, where, "label2id")


def _in_order(numbered: Mapping[int, str], where: str, field: str) -> tuple[str, ...]:
    if sorted(numbered) != list(range(len(numbered))):
        raise ClassNamesError(f"{where}: the {field} of its config.json does not number its classes from 0")
    return tuple(numbered[number] for number in range(len(numbered)))


def _named(names: Sequence[str]) -> bool:
    return not all(_UNNAMED.fullmatch(name.strip().lower()) for name in names)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())
