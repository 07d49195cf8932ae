"""Studies in Python: what they return, and what may be done with them."""

import asyncio
import shlex
import signal
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pesfkd
from pesfkd import running
from study import launch
from study.ledger.ledger import StudyLedger
from study.records import read_epochs, read_trials
from tests.pesfkd.conftest import TINY
from tests.study.given_back import given_back
from tests.study.inspection import assert_whole
from trainables.run.run import DistillationRun

pytestmark = pytest.mark.study


@pytest.fixture
def at_epoch(monkeypatch):
    """Does something at the end of an epoch, once: `at_epoch(3, action)` in the third epoch that is trained."""

    def prepare(number, action):
        inner, count = DistillationRun.train_epoch, [0]

        def train_epoch(self):
            result = inner(self)
            count[0] += 1
            if count[0] == number:
                action()
            return result

        monkeypatch.setattr(DistillationRun, "train_epoch", train_epoch)

    return prepare


def test_a_study_is_whole_and_its_tables_are_its_records(ran):
    assert ran.complete
    assert_whole(ran.directory)
    assert ran.name == ran.directory.name == "ran"
    pd.testing.assert_frame_equal(ran.trials, read_trials(ran.directory).to_pandas())
    pd.testing.assert_frame_equal(ran.epochs, read_epochs(ran.directory).to_pandas())
    table = ran.table
    assert sorted(table["method"]) == ["ce", "kd", "pesf_kd"]
    rows = ran.trials[ran.trials["stage"] != "search"].groupby("config_id")["val/accuracy"].mean()
    np.testing.assert_allclose(table["mean"], rows[table["config_id"]])
    assert table.loc[table["method"] == "kd", "minus_kd"].isna().all()
    assert ran.confirmed.empty
    assert "5 of" not in repr(ran)
    assert repr(ran) == "<Study ran: adapter_width on digits, 8 of 8 trials>"
    assert "<table" in ran._repr_html_()
    assert f"best: <code>{ran.best.line}" in ran._repr_html_()


def test_the_best_config_is_given_again_by_its_line_to_the_digest(ran, command, tmp_path, monkeypatch):
    best = ran.best
    assert ran.summary["best"]["line"] == best.line
    assert ran.summary["best"]["config_id"] == best.config_id
    trained = {entry.config_id for entry in StudyLedger(ran.plan, read_only=True).entries.values()}
    assert best.config_id in trained
    given_options = []

    def new_plan(values, given):
        given_options.append(given)
        raise pesfkd.UsageError("seen")

    monkeypatch.setattr(launch, "new_plan", new_plan)
    assert command(launch.main, "--space", "joint", *shlex.split(best.line)).err == "error: seen\n"
    assert given_back(given_options[0]).config_id == best.config_id
    assert given_back(best.options).config_id == best.config_id


def test_a_report_is_a_path_that_a_notebook_shows(ran, tmp_path):
    report = ran.report(tmp_path / "page.html")
    assert isinstance(report, Path)
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    shown = report._repr_html_()
    assert 'srcdoc="&lt;!DOCTYPE html&gt;' in shown
    with pytest.raises(pesfkd.UsageError, match=r"^out .*plan.json: this file belongs to the study"):
        ran.report(ran.directory / "plan.json")


def test_a_trial_runs_again_to_the_same_bits(ran):
    again = ran.rerun(0, quiet=True)
    assert again.matches
    assert again.entry.trial_id == "ran-0000"
    for trial_id, says in (
        (99, "ran-0099"),
        (-1, "trial_id=-1: give"),
        (1.5, "trial_id=1.5: give"),
        ("x", "similar: "),
    ):
        with pytest.raises(pesfkd.UsageError, match=says):
            ran.rerun(trial_id)


def test_the_seeds_for_a_difference_are_a_table(ran):
    table = ran.power(detect=[0.01, 0.1])
    assert list(table["difference"]) == [0.01, 0.1]
    assert table["seeds"].iloc[0] >= table["seeds"].iloc[1]
    assert table.attrs["comparisons"] == 2
    with pytest.raises(pesfkd.UsageError, match=r"^detect 3: give differences between 0 and 1"):
        ran.power(detect=3)
    with pytest.raises(pesfkd.UsageError, match=r"^power 2: give a probability"):
        ran.power(power=2)


def test_studies_are_listed_and_opened_by_name_and_by_folder(ran, monkeypatch):
    parent = ran.directory.parent
    listed = pesfkd.studies(parent).set_index("name")
    assert listed.loc["ran", "complete"]
    assert (listed.loc["ran", "trials"], listed.loc["ran", "planned"]) == (8, 8)
    monkeypatch.chdir(parent)
    for opened in (
        pesfkd.open(ran.directory), pesfkd.open("ran", parent), pesfkd.open("ran"), pesfkd.open("./ran"),
        pesfkd.open(f"{ran.directory}/"),
    ):  # fmt: skip
        assert opened.directory.samefile(ran.directory)
        assert opened.best == ran.best
    monkeypatch.chdir(ran.directory)
    assert pesfkd.open(".").name == "ran"
    with pytest.raises(pesfkd.UsageError, match=r"no study 'run' in .*existing studies: .*ran"):
        pesfkd.open(parent / "run")
    for name in (None, 5, ""):
        with pytest.raises(pesfkd.UsageError, match="give the name of a study, or the path of its folder"):
            pesfkd.open(name)
    with pytest.raises(pesfkd.UsageError, match=r"output_dir .*nowhere: there is no such folder"):
        pesfkd.studies(parent / "nowhere")


def test_a_study_is_not_exported_before_it_is_confirmed_and_not_without_seeds(ran, tmp_path):
    assert ran.plan_confirmation(top=1, seeds=2)["trials"] > 0
    with pytest.raises(pesfkd.UsageError, match=r"run pesfkd.open\('.*ran'\).confirm\(\) first"):
        ran.export(tmp_path / "student.pt2")
    for options, says in (
        ({"seed_count": 3}, "Study.confirm has no option 'seed_count'"),
        ({"seeds": 1}, "one seed gives no interval"),
        ({"top": 0}, "confirm 0: give a number"),
        ({"trials": 3}, "Study.confirm takes no trials, which is an option of a new study"),
    ):
        with pytest.raises(pesfkd.UsageError) as refused:
            ran.confirm(**options)
        assert says in str(refused.value)
    with pytest.raises(pesfkd.UsageError, match="format='onx'"):
        ran.export(format="onx")


def test_a_confirmed_study_has_its_result_in_tables(documented):
    study = documented["study"]
    assert study.complete
    assert set(study.confirmed["n"]) == {2}
    assert not study.comparisons.empty
    assert study.best.chosen_by == "confirmation"
    assert study.summary["best"]["split"] == "test"
    assert given_back(study.best.options).config_id == study.best.config_id
    student = documented["folder"] / "student.pt2"
    assert student.is_file()
    again = pesfkd.open(documented["folder"] / "study_results" / "first")
    with pytest.raises(pesfkd.UsageError, match="replace it with force"):
        again.export(student)


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_study_says_how_to_go_on_and_is_resumed(at_epoch, folder, times):
    def interrupt():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)

    name = f"stopped-{times}"
    handler = signal.getsignal(signal.SIGINT)
    at_epoch(3, interrupt)
    with pytest.raises(KeyboardInterrupt) as stopped:
        pesfkd.run(**TINY, name=name, output_dir=folder, quiet=True)
    assert isinstance(stopped.value, pesfkd.StudyInterrupted)
    call = f"pesfkd.resume({name!r}, output_dir={str(folder)!r})"
    assert call in str(stopped.value)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not [each for each in threading.enumerate() if "mlflow" in each.name]
    assert not pesfkd.open(folder / name).complete
    with pytest.raises(pesfkd.UsageError, match=f"a study named {name!r} already exists .*pesfkd.resume"):
        pesfkd.run(**TINY, name=name, output_dir=folder, quiet=True)
    with pytest.raises(pesfkd.UsageError, match=r"pesfkd.resume takes no smoke"):
        pesfkd.resume(folder / name, smoke=True)
    with pytest.raises(pesfkd.UsageError, match="trials"):
        pesfkd.resume(folder / name, trials=9)
    if times == 1:
        study = eval(call, {"pesfkd": pesfkd})
        assert study.complete
        assert_whole(study.directory)


def test_a_study_out_of_time_is_returned_and_says_how_to_go_on(folder, capfd):
    study = pesfkd.run(**TINY, name="late", output_dir=folder, time_budget=0.001)
    assert not study.complete
    said = capfd.readouterr()
    assert "out of time (time_budget=0.001); to go on:\n  pesfkd.resume('late'" in said.err
    assert said.out == ""


def test_a_study_runs_in_a_running_event_loop_of_another_thread(folder):
    found = []

    async def cell():
        found.append(pesfkd.run(**TINY, name="thread", output_dir=folder, quiet=True))

    thread = threading.Thread(target=lambda: asyncio.run(cell()))
    thread.start()
    thread.join()
    assert [study.complete for study in found] == [True]


def test_ray_that_runs_for_other_work_is_neither_joined_nor_ended(tmp_path, monkeypatch):
    class Ray:
        @staticmethod
        def is_initialized():
            return True

    monkeypatch.setitem(running.sys.modules, "ray", Ray)
    with pytest.raises(pesfkd.UsageError, match="Ray is running in this process already"):
        pesfkd.run(**{**TINY, "executor": "ray"}, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_left_of_a_study_is_planned(ran):
    planned = pesfkd.plan(resume=ran.directory, confirm=1, seeds=2)
    assert planned.facts["ended"] == 8
    assert planned.facts["trials"] > 8
    assert "first configs" in planned.text or "ended" in planned.text
    assert repr(planned) == planned.text
    with pytest.raises(pesfkd.UsageError, match="no study 'gone'"):
        pesfkd.plan(resume="gone", output_dir=ran.directory.parent)


def test_a_second_study_at_a_time_is_refused(tmp_path):
    with running._running, pytest.raises(pesfkd.UsageError, match="another thread of this process is running a study"):
        pesfkd.run(**TINY, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not running._running.locked()


def test_a_teacher_is_trained_and_given_to_a_study(tmp_path):
    teacher = pesfkd.train_teacher("digits", "cnn_3_4", recipe="short", epochs=1, output_dir=tmp_path, quiet=True)
    assert teacher.checkpoint.is_file()
    assert 0 < teacher.summary["validation"]["accuracy"] < 1
    planned = pesfkd.plan(space="temperature", teacher_checkpoint=teacher.checkpoint, output_dir=tmp_path)
    assert planned.plan.base.teacher == "cnn_3_4"
    for options, says in (
        ({"recipe": "shrt"}, "recipe='shrt': give one of 'literature'"),
        ({"epoch": 3}, "no option 'epoch'; did you mean 'epochs'"),
        ({"seed": -1}, "seed=-1: give 0 or more"),
        ({"device": "tpu"}, "device"),
        ({"epochs": "three"}, "epochs='three': give a whole number"),
    ):
        with pytest.raises(pesfkd.UsageError) as refused:
            pesfkd.train_teacher("digits", "cnn_3_4", output_dir=tmp_path, **options)
        assert says in str(refused.value)
        assert "--" not in str(refused.value)


def test_what_needs_no_study_needs_no_command():
    assert pesfkd.spaces()["joint"]["question"].endswith("?")
    assert "#SBATCH" in pesfkd.cluster_file("slurm")
    with pytest.raises(pesfkd.UsageError, match="slurm"):
        pesfkd.cluster_file("slrm")
    assert set(pesfkd.__all__) <= set(dir(pesfkd))
