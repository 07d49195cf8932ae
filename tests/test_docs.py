"""What the documents promise is held to the tests that they name."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "test_" in line
]


def test_every_fault_of_the_reliability_table_names_tests_that_exist():
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert len(ROWS) > 40
    for fault, injected, survived, lost, duplicated, tests in ROWS:
        assert all((fault, injected, survived, lost, duplicated))
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, fault
        assert set(named) <= known, fault
