"""Studies of methods and spaces of the user's own, whose files are gone before the first trial."""

import html
import json
import shutil

import pyarrow.compute as pc
import pytest

from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_trials
from study.rerun import main as rerun_main
from tests.study.inspection import assert_whole, runs_of
from tests.user_methods import METHOD, SPACE
from tests.user_nets import new_process, write

pytestmark = pytest.mark.study

QUIET = ("--executor", "in-process", "--quiet")


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def test_a_study_runs_resumes_confirms_and_reruns_without_the_user_s_files(command, tmp_path):
    files, out = write(tmp_path / "mine", method=METHOD, space=SPACE), ("--output-dir", tmp_path / "out")
    own = ("--space", f"{files}/space.py:SPACE", "--method", f"{files}/method.py:METHOD", "--set", "kd_weight=0.1")
    size = ("--trials", "1", "--promising", "1", "--replicates", "1", "--epochs", "1", "--teacher-epochs", "1")
    stopped = command(launch_main, *own, *size, *out, *QUIET, "--name", "own", "--time-budget", "0.001")
    assert stopped.code == 4, stopped.said
    shutil.rmtree(files)
    with new_process():
        done = command(launch_main, "--resume", "own", *out, *QUIET, "--confirm", "1", "--seeds", "2")
        assert done.code == 0, done.said
    study = tmp_path / "out" / "own"
    with new_process():
        assert_whole(study)
        plan = load_plan(study)
    trials = read_trials(study)
    of_method = trials.filter(pc.equal(trials["method"], plan.base.method))
    assert set(trials["status"].to_pylist()) == {"finished"}
    assert all(1 <= power <= 4 for power in of_method["matching_power"].to_pylist())
    assert (
        trials.filter(pc.equal(trials["method"], "ce"))["matching_power"].null_count
        == pc.sum(pc.equal(trials["method"], "ce")).as_py()
    )
    short = f"method-{plan.base.method.partition('@')[2][:6]}"
    summary = json.loads((study / "summary.json").read_text())
    assert summary["best"]["method"] == short
    assert summary["best"]["options"]["method"].startswith(str(study / "code"))
    assert {"matching_power", "student_learning_rate"} <= summary["best"]["options"]["hold"].keys()
    page = (study / "report.html").read_text(encoding="utf-8")
    assert short in page
    assert "Which power matches logits best?" in page
    with new_process():
        again = command(rerun_main, "own-0000", *out, "--json")
        assert again.code == 0, again.said
        assert json.loads(again.out)["matches"]

    shutil.move(study / "code", tmp_path / "code")
    with new_process():
        lost = command(launch_main, "--resume", "own", *out, *QUIET)
        assert lost.code == 2
        assert "restore the folder code of the study from a copy" in lost.err


def test_a_comparison_delivers_the_method_and_shows_its_failures_by_name(command, tmp_path):
    failing = METHOD.replace(
        "    difference", "    if outputs.epoch == 1:\n        raise KeyError('mine')\n    difference"
    )
    files = write(tmp_path / "mine", method=METHOD, failing=failing)
    methods = f"ce,{files}/method.py:METHOD,{files}/failing.py:METHOD"
    done = command(launch_main, "--space", "method", "--methods", methods, "--replicates", "2", "--epochs", "2",
                   "--set", "matching_power=2", "--teacher-epochs", "1", "--output-dir", tmp_path / "out", *QUIET,
                   "--name", "compared")  # fmt: skip
    trials = read_trials(tmp_path / "out" / "compared").to_pylist()
    failed = [row for row in trials if row["status"] == "failed"]
    assert len(failed) == 2
    assert {row["method"].partition("@")[0] for row in failed} == {"failing.py:METHOD"}
    for row in failed:
        assert row["error"].startswith(
            "KeyError: 'mine' (in losses, failing.py:21)\nTraceback (most recent call last):\n"
        )
        assert f'File "{files}/failing.py", line 21, in losses' in row["error"].splitlines()[2]
    assert {row["matching_power"] for row in trials} == {None, 2.0}
    assert "MLflow does not have everything" not in done.said
    assert "failing-" in done.said


def test_a_study_in_which_every_trial_fails_alike_ends_after_three_with_one_traceback(command, tmp_path):
    failing = METHOD.replace(
        "    difference", "    if outputs.epoch == 1:\n        raise KeyError('all')\n    difference"
    )
    files = write(tmp_path / "mine", method=failing)
    done = command(launch_main, "--space", "none", "--method", f"{files}/method.py:METHOD", "--search",
                   "matching_power=1:4", "--set", "kd_weight=0.2", "--trials", "8", "--promising", "1", "--replicates",
                   "1", "--epochs", "2", "--teacher-epochs", "1", "--output-dir", tmp_path / "out", "--executor",
                   "in-process", "--name", "alike")  # fmt: skip
    assert done.code == 1, done.said
    rows = read_trials(tmp_path / "out" / "alike").to_pylist()
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert done.err.count(f'File "{files}/method.py", line 21, in losses') == 1
    assert "ended early, because all 3 trials failed by the same error in your code" in done.err
    summary = json.loads((tmp_path / "out" / "alike" / "summary.json").read_text())
    assert summary["incomplete_because"] == "all trials failed alike"
    page = (tmp_path / "out" / "alike" / "report.html").read_text(encoding="utf-8")
    assert page.count("line 21, in losses") == 1


@pytest.mark.slow
def test_on_ray_too_a_study_ends_after_three_alike_and_all_places_show_the_error_of_the_user(launch, tmp_path):
    failing = METHOD.replace("    difference", "    if outputs.epoch == 1:\n        explain('all')\n    difference")
    failing += "\n\ndef explain(what):\n    raise KeyError(what)\n"
    files = write(tmp_path / "mine", method=failing)
    done = launch("--space", "none", "--method", f"{files}/method.py:METHOD", "--search", "matching_power=1:4", "--set",
                  "kd_weight=0.2", "--trials", "8", "--promising", "1", "--replicates", "1", "--epochs", "2",
                  "--teacher-epochs", "1", "--teacher", "cnn_3_4", "--cpus-per-trial", "0.5", "--max-concurrent", "2",
                  "--executor", "ray", "--output-dir", tmp_path / "out", "--name", "alike")  # fmt: skip
    assert done.returncode == 1, done.stderr
    file, study = files / "method.py", tmp_path / "out" / "alike"
    summary = f"KeyError: 'all' (in explain, method.py:{len(failing.splitlines())})"
    trace = [
        "Traceback (most recent call last):",
        f'  File "{file}", line 21, in losses', "    explain('all')",
        f'  File "{file}", line {len(failing.splitlines())}, in explain', "    raise KeyError(what)",
        "KeyError: 'all'",
    ]  # fmt: skip
    assert done.stderr.count("\n".join(trace)) == 1
    assert "ended early, because all " in done.stderr
    assert "worker.py" not in done.stderr  # no frame of Ray
    failed = [row for row in read_trials(study).to_pylist() if row["status"] == "failed"]
    assert 3 <= len(failed) <= 4
    assert {row["error"] for row in failed} == {"\n".join([summary, *trace])}
    page = html.unescape((study / "report.html").read_text(encoding="utf-8"))
    assert page.count("\n".join(trace)) == 1
    _, runs = runs_of(load_plan(study))
    errors = [run.data.tags["error"] for run in runs if run.info.status == "FAILED"]
    assert errors == ["\n".join([summary, *trace])] * len(failed)
