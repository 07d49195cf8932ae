"""A real study with two objectives and a limit, by the commands: measured, searched, confirmed, reported, resumed."""

import json

import pytest

import pesfkd
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.records import read_trials
from tests.study.inspection import runs_of
from trainables.spec.measures import COST_FACTS, DEPLOY_FACTS, DEPLOY_FLOPS, DEPLOY_LATENCY, DEPLOY_PARAMETERS

pytestmark = pytest.mark.study
STUDENTS = ("cnn_3_4", "cnn_8_16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tables_made_once):
    """Output folder with the confirmed study `two`, made in Python."""
    folder = tmp_path_factory.mktemp("objectives")
    with tables_made_once():
        study = pesfkd.run(
            space="none", search={"student": STUDENTS, "temperature": "1:16:log"}, trials=4, epochs=1, replicates=1,
            promising=1, objectives=["val/accuracy", "latency"], limit={"parameters": "5k"}, executor="in-process",
            name="two", output_dir=folder, quiet=True,
        )  # fmt: skip
        study.confirm(seeds=2, quiet=True)
    return folder


def test_each_student_is_measured_once_and_all_its_trials_have_the_values(folder):
    lines = [line.split(" ", 1)[1] for line in (folder / "two" / "journal.jsonl").read_text().splitlines()]
    events = [event for event in map(json.loads, lines) if event["event"] == "deployment"]
    assert [event["student"] for event in events] == list(STUDENTS)
    assert all(set(event["facts"]) == set(DEPLOY_FACTS) for event in events)
    by_student = {event["student"]: event["facts"] for event in events}
    rows = read_trials(folder / "two").to_pylist()
    assert {row["student"] for row in rows} == set(STUDENTS)
    for row in rows:
        assert {name: row[name] for name in DEPLOY_FACTS} == by_student[row["student"]]
        # Counted once more, by the trial itself, during a real step.
        assert row[DEPLOY_FLOPS] == row["cost/forward_flops_student"]
        assert row[DEPLOY_PARAMETERS] == row["cost/student_parameters"]
    assert set(COST_FACTS) & set(DEPLOY_FACTS) == set()


def test_the_summary_has_the_front_and_every_point_is_confirmed(folder):
    summary = json.loads((folder / "two" / "summary.json").read_text())
    front = [row for row in summary["pareto"]["configs"] if row["is_on_front"]]
    assert front
    assert all(row["confirmed"]["test/accuracy"]["n"] == 2 for row in front)
    assert all(row["is_within_limits"] == (row["values"]["parameters"] <= 5000) for row in summary["pareto"]["configs"])
    assert set(summary["students"]) == set(STUDENTS)
    assert summary["best"]["config_id"] in {row["config_id"] for row in front}


def test_report_figure_and_mlflow_show_the_front_and_the_students(folder):
    page = (folder / "two" / "report.html").read_text()
    for words in ("Pareto front of val accuracy and latency", "latency, batch 32", "still on front", "10th and 90th"):
        assert words in page
    assert (folder / "two" / "figures" / "pareto_front.png").stat().st_size > 5_000
    parent, children = runs_of(load_plan(folder / "two"))
    assert parent.data.metrics["front/configs"] >= 1
    assert "Pareto front of val accuracy and latency" in parent.data.tags["mlflow.note.content"]
    rows = {row["trial_id"]: row for row in read_trials(folder / "two").to_pylist()}
    for child in children:
        assert float(child.data.params[DEPLOY_LATENCY]) == rows[child.data.tags["trial_id"]][DEPLOY_LATENCY]


def test_a_resume_shows_the_front_measures_nothing_again_and_takes_no_other_objectives(command, folder):
    before = (folder / "two" / "journal.jsonl").read_bytes()
    ledger = StudyLedger(load_plan(folder / "two"), read_only=True)
    done = command(launch_main, "--resume", "two", "--output-dir", folder, "-q")
    assert done.code == 0, done.err
    for words in ("Pareto front of val accuracy and latency", "Students where they run", "parameters at most 5,000"):
        assert words in done.out
    assert (folder / "two" / "journal.jsonl").read_bytes() == before
    assert ledger.is_confirmed
    done = command(launch_main, "--resume", "two", "--objectives", "val/accuracy,size", "--output-dir", folder)
    assert done.code == 2
    assert "objectives: the study has ('val/accuracy', 'latency')" in done.err
    done = command(launch_main, "--resume", "two", "--limit", "parameters=3k", "--output-dir", folder)
    assert done.code == 2
    assert "limits: the study has" in done.err
