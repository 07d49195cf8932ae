"""Code blocks of the README, the guide for contributors and the documentation."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts),
)
TUTORIALS: Final = ("first_study", "own_images", "own_model", "text_task", "mlflow", "records", "cluster")
_BLOCK: Final = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>[^\n`]*)\n(?P<text>.*?)^```", re.M | re.S
)


class Block(NamedTuple):
    """A fenced block.

    Args:
        page: path of the page in the repository.
        kind: language, or a directive in braces.
        text: content.
        reason: why no test runs it, or empty.
    """

    page: str
    kind: str
    text: str
    reason: str

    @property
    def commands(self) -> list[str]:
        """Commands of a console block, without comments, with continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def blocks() -> Iterator[Block]:
    """Return the blocks of all pages."""
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield Block(page.relative_to(ROOT).as_posix(), found["kind"], found["text"], found["reason"] or "")


def commands_of(module: str, *, without: tuple[str, ...] = ()) -> list[list[str]]:
    """Return the arguments of all commands `python -m MODULE` that tests run, each once.

    Args:
        module: name of the module.
        without: folders and pages that have tests of their own.
    """
    found = {
        command: shlex.split(command)[3:]
        for block in blocks()
        if block.kind == "console" and not block.reason and not block.page.startswith(without)
        for command in block.commands
        if command.startswith(f"python -m {module}")
    }
    return list(found.values())
