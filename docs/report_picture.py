"""Take the picture of a report for the README.

Usage: `python docs/report_picture.py study_results/NAME docs/images/report.png`.

An installed Chromium is needed, as for the tests of MLflow's pages.
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


def take_picture(report: Path, picture: Path, *, width: int, height: int) -> None:
    """Write the top of a report as a PNG of 256 colours.

    Args:
        report: HTML file.
        picture: output file.
        width: width of the browser window in pixels.
        height: height of the picture in pixels.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for found in map(shutil.which, names) if found), None)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(report.resolve().as_uri())
        page.wait_for_timeout(2000)  # figures are drawn by JavaScript
        page.screenshot(path=picture)
        browser.close()
    Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="folder of a study with report.html")
    parser.add_argument("picture", type=Path, help="PNG file to write")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900)
    given = parser.parse_args()
    take_picture(given.study / "report.html", given.picture, width=given.width, height=given.height)


if __name__ == "__main__":
    main()
