"""Teachers prepared by a study: a shared one, one per method that needs it, or none."""

import pytest

from study.cli.preview import describe_plan
from study.launch import main as launch_main
from study.plan.teacher_storage import reckon_teacher_storage
from study.records import read_trials
from tests.study.factories import make_plan
from tests.study.inspection import assert_whole
from tests.study.processes import kill, start_study, wait_in_study
from trainables.costs.epoch import run_epoch
from trainables.storage.tensors import read_tensors
from trainables.teacher.files import TeacherFileError
from trainables.tune.session import begin_run
from trainables.tune.tasks import prepare_teacher

SMALL = {"teacher": "cnn_4_8", "teacher_epochs": 1, "epochs": 2, "batch_size": 128}


def test_methods_share_one_teacher_unless_one_has_its_own(tmp_path):
    assert list(make_plan(tmp_path).teachers) == [""]
    assert list(make_plan(tmp_path, space="temperature", base={"method": "dml"}).teachers) == [""]
    plan = make_plan(tmp_path, space="temperature", base={"method": "sftn", "student": "cnn_5_5"})
    assert {whose: trial.method for whose, trial in plan.teachers.items()} == {"sftn": "sftn", "": "kd"}
    assert {trial.student for trial in plan.teachers.values()} == {"cnn_5_5"}


def test_weights_that_are_held_hold_for_a_methods_own_teacher(tmp_path):
    plan = make_plan(tmp_path, space="temperature", base={"method": "sftn"}, overrides={"sftn_kl_weight": 2.0})
    assert plan.teachers["sftn"].sftn_kl_weight == 2.0


def test_a_study_that_needs_no_teacher_has_none(tmp_path):
    plan = make_plan(tmp_path, space="temperature", base={"method": "dml"}, controls=("ce",))
    assert plan.teachers == {}
    assert (plan.teacher_outputs_used, reckon_teacher_storage(plan).passes_stored) == ("live", 0)
    assert "teacher    none: no method of the study needs one" in describe_plan(plan, [])


def test_outputs_of_two_teachers_take_twice_the_room_and_the_passes(tmp_path):
    one, two = (
        reckon_teacher_storage(make_plan(tmp_path, space="temperature", base={"method": method}))
        for method in ("kd", "sftn")
    )
    assert two.size == 2 * one.size
    assert two.passes_stored == 2 * one.passes_stored
    assert two.passes_live == one.passes_live


def test_a_trial_finds_the_teacher_that_is_its_methods(tmp_path):
    configs = {method: {**SMALL, "method": method} for method in ("sftn", "kd", "dml")}
    own, shared = (prepare_teacher(configs[m], None, str(tmp_path)).path for m in ("sftn", "kd"))
    assert own != shared
    settings = {"data_root": None, "teacher_path": shared, "own_teachers": {"sftn": own}}
    digests = {m: begin_run({**settings, "config": each}).teacher.digest for m, each in configs.items()}
    assert digests["sftn"] != digests["kd"] == digests["dml"]


def test_a_trial_finds_the_teacher_of_its_number_and_no_other_is_accepted(tmp_path):
    numbers = {0: (0, 0), 1: (1, 0), 2: (0, 1)}  # teacher number and split number
    names = ("teacher_number", "split_number")
    configs = {
        (m, n): {**SMALL, "method": m, **dict(zip(names, numbers[n], strict=True))}
        for m in ("sftn", "kd") for n in numbers
    }  # fmt: skip
    paths = {each: prepare_teacher(config, None, str(tmp_path)).path for each, config in configs.items()}
    assert len(set(paths.values())) == 6
    own, *further = (
        {**dict(zip(names, numbers[n], strict=True)), "paths": {"": paths["kd", n], "sftn": paths["sftn", n]}}
        for n in numbers
    )
    first = own["paths"]
    settings = {"data_root": None, "teacher_path": first[""], "own_teachers": first, "further_teachers": further}
    digests = {each: begin_run({**settings, "config": config}).teacher.digest for each, config in configs.items()}
    alone = {each: {"data_root": None, "teacher_path": path, "config": configs[each]} for each, path in paths.items()}
    assert digests == {each: begin_run(settings).teacher.digest for each, settings in alone.items()}
    assert len(set(digests.values())) == 6
    swapped = {**further[1], "paths": first}
    for number in (0, 1, 2):
        other = {**settings, "teacher_path": paths["kd", 2], "own_teachers": {}}
        other["further_teachers"] = [{**further[0], "paths": first}, swapped]
        with pytest.raises(TeacherFileError):
            begin_run({**other, "config": configs["kd", number]})


def test_a_trial_without_any_teacher_runs():
    outputs = {"location": "/nowhere", "dtype": "float16"}
    settings = {"data_root": None, "teacher_path": None, "own_teachers": {}, "teacher_outputs": outputs}
    run = begin_run({**settings, "config": {**SMALL, "method": "dml"}})
    assert run.teacher is None
    assert 0 < run_epoch(run)["val/accuracy_teacher"] <= 1


@pytest.mark.launcher
@pytest.mark.parametrize("method", ["sftn", "dml"])
def test_a_killed_study_goes_on_with_its_teachers_and_peers(command, tmp_path, method):
    arguments = [
        "--space", "temperature", "--method", method, "--trials", "3", "--promising", "1", "--replicates", "1",
        "--epochs", "8", "--teacher", "cnn_8_16", "--name", "killed", "--output-dir", str(tmp_path),
        "--executor", "in-process",
    ]  # fmt: skip
    process, journal = start_study(*arguments), tmp_path / "killed" / "journal.jsonl"
    wait_in_study(process, lambda: journal.exists() and '"event":"epoch"' in journal.read_text().replace(" ", ""))
    kill(process)
    done = command(launch_main, "--resume", "killed", "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert_whole(tmp_path / "killed")
    trials = read_trials(tmp_path / "killed")
    assert set(trials["method"].to_pylist()) == {method, "ce", "kd"}
    prepared_for = {
        (found.get("prepared_for") or {}).get("method")
        for found in (read_tensors(path)[1] for path in tmp_path.glob("teachers/*.safetensors"))
    }
    assert prepared_for == ({None, "sftn"} if method == "sftn" else {None})
