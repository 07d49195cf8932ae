"""Curves, calibration and costs of a confirmed study use the confirmed trials, and the report states this."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from analysis.reading.trials import CONFIRM, EXAMPLES, numbers, open_study, select
from analysis.report.content import make_report
from analysis.report.folder import StudyFolder, read_folder
from analysis.report.page import page
from analysis.statistics.estimates import mean_interval
from tests.analysis.report.studies import PLAN, SUMMARY, Page, write_study
from tests.analysis.synthetic import epochs_table, trial, trials_table

pytestmark = pytest.mark.study

CONFIRMED = ["fashion-method", "fashion-method-tuned", "fashion-published", "sst2-adapter-width", "sst2-method"]
BINS = [{"count": 20, "confidence": 20 * (place + 0.5) / 15, "correct": place} for place in range(15)]


@cache
def shown_of(name: str) -> Page:
    return Page(page(make_report(read_folder(EXAMPLES / name))))


def seeds_of(folder: StudyFolder) -> int:
    return int(folder.summary["confirmation"]["seeds"])


@pytest.mark.parametrize("name", CONFIRMED)
def test_the_three_sections_are_of_the_confirmations_seeds(name: str) -> None:
    shown, folder = shown_of(name), read_folder(EXAMPLES / name)
    confirmed = folder.confirmation()
    assert confirmed is not None
    for key in ("curves", "calibration", *(["cost"] if "cost" in shown.sections else [])):
        assert f"Trials of the confirmation: n = {seeds_of(folder)} seeds for each of" in shown.said[key]
    assert re.search(r"n = 1\b", shown.said["curves"] + shown.said["calibration"]) is None
    tested = {config.label: config.test_accuracy.value for config in confirmed.configs}
    points = {trace["name"].replace("<br>", " "): trace["y"][0] for trace in shown.charts["cost"][0]["data"][1:]}
    assert set(points) == set(tested)
    assert all(points[label] == tested[label] for label in tested if label != "ttm")
    assert "test accuracy" in str(shown.charts["cost"][0]["layout"]["yaxis"]["title"])


@pytest.mark.parametrize("name", CONFIRMED)
def test_the_calibration_table_has_the_confirmed_means_of_both_splits(name: str) -> None:
    shown, records = shown_of(name), open_study(EXAMPLES / name)
    trials = select(records.trials, stages=[CONFIRM])
    folder = read_folder(EXAMPLES / name)
    confirmed, seeds = folder.confirmation(), str(seeds_of(folder))
    assert confirmed is not None
    for config in confirmed.configs:
        own = trials.filter(pc.equal(trials["config_id"], config.config_id))
        validation = mean_interval(numbers(own, "val/ece_student")).value
        test = [
            sum(abs(each["correct"] - each["confidence"]) for each in bins) / sum(each["count"] for each in bins)
            for bins in own["calibration/test_student"].to_pylist()
        ]
        row = next(row for row in shown.rows if row[0].startswith(config.label) and row[2:3] and row[1] == seeds
                   and row[2].startswith(f"{validation:.3f} ["))  # fmt: skip
        assert row[-1].startswith(f"{np.mean(test):.3f} [")


def test_the_curves_are_of_the_confirmed_configs_by_their_labels() -> None:
    shown, records = shown_of("sst2-adapter-width"), open_study(EXAMPLES / "sst2-adapter-width")
    lines = [trace for trace in shown.charts["curves"][0]["data"] if trace.get("name")]
    named = {line["name"].replace("<br>", " ").replace("\u00a0", " "): line for line in lines}
    expected = [
        "1: w3-T4.0, adapter lr 1.6e-05", "2: w83-T4.0, adapter lr 3.2e-06", "ce", "kd at tuned temperature 2",
        "pesf_kd as published",
    ]  # fmt: skip
    assert set(named) == {f"{label}, n = 5" for label in expected}
    confirmed = read_folder(EXAMPLES / "sst2-adapter-width").confirmation()
    assert confirmed is not None
    first = confirmed.configs[0]
    trials = select(records.trials, stages=[CONFIRM])
    own = trials.filter(pc.equal(trials["config_id"], first.config_id))
    # The mean of the last epoch equals the mean of the trials' scores.
    assert named[f"{first.label}, n = 5"]["y"][-1] == pytest.approx(numbers(own, "val/accuracy").mean())


def test_the_first_choice_and_kd_are_among_the_few_that_are_drawn_and_the_rest_are_named() -> None:
    shown, folder = shown_of("fashion-method"), read_folder(EXAMPLES / "fashion-method")
    confirmed = folder.confirmation()
    assert confirmed is not None
    assert confirmed.first is not None
    for charts in ("reliability-validation", "reliability-test"):
        names = {trace.get("name", "").split(",")[0] for trace in shown.charts[charts][-1]["data"]}
        assert {"kd", confirmed.first.label} <= names
    drawn = {trace["name"] for trace in shown.charts["reliability-test"][0]["data"][1:]}
    assert len(drawn) == 4
    for figure in ("validation", "test"):
        caption = next(
            str(own["alt"]) for tag, own in shown.elements
            if tag == "img" and str(own["alt"]).startswith(f"Reliability on the {figure}")
        )  # fmt: skip
        left_out = caption.split("Not drawn here, but in the table: ")[1].removesuffix(".").split(", ")
        assert set(left_out) == {config.label for config in confirmed.configs} - drawn


def confirmed_trials(planned: int, seeds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return repetitions on one seed and `seeds` confirmed trials per method."""
    rows = []
    for method in ("kd", "pesf_kd"):
        for replicate in range(1, 2 + seeds):
            own = {"stage": "control" if method == "kd" else "replicate", "method": method, "config_id": method}
            own |= {"replicate": replicate, "val/accuracy": 0.5, "val/ece_student": 0.25, "test/accuracy": None}
            own["calibration/val_student"] = BINS
            if replicate > 1:
                own |= {"stage": "confirm", "val/accuracy": 0.9 + replicate / 1000, "val/ece_student": 0.125}
                own |= {"test/accuracy": 0.8, "calibration/test_student": BINS}
            rows.append(trial(len(rows), **own))
    chosen = [
        {"config_id": "pesf_kd", "label": "1: w16", "rank": 1, "control": None},
        {"config_id": "kd", "label": "kd at tuned temperature 6", "rank": None, "control": "kd"},
    ]
    beside = {"winner": False, "bound": None, "search_score": None}
    return rows, SUMMARY | {"confirmation": {"configs": [e | beside for e in chosen], "trials": {"planned": planned}}}


@pytest.mark.parametrize("complete", [True, False])
def test_before_its_last_trial_a_confirmation_is_not_looked_at_and_the_repetitions_are_shown(
    tmp_path: Path, complete: bool
) -> None:
    rows, summary = confirmed_trials(6 if complete else 7, 3)
    epochs = [
        {"trial_id": row["trial_id"], "epoch": epoch, "val/accuracy": row["val/accuracy"]}
        for row in rows
        for epoch in (1, 2)
    ]
    folder = write_study(tmp_path / "s", trials_table(rows), epochs_table(epochs), plan=PLAN, summary=summary)
    shown = Page(page(make_report(read_folder(folder))))
    names = {trace["name"] for trace in shown.charts["curves"][0]["data"] if trace.get("name")}
    n = 3 if complete else 1
    expected = {"1: w16", "kd at tuned temperature 6"} if complete else {"kd", "pesf_kd"}
    assert {name.replace("\u00a0", " ") for name in names} == {f"{label}, n = {n}" for label in expected}
    assert ("reliability-test" in shown.charts) == complete
    errors = [row for row in shown.rows if row[:2] == [row[0], str(n)] and ("0.125" in row or "0.250" in row)]
    assert len(errors) == 2
    assert all(("0.125" in row) == complete for row in errors)
    assert ("calibration error, student on test" in shown.said["calibration"]) == complete
    assert ("Trials of the confirmation: n = 3 seeds for each of 2 configs" in shown.said["calibration"]) == complete


def test_an_interval_that_only_rounding_makes_is_none(tmp_path: Path) -> None:
    rows = []
    for replicate, noise in ((1, 0.0), (2, 1e-17), (3, -3e-17)):
        own = {"stage": "control", "method": "kd", "config_id": "kd", "replicate": replicate, "val/accuracy": 0.5}
        errors = {"val/ece_teacher": 0.022 + noise, "val/ece_student": 0.03 + replicate / 1e5}
        rows.append(trial(len(rows), **own, **errors))
    folder = write_study(tmp_path / "s", trials_table(rows), epochs_table([]), plan=PLAN, summary=SUMMARY)
    row = next(row for row in Page(page(make_report(read_folder(folder)))).rows if row[:2] == ["kd", "3"])
    assert row[2:] == ["0.030 [0.030, 0.030]", "0.022"]


def test_a_confirmation_of_several_searches_has_rows_of_methods_that_say_what_they_average(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows, chosen = [], []
    for method, mean in (("kd", 0.8), ("dkd", 0.9)):
        for search in (1, 2):
            config_id = f"{method}{search}"
            role = {"rank": None, "control": "kd"} if method == "kd" else {"rank": 1, "control": None}
            beside = {"winner": False, "bound": None, "search_score": 0.7, "method": method, "searches": [search]}
            chosen.append({"config_id": config_id, "label": f"{method}, search {search}", **role, **beside})
            for replicate in range(1, 13):
                stage = "confirm" if replicate > 6 else "replicate"
                score = mean + 0.001 * search + 0.002 * generator.normal()
                own = {"stage": stage, "method": method, "config_id": config_id, "replicate": replicate}
                own |= {"val/accuracy": score, "test/accuracy": score if stage == "confirm" else None}
                rows.append(trial(len(rows), **own))
    plan = PLAN | {
        "space": "method_tuned",
        "searches_per_method": 2,
        "compared": [{"name": name, "fields": {}} for name in ("kd", "dkd")],
    }
    confirmation = {"configs": chosen, "trials": {"planned": 24}, "seeds": 6}
    summary = SUMMARY | {"confirmation": confirmation}
    folder = write_study(tmp_path / "s", trials_table(rows), epochs_table([]), plan=plan, summary=summary)
    shown = Page(page(make_report(read_folder(folder))))
    averaged = [row for row in shown.rows if row[0] == "dkd (mean of 2 searches)"]
    assert len(averaged) == 2  # the comparison of methods, and the confirmation
    assert {row[0] for row in shown.rows} >= {"kd (mean of 2 searches)", "dkd, search 1", "dkd, search 2"}
    said = shown.said["further"]
    assert "dkd is better than kd" in said
    assert "mean over 2 searches and 6 seeds, Student t interval over both" in said
    assert "Between searches of one method" in said
