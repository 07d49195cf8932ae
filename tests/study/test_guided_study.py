"""A real study with an earlier one, a belief and an early end: killed, resumed without the earlier study, rerun."""

import json
import shutil

import pytest

import pesfkd
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.ledger.no_gain import find_no_gain
from study.plan.resolve import load_plan
from study.rerun import main as rerun_main
from study.search.searcher import StudySearch
from tests.study.inspection import assert_whole, runs_of
from tests.study.processes import kill, start_study, wait_in_study

pytestmark = pytest.mark.launcher
STUDY = (
    "--space", "none", "--method", "kd", "--search", "temperature=1:16:log", "--search", "ce_weight=0:1",
    "--epochs", "1", "--teacher-epochs", "2", "--promising", "1", "--replicates", "1", "--executor", "in-process",
    "--trials", "30", "--prior", "temperature=4:1.3", "--warm-start", "old", "--until", "no-gain", "--name", "guided",
)  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory, tables_made_once):
    """Output folder with the study `guided`, killed during the search, and without the study it started from."""
    folder = tmp_path_factory.mktemp("guided")
    with tables_made_once():
        pesfkd.run(
            space="none", method="kd", search={"temperature": "1:16:log", "ce_weight": "0:1"}, trials=4, promising=1,
            replicates=1, epochs=1, teacher_epochs=2, executor="in-process", name="old", output_dir=folder, quiet=True,
        )  # fmt: skip
    process = start_study(*STUDY, "--output-dir", folder)
    journal = folder / "guided" / "journal.jsonl"
    wait_in_study(process, lambda: journal.exists() and journal.read_text().count('"end"') >= 4)
    kill(process)
    shutil.rmtree(folder / "old")
    return folder


def test_it_is_resumed_without_the_earlier_study_and_ends_by_the_rule(command, killed):
    directory = killed / "guided"
    begun = StudyLedger(load_plan(directory), read_only=True).in_stage("search")
    assert 4 <= len(begun) < 20
    done = command(launch_main, "--resume", "guided", "--output-dir", killed)
    assert done.code == 0, done.err
    plan = load_plan(directory)
    (old,) = plan.warm_start
    assert (old.used, old.first) == (4, ())
    ledger = StudyLedger(plan, read_only=True)
    searched = ledger.in_stage("search")
    assert searched[0].config.temperature == 4.0
    ended = find_no_gain(plan, searched)
    assert len(searched) == (30 if ended is None else ended.trials)
    trials = StudySearch(ledger, {}).optuna_study.trials
    content = json.loads((directory / "warm_start.json").read_text())[old.study_id]
    assert [trial.value for trial in trials[:4]] == [each["last"]["val/accuracy"] for each in content]
    assert len(trials) == len(searched) + 4
    assert_whole(directory)
    summary = json.loads((directory / "summary.json").read_text())
    parent, _ = runs_of(plan)
    end = "The search did not end early"
    if ended is not None:
        end = f"The search ended without gain after {ended.trials} of at most 30 trials: the last 10 have not surpassed"
        assert end[5:] in " ".join(done.err.split())
        assert summary["until"]["ended"] == {"trials": ended.trials, "best": ended.best.trial_id}
    for note in (
        "The search started from an earlier study: 4 trials of old with their values.",
        "Beliefs given by --prior guided the search: temperature=4:1.3.",
        end,
    ):
        for text in (
            done.out,
            parent.data.tags["mlflow.note.content"],
            "\n".join(summary["notes"]),
            (directory / "report.html").read_text(encoding="utf-8"),
        ):
            assert note in " ".join(text.split())
    again = command(rerun_main, searched[-1].trial_id, "--output-dir", killed)
    assert again.code == 0, again.said
    assert "all bits match" in again.said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prior", "temperature=5"), "prior: the study has temperature=4:1.3, but temperature=5 was given"),
        (("--warm-start", "new"), "study 'guided' started from old, and cannot be resumed with others"),
    ],
)
def test_a_resume_takes_no_other_guidance(words, says, command, killed):
    done = command(launch_main, "--resume", "guided", "--output-dir", killed, *words)
    assert done.code == 2
    assert says in done.err
