"""The documents name the tests of their claims. These tests check that the named tests exist."""

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


STATISTICS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "tests.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "`test_" in line
]


def test_every_statistic_names_its_module_and_simulations_that_exist():
    sources = {
        name: text
        for path in (ROOT / "tests" / "analysis").rglob("test_*.py")
        for text in [path.read_text(encoding="utf-8")]
        for name in re.findall(r"^def (test_\w+)\(", text, flags=re.MULTILINE)
    }
    assert len(STATISTICS) > 25
    for statistic, shown, module, tests in STATISTICS:
        assert shown
        assert (ROOT / "analysis" / module.strip("`")).is_file(), statistic
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, statistic
        assert set(named) <= sources.keys(), statistic
        assert all("default_rng" in sources[name] for name in named), statistic


def test_every_module_with_statistics_is_in_the_table():
    listed = {module.strip("`") for _, _, module, _ in STATISTICS}
    statistics = {
        path.relative_to(ROOT / "analysis").as_posix() for path in (ROOT / "analysis" / "statistics").glob("*.py")
    }
    # Other statistics use correlation and the quantiles of distributions. `ranks` has the interval of correlations.
    helpers = {"statistics/__init__.py", "statistics/correlation.py", "statistics/distributions.py"}
    assert statistics - listed == helpers
