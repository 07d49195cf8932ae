"""Page: numbers equal the records, nothing is loaded from elsewhere, and user text is never interpreted as markup."""

import json
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from analysis.questions.importance import MIN_CONFIGS
from analysis.reading.trials import (
    EXAMPLE,
    SEARCH,
    SHARPNESS_GAP,
    compare_methods,
    numbers,
    open_study,
    select,
    summarise_configs,
    trial_scores,
)
from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.report.page import page
from analysis.report.writing import write_report
from tests.analysis.planted import measured, records
from tests.analysis.report.studies import PLAN, SUMMARY, Page, write_study
from tests.analysis.synthetic import epochs_table, trial, trials_table, whole_study

pytestmark = pytest.mark.study

EXAMPLES = sorted(path for path in EXAMPLE.parent.iterdir() if path.is_dir())
METHODS = EXAMPLE.with_name("fashion-method")
IMPOSED = EXAMPLE.with_name("fashion-gap")
SEARCHES = [example for example in EXAMPLES if not json.loads((example / "plan.json").read_text()).get("compared")]
MOST_BYTES = 8 * 2**20
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\'"&{{ 7*7 }}$x^2'


@cache  # safe because no test changes a folder after the page was made
def page_of(directory: Path) -> str:
    return page(make_report(read_folder(directory)))


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of a study with a search, stopped and failed trials, repetitions, a plan and a summary."""
    trials, epochs = whole_study()
    failed = trial(99, status="failed", epochs=0, name="w7-T4.0-s0", error="the loss is nan", adapter_width=7)
    trials = trials_table([*trials.to_pylist(), failed])
    folder = tmp_path_factory.mktemp("studies") / "s"
    return page_of(write_study(folder, trials, epochs, plan=PLAN, summary=SUMMARY))


@pytest.mark.parametrize("example", SEARCHES, ids=lambda path: path.name)
def test_the_tables_hold_the_means_of_the_shipped_records(example: Path) -> None:
    shown = Page(page_of(example))
    configs = summarise_configs(open_study(example).trials)
    assert configs
    for config in configs:
        named = f"{config.method} (control)" if config.stage == "control" else config.name
        n, value = str(config.accuracy.n), f"{config.accuracy.value:.3f}"
        cells = next(row for row in shown.rows if row[0] == named and n in row and any(value in cell for cell in row))
        interval = f" [{config.accuracy.low:.3f}, {config.accuracy.high:.3f}]" if config.accuracy.n > 1 else ""
        assert f"{config.accuracy.value:.3f}{interval}" in cells
        if config.against_baseline is not None:
            assert any(cell.startswith(f"{config.against_baseline.value:+.3f}".replace("-", "−")) for cell in cells)


def test_a_confirmed_comparison_is_shown_by_its_test_accuracy() -> None:
    shown = Page(page_of(METHODS))
    confirmed = compare_methods(open_study(METHODS).trials, confirmed=True)
    assert len(confirmed) == 26
    for each in confirmed:
        test = f"{each.accuracy.value:.3f} [{each.accuracy.low:.3f}, {each.accuracy.high:.3f}]"
        assert any(row[0] == each.method and test.replace("-", "−") in row for row in shown.rows)
    for key in ("methods", "cost"):
        layout = shown.charts[key][0]["layout"]
        assert "test accuracy" in str(layout)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_figures_hold_the_shipped_records_and_plotly_knows_all_of_them(example: Path) -> None:
    text = page_of(example)
    shown = Page(text)
    if example in SEARCHES and example != IMPOSED:
        searched = select(open_study(example).trials, stages=[SEARCH])
        points = next(trace for trace in shown.charts["gap"][0]["data"] if trace.get("name") == "search trial")
        np.testing.assert_array_equal(points["x"], numbers(searched, SHARPNESS_GAP))
        np.testing.assert_array_equal(points["y"], trial_scores(searched))
    for charts in shown.charts.values():
        for chart in charts:
            go.Figure(chart)  # refuses what plotly.js would ignore
    assert len(text.encode()) < MOST_BYTES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_its_plan_its_versions_and_the_command_to_run_it_again_but_no_place_to_go_on(
    example: Path,
) -> None:
    shown, plan = Page(page_of(example)), json.loads((example / "plan.json").read_text())
    assert f"--space {plan['space']} " in shown.said["again"]
    assert f"--dataset {plan['base']['dataset']}" in shown.said["again"]
    assert "2.15.0" in shown.said["again"]
    assert "study.confirm" not in shown.said["again"]  # the shipped study has no journal
    assert plan["base"]["student"] in shown.said["plan"]
    assert ("importance" in shown.charts) == (plan["trials"] >= MIN_CONFIGS and not plan.get("compared"))


def test_records_without_plan_and_summary_say_so_and_judge_no_range(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "records", tmp_path / "s" / "records")
    shown = Page(page_of(tmp_path / "s"))
    assert shown.sections == [
        "answer",
        "results",
        "gap",
        "slices",
        "further",
        "power",
        "associations",
        "curves",
        "calibration",
        "search",
        "plan",
    ]
    assert "no summary.json with the search bounds" in shown.said["search"]
    assert "importance" not in shown.charts


def test_a_whole_study_has_all_that_it_has_records_of(whole_page: str) -> None:
    shown = Page(whole_page)
    expected = [
        "answer",
        "warnings",
        "results",
        "gap",
        "slices",
        "further",
        "power",
        "associations",
        "curves",
        "search",
        "ended",
        "plan",
        "again",
    ]
    assert shown.sections == expected
    assert set(shown.charts) == {"gap", "slice-adapter_width", "curves", "history", "importance", "parallel"}
    assert "Which width?" in shown.said[""]
    assert "the loss is nan" in shown.said["ended"]
    assert "4 stopped early and 1 failed" in shown.said["ended"]
    assert "1 trial failed" in shown.said["warnings"]
    assert "python -m study.launch --resume s" in shown.said["warnings"]
    assert SUMMARY["command"] in shown.said["again"]
    assert "2.15.0" in shown.said["again"]
    assert "study.confirm s" in shown.said["again"]
    assert "Means are over fresh seeds." in shown.said["further"]
    assert "tpe" in shown.said["plan"]
    assert shown.row("w")[-1]  # the score in the search


def test_every_figure_has_a_still_one_that_says_in_words_what_it_shows(whole_page: str) -> None:
    shown = Page(whole_page)
    stills = [own for tag, own in shown.elements if tag == "img"]
    assert len(stills) == len(shown.charts)
    for own in stills:
        assert str(own["src"]).startswith("data:image/svg+xml;base64,")
        assert "n = " in str(own["alt"]) or "searched configs" in str(own["alt"])


def test_a_study_without_a_trial_says_what_there_is(tmp_path: Path) -> None:
    nothing = write_study(tmp_path / "s", trials_table([]), epochs_table([]), plan=PLAN)
    shown = Page(page_of(nothing))
    assert shown.sections == ["answer", "warnings", "plan"]
    assert "No trial has finished" in shown.said["answer"]
    assert not shown.charts
    assert not any(tag == "script" for tag, _ in shown.elements)


def test_a_study_of_failures_alone_tells_of_them(tmp_path: Path) -> None:
    rows = [trial(number, status="failed", epochs=0, error=f"mistake {number}") for number in range(50)]
    shown = Page(page_of(write_study(tmp_path / "s", trials_table(rows), epochs_table([]), plan=PLAN)))
    assert shown.sections == ["answer", "warnings", "search", "ended", "plan"]
    assert "mistake 7" in shown.said["ended"]
    assert "10 more are in records/." in shown.said["ended"]


def test_an_imposed_gap_has_its_curve_and_is_what_the_answer_tells_of(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for control, effect in (("centred", -0.1), ("placebo", 0.0)):
        for target in generator.uniform(0, 2, 12):
            accuracy = 0.8 + effect * target + 0.005 * generator.normal()
            varied = {"gap_control": control, "gap_target": target, "config_id": f"{control}{target}"}
            rows.append(trial(len(rows), **varied, **measured(target, accuracy), epochs=2, epochs_planned=2))
    study = records(rows)
    shown = Page(page_of(write_study(tmp_path / "s", study.trials, study.epochs, plan=PLAN, summary=SUMMARY)))
    assert len(shown.charts["imposed"]) == 2
    assert not any(key.startswith("slice-gap") for key in shown.charts)
    assert "A smaller imposed gap made a better student" in shown.said["answer"]
    assert "placebo" in shown.said["gap"]
    assert "gap" not in shown.charts
    assert "associations" not in shown.sections


def test_the_gap_of_all_arms_together_is_set_against_nothing_and_why_is_said() -> None:
    shown = Page(page_of(IMPOSED))
    assert set(shown.charts) & {"gap", "imposed"} == {"imposed"}
    assert "associations" not in shown.sections
    assert "The observed gap is not correlated with accuracy over all trials" in shown.said["gap"]
    assert "rank correlation" not in shown.said["gap"]
    assert "An imposed gap has no clear effect" in shown.said["answer"]


def test_a_gap_that_one_arm_imposed_on_all_is_watched_as_any_other(tmp_path: Path) -> None:
    rows = [
        trial(
            n, gap_control="centred", gap_target=n / 10, **measured(n / 10, 0.8 - n / 100), epochs=1, epochs_planned=1
        )
        for n in range(10)
    ]
    study = records(rows)
    shown = Page(page_of(write_study(tmp_path / "s", study.trials, study.epochs, plan=PLAN, summary=SUMMARY)))
    assert {"gap", "imposed"} <= set(shown.charts)
    assert "is not correlated with" not in shown.said["gap"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_numbers_below_zero_have_one_minus_and_nothing_in_the_plan_is_said_with_nothing(example: Path) -> None:
    shown = Page(page_of(example))
    words = "".join(said for key, said in shown.said.items() if key != "again")
    assert re.findall(r"(?<=[\s\[(])-[\d.]+", words) == []
    assert re.search(r"(?<=[\s\[(])−\d", words)
    assert not re.search(r"teacher normalisation\s*,", shown.said["plan"])
    # Screen readers read alternative texts aloud. The captions have the same text.
    assert all("-0." not in str(own["alt"]) for tag, own in shown.elements if tag == "img")


def test_a_list_of_the_plan_without_anything_in_it_is_left_out(tmp_path: Path) -> None:
    plan = PLAN | {"nothing": [[], []], "something": [[], [0.5, 1.0], "", 0]}
    shown = Page(page_of(write_study(tmp_path / "s", trials_table([]), epochs_table([]), plan=plan)))
    assert "nothing" not in shown.said["plan"]
    assert "0.5, 1.0, 0" in shown.said["plan"]


def test_methods_that_are_compared_are_a_table_with_corrected_p_values_and_a_figure(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    means = {"ce": 0.6, "dkd": 0.9, "kd": 0.7}
    rows = []
    for method, mean in means.items():
        for replicate in range(1, 9):
            own = {"stage": "control", "method": method, "config_id": method, "replicate": replicate}
            rows.append(trial(len(rows), **own, **{"val/accuracy": mean + 0.01 * generator.normal()}))
    plan = PLAN | {"space": "method", "compared": [{"name": name, "fields": {}} for name in means]}
    folder = write_study(tmp_path / "s", trials_table(rows), epochs_table([]), plan=plan, summary=SUMMARY)
    shown = Page(page_of(folder))
    assert "methods" in shown.charts
    assert "search" not in shown.sections
    assert ["method", "n", "val accuracy", "accuracy − kd, paired", "p", "p (Holm)"] in shown.rows
    assert [row[0] for row in shown.rows if row[0] in means][:3] == ["dkd", "kd", "ce"]
    assert "dkd is better than kd; of 2 other methods, 1 is worse than kd (ce)" in shown.said["answer"]


def test_what_calibration_was_recorded_is_shown_and_what_it_lacks_is_said() -> None:
    shown = Page(page_of(EXAMPLE))
    assert "no predictions for reliability diagrams" in shown.said["calibration"]
    assert any("calibration error, student" in row for row in shown.rows)


def test_reliability_diagrams_are_drawn_of_controls_and_the_best_config_pooled_over_seeds(tmp_path: Path) -> None:
    trials, epochs = whole_study()
    rows = trials.to_pylist()
    bins = [{"count": 24, "confidence": 24 * (place + 0.5) / 15, "correct": place} for place in range(15)]
    sure = [{**each, "correct": 24} for each in bins]
    for row in rows:
        row["val/ece_student"] = 0.1
        row["calibration/val_student"] = sure if row["method"] == "pesf_kd" else bins
        row["calibration/val_teacher"] = bins
        row["calibration/val_adapted"] = bins if row["method"] == "pesf_kd" else None
    folder = write_study(tmp_path / "s", trials_table(rows), epochs, plan=PLAN, summary=SUMMARY)
    shown = Page(page_of(folder))
    panels = shown.charts["reliability-validation"]
    titles = [chart["layout"]["xaxis"]["title"]["text"] for chart in panels]
    assert titles == [f"confidence of the {network}" for network in ("teacher", "adapted teacher", "student")]
    drawn = [{trace["name"]: trace for trace in chart["data"][1:]} for chart in panels]
    assert [set(each) for each in drawn] == [{"teacher"}, {"pesf_kd"}, {"ce", "kd", "pesf_kd"}]
    np.testing.assert_allclose(drawn[2]["kd"]["y"], np.arange(15) / 24)
    np.testing.assert_allclose(drawn[2]["kd"]["x"], (np.arange(15) + 0.5) / 15)
    assert set(drawn[2]["pesf_kd"]["y"]) == {1.0}
    assert "kd n = 5" in shown.said["calibration"]
    assert "360 images each" in shown.said["calibration"]
    assert "earlier version" not in shown.said["calibration"]
    for chart in panels:
        go.Figure(chart)


@pytest.mark.parametrize("example", EXAMPLES[:1], ids=lambda path: path.name)
def test_the_page_asks_the_network_for_nothing(example: Path, whole_page: str) -> None:
    for text in (page_of(example), whole_page):
        shown = Page(text)
        for tag, own in shown.elements:
            for name in ("src", "href", "action", "data", "srcset", "poster"):
                assert str(own.get(name) or "#").startswith(("#", "data:")), (tag, own)
            assert tag not in ("iframe", "object", "embed", "base", "form")
        (policy,) = [
            own["content"] for tag, own in shown.elements if own.get("http-equiv") == "Content-Security-Policy"
        ]
        assert str(policy).startswith("default-src 'none'; img-src data:;")
        assert "http" not in str(policy)
        (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
        assert "url(" not in style
        assert "@import" not in style


def test_plotlys_code_is_in_the_page_once(whole_page: str) -> None:
    shown = Page(whole_page)
    running = [own for tag, own in shown.elements if tag == "script" and own.get("type") != "application/json"]
    assert len(running) == 2
    assert len(re.findall(r"plotly\.js v\d", whole_page)) == 1
    assert len(whole_page.encode()) < MOST_BYTES


def test_nothing_that_comes_from_a_study_is_markup(tmp_path: Path) -> None:
    trials, epochs = whole_study()
    rows = [row | {"name": f"{HOSTILE}-s{row['replicate']}", "space": HOSTILE} for row in trials.to_pylist()]
    rows = [row | {"method": HOSTILE} if row["method"] == "pesf_kd" else row for row in rows]
    rows.append(trial(99, status="failed", epochs=0, error=HOSTILE, name=HOSTILE, method=HOSTILE))
    plan = PLAN | {"name": HOSTILE, "space": HOSTILE, HOSTILE: HOSTILE}
    told = {"question": HOSTILE, "notes": [HOSTILE], "command": HOSTILE, "ui": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    folder = write_study(tmp_path / "s", trials_table(rows), epochs, plan=plan, summary=SUMMARY | told)
    text = page_of(folder)
    shown = Page(text)
    assert HOSTILE in shown.said["ended"]
    assert HOSTILE in shown.said["again"]
    running = [own for tag, own in shown.elements if tag == "script" and own.get("type") != "application/json"]
    assert len(running) == 2
    assert all(str(own["src"]).startswith("data:") for tag, own in shown.elements if tag == "img")
    assert not any(name.startswith("on") for _, own in shown.elements for name in own)
    assert "alert(1)</script>" not in text
    for charts in shown.charts.values():
        assert "<script" not in str(charts)
        assert "<img" not in str(charts)


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    written = write_report(EXAMPLE, tmp_path / "page.html")
    assert written.read_text(encoding="utf-8") == page_of(EXAMPLE)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
