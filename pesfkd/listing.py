"""Studies in an output folder, read from the study files only."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from study.plan.folder import PLAN_FILE
from trainables.process.errors import UsageError


def list_studies(output_dir: Path) -> list[dict[str, Any]]:
    """Return facts about every study in an output folder, oldest first.

    Args:
        output_dir: studies folder.

    Returns:
        For each study: `name`, `space`, `dataset`, `method`, `trials` (ended trials), `planned`, `complete`, `score`
            (of the best config), and `directory`. A fact is None before a run has ended.

    Raises:
        UsageError: the folder does not exist.
    """
    if not output_dir.is_dir():
        raise UsageError(f"--output-dir {output_dir}: there is no such folder")
    plans = sorted(output_dir.glob(f"*/{PLAN_FILE}"), key=lambda path: (path.stat().st_mtime, path))
    return [_facts(path.parent) for path in plans]


def _facts(directory: Path) -> dict[str, Any]:
    plan, summary = _read(directory / PLAN_FILE), _read(directory / "summary.json")
    trials, base = summary.get("trials") or {}, plan.get("base") or {}
    ended = [trials.get(status) for status in ("finished", "pruned", "failed")]
    return {
        "name": directory.name,
        "space": plan.get("space"),
        "dataset": base.get("dataset"),
        "method": None if plan.get("compared") else base.get("method"),
        "trials": sum(filter(None, ended)) if trials else None,
        "planned": trials.get("planned"),
        "complete": summary.get("complete"),
        "score": (summary.get("best") or {}).get("score"),
        "directory": str(directory),
    }


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}
