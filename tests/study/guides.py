"""Guides in docs/ whose commands are tried."""

import re
from collections.abc import Callable
from pathlib import Path

from study.launch import main as launch_main
from tests.conftest import Said
from trainables.teacher.command import main as teacher_main

DOCS = Path(__file__).parents[2] / "docs" / "how_to"
_MAINS = {"study.launch": launch_main, "trainables.teacher": teacher_main}


def blocks_of(guide: str, kind: str) -> list[str]:
    """Return the blocks of one kind, such as `python`, in a guide."""
    text = (DOCS / guide).read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)


def planned_by(guide: str, command: Callable[..., Said], folder: Path) -> list[str]:
    """Return what each command of a guide's first console block prints as a dry run, and check that it succeeds."""
    shown = []
    for line in blocks_of(guide, "console")[0].splitlines():
        words = line.split()[2:]
        done = command(_MAINS[words[0]], *words[1:], "--dry-run", "--output-dir", folder)
        assert done.code == 0, done.said
        shown.append(done.said)
    return shown
