"""MLflow's pages of a real study: the server started by `make ui`, viewed in a headless Chromium."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.entities import Run
from playwright.sync_api import Browser, BrowserContext, Page, expect

from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan
from study.records import read_trials
from study.tracking.view import NOTE_WIDTH
from tests.browsers import chromium
from tests.study.inspection import runs_of
from tests.study.servers import PATIENCE, free_port, mlflow_server
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
WIDTH, HEIGHT = 1400, 900
TRAINING = "workflowType=machine_learning"
# The data of all plots on the page. Large scatter plots have no element per point, so elements cannot be counted.
DRAWN = (
    "() => [...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.data).map(plot => plot.data)"
    ".map(traces => traces.filter(t => t.x).map(t => [Array.from(t.x), Array.from(t.y)]))"
)


@pytest.fixture(scope="module")
def plan(in_process_study: Path) -> StudyPlan:
    return load_plan(in_process_study)


@pytest.fixture(scope="module")
def runs(plan: StudyPlan) -> tuple[Run, list[Run]]:
    return runs_of(plan)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def ui(browser: Browser, in_process_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the server of `make ui` on the results of a study. The browser comes first, to skip early without one."""
    folder, port = tmp_path_factory.mktemp("ui"), free_port()
    (folder / "study_results").symlink_to(in_process_study.parent)
    # Inside `make test-slow`, this make would otherwise count as a sub-make and print the directory last.
    asked = ["make", "-n", "--no-print-directory", "ui", f"PORT={port}"]
    made = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    program, command, *arguments = made[-1].split()
    assert (Path(program).name, command) == ("mlflow", "ui")
    with mlflow_server(arguments, folder, port=port, command=command) as address:
        yield address


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Yield one context for all tests, so that MLflow's scripts are loaded and compiled once."""
    expect.set_options(timeout=PATIENCE * 1000)
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(PATIENCE * 1000)
    # Every page is a first visit: MLflow stores the state of its pages here. The assistant of a first visit would cover
    # a third of the page.
    context.add_init_script(
        "localStorage.clear(); localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
    )
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    yield context.new_page()
    for page in context.pages:
        page.close()


def test_the_experiment_shows_its_question_and_the_study_as_a_row(page, ui, plan, runs):
    page.goto(f"{ui}/#/experiments/{runs[0].info.experiment_id}/runs?{TRAINING}")
    expect(page.get_by_text(plan.search_space.question).first).to_be_visible()
    expect(page.get_by_role("link", name=plan.name, exact=True)).to_be_visible()


def test_the_experiments_note_leads_to_a_row_per_repeated_config_with_its_interval(page, ui, plan, runs):
    page.goto(f"{ui}/#/experiments/{runs[0].info.experiment_id}/runs?{TRAINING}")
    link = page.get_by_role("link", name="configs", exact=True)
    expect(link).to_be_in_viewport()  # not folded away, as the rest of the note is
    with page.context.expect_page() as opened:
        link.click()
    configs = opened.value
    repeated = [run for run in runs[1] if run.data.tags["stage"] != "search"]
    expect(configs.get_by_text(f"{len(repeated)} matching runs")).to_be_visible()
    for group in {run.data.tags["group"] for run in repeated}:
        expect(configs.get_by_text(f"Group: {group}")).to_be_visible()
    expect(configs.locator("[role=columnheader][col-id='metrics.`val/accuracy_low`']")).to_be_in_viewport()


def test_the_studys_page_shows_its_note_with_table_and_figures_beside_the_facts(page, ui, plan, runs):
    open_note(page, ui, runs[0])
    expect(page.get_by_text(plan.search_space.question).first).to_be_visible()
    expect(page.get_by_role("columnheader", name="accuracy − kd")).to_be_visible()
    figures = page.locator("img[src*='get-artifact']")
    expect(figures).to_have_count(4)
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete", arg=figure.element_handle())
        assert 300 < figure.evaluate("image => image.naturalWidth") <= NOTE_WIDTH
    # Nothing in the note is wider than the note's column, so MLflow's column of facts is still visible.
    facts = page.get_by_text("Registered prompts").bounding_box()
    assert facts is not None
    assert NOTE_WIDTH < facts["x"] < facts["x"] + facts["width"] < WIDTH


def test_the_notes_link_leads_to_charts_of_all_trials_that_start_with_gap_against_accuracy(
    page, ui, runs, in_process_study
):
    open_note(page, ui, runs[0])
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Compare the trials in charts").click()
    charts = opened.value
    expect(charts.get_by_text(f"{SHARPNESS_GAP} vs. {ACCURACY}")).to_be_visible()
    expect(charts.get_by_text(f"{len(runs[1])} matching runs")).to_be_visible()
    charts.wait_for_function(plot_shows(len(runs[1])))
    first = charts.evaluate(DRAWN)[0]
    assert points(first) == recorded(in_process_study)


def test_the_address_that_a_study_ends_with_opens_its_trials(page, ui, plan, runs, in_process_study):
    address = json.loads((in_process_study / "summary.json").read_text())["runs"]
    page.goto(address.replace("http://127.0.0.1:5000", ui))
    expect(page.get_by_text(f"{len(runs[1])} matching runs")).to_be_visible()
    expect(page.get_by_role("link", name=runs[1][0].info.run_name, exact=True)).to_be_visible()
    expect(page.get_by_text("No data available")).to_have_count(0)


def test_trials_compared_in_the_scatter_view_are_those_of_the_records(page, ui, runs, in_process_study):
    parent, children = runs
    ids, experiments = ([run.info.run_id for run in children], [parent.info.experiment_id])
    page.goto(f"{ui}/#/compare-runs?runs={listed(ids)}&experiments={listed(experiments)}&{TRAINING}")
    expect(page.get_by_text(f"Comparing {len(ids)} Runs from 1 Experiment")).to_be_visible()
    page.get_by_role("tab", name="Scatter Plot").click()
    for axis, measure in (("x", SHARPNESS_GAP), ("y", ACCURACY)):
        page.locator(f"#{axis}-axis-selector").click()
        page.get_by_role("option", name=measure, exact=True).click()
        expect(page.locator(f"#{axis}-axis-selector")).to_have_text(measure)
    page.wait_for_function(plot_shows(len(ids)))
    assert recorded(in_process_study) in [points(traces) for traces in page.evaluate(DRAWN)]


def open_note(page: Page, ui: str, study: Run) -> None:
    page.goto(f"{ui}/#/experiments/{study.info.experiment_id}/runs/{study.info.run_id}?{TRAINING}")
    page.get_by_text("Show more", exact=True).first.click()


def plot_shows(count: int) -> str:
    """Return a JavaScript expression: whether a plot on the page shows `count` points."""
    return f"({DRAWN})().some(traces => traces.flatMap(t => t[0]).length === {count})"


def listed(values: list[str]) -> str:
    return quote(json.dumps(values))


def points(traces: list[list[list[float]]]) -> list[tuple[float, float]]:
    return sorted((float(x), float(y)) for xs, ys in traces for x, y in zip(xs, ys, strict=True))


def recorded(directory: Path) -> list[tuple[float, float]]:
    return sorted((row[SHARPNESS_GAP], row[ACCURACY]) for row in read_trials(directory).to_pylist())
