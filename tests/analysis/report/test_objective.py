"""Page of a study with an objective other than accuracy."""

from pathlib import Path

import pytest

from analysis.report.content import make_report
from analysis.report.folder import read_folder
from analysis.report.page import page
from tests.analysis.report.studies import PLAN, SUMMARY, Page, write_study
from tests.analysis.synthetic import epochs_table, trials_table, whole_study

ELSEWHERE = {"calibration"}  # sections that mean accuracy whatever the objective


@pytest.mark.study
def test_a_page_shows_the_same_scores_under_the_objectives_own_name(tmp_path: Path) -> None:
    trials, epochs = whole_study(searched=12, pruned=2, replicates=3)
    moved = [
        {**row, "dataset": "glue:cola", "val/matthews": row["val/accuracy"], "val/accuracy": 0.5,
         "test/matthews": row["test/accuracy"]}
        for row in trials.to_pylist()
    ]  # fmt: skip
    told = [{**row, "val/matthews": row["val/accuracy"], "val/accuracy": 0.5} for row in epochs.to_pylist()]
    pages = []
    for name, tables in (
        ("images", (trials, epochs)),
        ("text", (trials_table(moved), epochs_table(told))),
    ):
        folder = write_study(tmp_path / name, *tables, plan=PLAN, summary=SUMMARY)
        pages.append(Page(page(make_report(read_folder(folder)))))
    images, text = pages
    assert text.sections == images.sections
    for section, said in images.said.items():
        if section not in ELSEWHERE:
            assert "ccuracy" not in text.said[section], section
            assert said.count("accuracy") == text.said[section].count("Matthews correlation"), section
    for name, charts in images.charts.items():
        for chart, other in zip(charts, text.charts[name], strict=True):
            assert [trace.get("y") for trace in chart["data"]] == [trace.get("y") for trace in other["data"]], name
