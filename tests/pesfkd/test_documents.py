"""The blocks of docs/python.md and the examples of docstrings run."""

import doctest
import re
from pathlib import Path

import pytest

import pesfkd
from pesfkd import handle, interface, messages, teachers

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.study
def test_the_blocks_of_the_document_run_in_their_order(tmp_path, monkeypatch, tables_made_once):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) >= 7
    names: dict[str, object] = {}
    with tables_made_once():
        for block in BLOCKS:
            exec(block, names)
    assert names["study"].complete
    assert (tmp_path / "student.pt2").is_file()
    assert names["study"].best.chosen_by == "confirmation"


@pytest.mark.parametrize("module", [handle, interface, messages, teachers])
def test_the_examples_of_docstrings_run(module):
    found = doctest.testmod(module, extraglobs={"pesfkd": pesfkd}, optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed
