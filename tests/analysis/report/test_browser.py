"""The page in a real browser, if installed: figures are drawn under the page's security policy without errors."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis.reading.trials import EXAMPLE
from analysis.report.writing import write_report


@pytest.mark.slow
def test_every_figure_is_drawn_and_the_policy_refuses_nothing_of_ours(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    page = write_report(EXAMPLE, tmp_path / "page.html")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    figures = re.findall(r"<figure[^>]*>", done.stdout)
    assert len(figures) == 5
    assert all('class="live"' in figure for figure in figures)
    assert done.stdout.count('class="main-svg"') >= 5  # the learning curves are two plots
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
