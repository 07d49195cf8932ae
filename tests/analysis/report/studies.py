"""Folders of simulated studies, and a parser of report pages."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.analysis.synthetic import write_records

WIDTH = {"name": "adapter_width", "role": "scientific", "low": 2, "high": 256, "choices": [], "log": True}
RATE = {
    "name": "adapter_learning_rate", "role": "nuisance", "low": 0.0005, "high": 0.5, "choices": [], "log": True
}  # fmt: skip
PLAN: dict[str, Any] = {
    "name": "s", "space": "adapter_width", "seed": 0, "compared": [], "sampler": "tpe",
    "base": {"dataset": "digits", "student": "cnn_3_4", "teacher": "cnn_32_64", "epochs": 15},
}  # fmt: skip
SUMMARY: dict[str, Any] = {
    "question": "Which width?", "complete": True, "trials": {"planned": 49}, "seconds": 93.0, "plan_digest": "0a1b",
    "searched": [WIDTH, RATE], "notes": ["Means are over fresh seeds."], "ui": "mlflow ui --port 1",
    "command": "python -m study.launch --space adapter_width --seed 0", "versions": {"version.torch": "2.15.0"},
}  # fmt: skip


def write_study(
    directory: Path, trials: pa.Table, epochs: pa.Table, *, plan: dict | None = None, summary: dict | None = None
) -> Path:
    """Write the folder of a study with these records and, if given, plan and summary."""
    write_records(directory, trials, epochs)
    for name, content in (("plan", plan), ("summary", summary)):
        if content is not None:
            (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
            (directory / "journal.jsonl").touch()
    return directory


class Page(HTMLParser):
    """Parsed report page.

    Args:
        text: HTML.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: list[str] = []
        self.charts: dict[str, list[dict[str, Any]]] = {}
        self.rows: list[list[str]] = []
        self.said: dict[str, str] = {"": ""}
        self._open: list[str] = []
        self._figure = self._section = ""
        self._is_data = False
        self.feed(text.replace("\u00a0", " "))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.elements.append((tag, own))
        if tag == "wbr":  # place where a name may be broken; has no end
            return
        if tag == "section":
            self._section = str(own["id"])
            self.sections.append(self._section)
            self.said[self._section] = ""
        if tag == "figure":
            self._figure = str(own["id"]).removeprefix("figure-")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._is_data = tag == "script" and own.get("type") == "application/json"
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._is_data and self._open[-1] == "script":
            self.charts[self._figure] = json.loads(data)
        elif self._open and self._open[-1] not in ("script", "style"):
            self.said[self._section] += data
            if self._open[-1] in ("td", "th"):
                self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """Visible text of the page."""
        return "".join(self.said.values())

    def row(self, name: str) -> list[str]:
        """Return the first table row with a first cell that begins with `name`."""
        return next(row for row in self.rows if row[0].startswith(name))
