"""Show a new first study in the README: the output of the command, and the picture of the report.

Usage: `python docs/first_study.py study_results/NAME`, with a complete study of `python -m study.launch --space
adapter_width`. The study prints its result again, and the report is written again, so a new layout needs no new study.
An installed Chromium is needed, as for the tests of MLflow's pages.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1300, 900  # pixels of the picture
COLUMNS: Final = 110  # of the output, so that names stay on one line
# Lines of the output after the table that the README shows; `...` stands for the others.
SHOWN: Final = ("trials ", "records ", "report ")


def printed_result(study: Path) -> str:
    """Return the result that a complete study prints when it is resumed, which trains nothing.

    Args:
        study: folder of the study.

    Raises:
        SystemExit: the command failed, or the study is not complete.
    """
    command = [sys.executable, "-m", "study.launch", "--resume", study.name, "--output-dir", str(study.parent)]
    environment = {**os.environ, "COLUMNS": str(COLUMNS)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)  # noqa: S603
    if done.returncode or "report" not in done.stdout:
        raise SystemExit(f"{' '.join(command)} printed no result:\n{done.stdout}{done.stderr}")
    return done.stdout


def readme_block(result: str, study: Path) -> str:
    """Return the part of a result that the README shows, with paths as in a study of a user.

    Args:
        result: result as printed.
        study: folder of the study.
    """
    lines = result.strip().replace(f"{study.parent}/", "study_results/").splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("mean, "))
    # The time after the number of trials is that of the resumed study.
    shown = [line.partition(";")[0] for line in lines[end + 1 :] if line.startswith(SHOWN)]
    return "\n".join([*(line.rstrip() for line in lines[: end + 1]), "...", *shown])


def take_picture(report: Path) -> None:
    """Write the top of a report as a PNG of 256 colours.

    Args:
        report: HTML file.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for found in map(shutil.which, names) if found), None)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.resolve().as_uri())
        page.wait_for_timeout(2000)  # figures are drawn by JavaScript
        page.screenshot(path=PICTURE)
        browser.close()
    Image.open(PICTURE).convert("RGB").quantize(256).save(PICTURE, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a complete study")
    study: Path = parser.parse_args().study.resolve()
    if not (study / "journal.jsonl").is_file():
        parser.error(f"{study} is not the folder of a study; run python -m study.launch --space adapter_width")
    block = readme_block(printed_result(study), study)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(re.sub(r"(?<=```text\n).*?(?=\n```)", lambda _: block, text, count=1, flags=re.S), "utf-8")
    report = [sys.executable, "-m", "analysis.report", study.name, "--output-dir", str(study.parent)]
    subprocess.run(report, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603, of the caller
    take_picture(study / "report.html")
    print(f"README.md and {PICTURE.relative_to(ROOT)} show {study.name}; check the sentences below the table")


if __name__ == "__main__":
    main()
