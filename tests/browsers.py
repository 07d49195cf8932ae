"""Headless Chromium for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.study.servers import PATIENCE, require


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield an installed Chromium. Without one, the test is skipped, or fails where everything must be installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    require(program, "Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that root in a container lacks. The browser visits only loopback and files.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=PATIENCE * 1000)
        yield browser
        browser.close()
