"""Report in a real browser: verdict first, collapsed sections, figures, sorting, dark mode, phone and paper."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from analysis.reading.trials import EXAMPLE
from analysis.report.writing import write_report
from tests.analysis.report.studies import PLAN, SUMMARY, write_study
from tests.analysis.synthetic import whole_study
from tests.browsers import chromium

pytestmark = pytest.mark.slow
SCREEN = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}
MOST_SCREENS = 3
READABLE = 4.5  # contrast of text and background that WCAG 2.2 asks for
# The contrast of two colours of the form rgb(r, g, b), by WCAG 2.2.
CONTRAST = """([one, other]) => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of a shipped study."""
    return write_report(EXAMPLE, tmp_path_factory.mktemp("example") / "page.html")


@pytest.fixture(scope="module")
def with_front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of a simulated study with two objectives and a front of twelve configs."""
    trials, epochs = whole_study()
    rows = []
    for number in range(24):
        values = {"val/accuracy": 0.6 + 0.01 * number, "latency": 0.001 + 1e-4 * number}
        rows.append({
            "config_id": f"config{number}", "label": f"w{number}-T4.0-s0", "fields": {}, "values": values,
            "is_within_limits": True, "is_on_front": number % 2 == 0, "fresh": {}, "confirmed": {},
            "is_on_confirmed_front": None,
        })  # fmt: skip
    objectives = [{"name": name} for name in ("val/accuracy", "latency")]
    pareto = {
        "objectives": objectives,
        "limits": [],
        "configs": rows,
        "quantities": [each["name"] for each in objectives],
    }
    folder = tmp_path_factory.mktemp("front") / "s"
    return write_report(write_study(folder, trials, epochs, plan=PLAN, summary=SUMMARY | {"pareto": pareto}))


def opened(browser: Browser, path: Path, messages: list[str] | None = None, **context: Any) -> Page:
    """Open a report, and append all messages of the console."""
    page = browser.new_context(**{"viewport": SCREEN, **context}).new_page()
    if messages is not None:
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("which", ["example", "with_front"])
def test_verdict_and_best_config_are_first_and_more_begins_within_three_screens(
    browser: Browser, which: str, request: pytest.FixtureRequest
) -> None:
    page = opened(browser, request.getfixturevalue(which))
    page.wait_for_function("document.querySelectorAll('figure.live .main-svg').length > 0")
    assert page.locator("main > section").first.get_attribute("id") == "answer"
    assert page.locator("#answer .headline").inner_text()
    end = page.locator("#answer .copy code").bounding_box()
    assert end is not None
    assert end["y"] + end["height"] < SCREEN["height"]
    folded = page.locator("main > section > details").first.bounding_box()
    assert folded is not None
    assert folded["y"] < MOST_SCREENS * SCREEN["height"]
    page.context.close()


def test_every_figure_is_drawn_when_its_section_opens_and_the_policy_refuses_nothing_of_ours(
    browser: Browser, example: Path
) -> None:
    messages: list[str] = []
    page = opened(browser, example, messages)
    figures, live = page.locator("figure"), page.locator("figure.live")
    assert set(re.findall(r'id="figure-([^"]+)"', example.read_text(encoding="utf-8"))) >= {"gap", "curves", "history"}
    expect(live).to_have_count(page.locator("main > section > figure, main > section > .figures > figure").count())
    assert live.count() < figures.count()
    page.locator("nav a[href='#curves']").click()
    expect(page.locator("#curves > details")).to_have_attribute("open", "")
    expect(page.locator("#figure-curves.live .main-svg").first).to_be_visible()
    page.evaluate("document.querySelectorAll('main details').forEach(each => (each.open = true))")
    expect(live).to_have_count(figures.count())
    for figure in figures.all():
        expect(figure.locator(".main-svg").first).to_be_visible()
        expect(figure.locator(".still")).to_be_hidden()
    assert messages == []
    page.context.close()


def test_the_contents_lead_to_every_section(browser: Browser, example: Path) -> None:
    page = opened(browser, example)
    links = page.locator("nav a").evaluate_all("all => all.map(each => each.hash.slice(1))")
    sections = page.locator("main > section").evaluate_all("all => all.map(each => each.id)")
    assert links == [each for each in sections if each not in ("answer", "warnings")]
    page.context.close()


def test_a_table_is_sorted_by_the_column_of_a_clicked_head(browser: Browser, example: Path) -> None:
    page = opened(browser, example)
    table = page.locator("#results table").first
    head = table.locator("thead th", has_text="accuracy").first
    place = head.evaluate("each => each.cellIndex")
    cells = table.locator(f"tbody tr > :nth-child({place + 1})")
    for direction in ("descending", "ascending"):
        head.locator("button").click()
        expect(head).to_have_attribute("aria-sort", direction)
        values = [float(text.split()[0].replace("−", "-")) for text in cells.all_inner_texts()]
        assert values == sorted(values, reverse=direction == "descending")
        assert len(set(values)) > 2
    page.context.close()


def test_dark_mode_has_readable_text_and_figures(browser: Browser, example: Path) -> None:
    page = opened(browser, example, color_scheme="dark")
    background = page.locator("body").evaluate("each => getComputedStyle(each).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background))) < 64
    expect(page.locator("figure.live .main-svg").first).to_be_visible()
    texts = ("h1", "#results td", "#answer .said", ".basis", "figcaption", "nav a", ".facts", "#warnings li")
    for text in texts:
        colour = page.locator(text).first.evaluate("each => getComputedStyle(each).color")
        assert page.evaluate(CONTRAST, [colour, background]) >= READABLE, text
    drawn = page.locator("figure.live .xtick text").first.evaluate("each => getComputedStyle(each).fill")
    assert page.evaluate(CONTRAST, [drawn, background]) >= READABLE
    page.context.close()


@pytest.mark.parametrize("which", ["example", "with_front"])
def test_a_phone_shows_all_of_the_page_without_scrolling_sideways(
    browser: Browser, which: str, request: pytest.FixtureRequest
) -> None:
    page = opened(browser, request.getfixturevalue(which), viewport=PHONE, is_mobile=True, has_touch=True)
    page.evaluate("document.querySelectorAll('main details').forEach(each => (each.open = true))")
    figures = page.locator("figure")
    expect(page.locator("figure.live")).to_have_count(figures.count())
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.context.close()


def test_paper_has_all_sections_open_with_still_figures(browser: Browser, example: Path) -> None:
    page = opened(browser, example)
    assert len(page.pdf(format="A4")) > 100_000  # also sends the events before and after printing
    assert page.locator("main > section > details[open]").count() == 0
    page.emulate_media(media="print")
    for figure in page.locator("figure").all():
        expect(figure.locator(".still")).to_be_visible()
        expect(figure.locator(".charts")).to_be_hidden()
    expect(page.locator("nav")).to_be_hidden()
    shown = "e => [getComputedStyle(e).display, e.textContent.trim().length > 0]"
    heads = page.evaluate(f"[...document.querySelectorAll('thead .printed')].map({shown})")
    buttons = page.evaluate(f"[...document.querySelectorAll('thead button')].map({shown})")
    assert len(heads) == len(buttons) > 10
    assert {tuple(each) for each in heads} == {("inline", True)}
    assert {tuple(each) for each in buttons} == {("none", True)}  # Chromium repeats no buttons on the next page
    page.context.close()
