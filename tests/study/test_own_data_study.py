"""Studies of datasets of the user's own: files of arrays, and code whose file is gone before the first trial."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_trials
from study.rerun import main as rerun_main
from tests.own_data import digits, write_npz, write_parquet
from tests.study.guides import blocks_of, planned_by
from tests.study.inspection import assert_whole
from tests.user_data import COLUMNS, DATA, new_data_process
from tests.user_methods import METHOD
from tests.user_nets import write
from trainables.data.own.opened import forget_own
from trainables.teacher.command import main as teacher_main

pytestmark = pytest.mark.study

IN_PROCESS = ("--executor", "in-process", "--quiet")
SMALL = ("--space", "adapter_width", "--trials", "1", "--promising", "1", "--replicates", "1", "--epochs", "1",
         "--student", "cnn_3_4", "--teacher", "cnn_3_4")  # fmt: skip
TO_BITS = ("--teacher-outputs-dtype", "float32")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _process():
    with new_data_process():
        yield


def test_a_study_runs_resumes_confirms_and_reruns_without_the_user_s_file(command, tmp_path):
    file, out = write(tmp_path / "mine", data=DATA, columns=COLUMNS) / "data.py", ("--output-dir", tmp_path / "out")
    begun = (*SMALL, "--dataset", f"{file}:make", "--teacher-epochs", "1", "--name", "own", "--time-budget", "0.001")
    stopped = command(launch_main, *begun, *out, *IN_PROCESS)
    assert stopped.code == 4, stopped.said
    study = tmp_path / "out" / "own"
    dataset = load_plan(study).base.dataset
    assert re.fullmatch("data.py:make@[0-9a-f]{16}", dataset)
    assert {path.name for path in (study / "code" / dataset.partition("@")[2]).iterdir()} == {"data.py", "columns.py"}

    shutil.rmtree(tmp_path / "mine")
    with new_data_process():
        done = command(launch_main, "--resume", "own", *out, *IN_PROCESS, "--confirm", "1", "--seeds", "2")
        assert done.code == 0, done.said
        assert_whole(study)
    rows = read_trials(study).to_pylist()
    assert {row["status"] for row in rows} == {"finished"}
    assert {row["dataset"] for row in rows} == {dataset}
    with new_data_process():
        again = command(rerun_main, "own-0000", *out, "--json")
        assert again.code == 0, again.said
        assert json.loads(again.out)["matches"]
    import mlflow

    from study.tracking.student import tracking_at

    with tracking_at(load_plan(study).tracking_uri):
        names = [each.name for each in mlflow.MlflowClient().search_registered_models()]
    assert len(names) == 1
    assert re.fullmatch(r"pesfkd-data.py-make-[0-9a-f]{8}-cnn_3_4", names[0])


def test_views_of_the_user_s_code_are_stored_and_give_the_same_bits_as_a_live_teacher(command, tmp_path):
    file, out = write(tmp_path, data=DATA, columns=COLUMNS) / "data.py", ("--output-dir", tmp_path / "out")
    scores = {}
    for source in ("stored", "live"):
        words = ("--dataset", f"{file}:augmented", "--teacher-epochs", "1", "--epochs", "2", "--name", source)
        with new_data_process():
            done = command(launch_main, *SMALL, *words, "--teacher-outputs", source, *TO_BITS, *out, *IN_PROCESS)
        assert done.code == 0, done.said
        rows = read_trials(tmp_path / "out" / source).to_pylist()
        scores[source] = [row["val/accuracy"] for row in rows]
    assert scores["stored"] == scores["live"]


def test_a_dry_run_shows_counts_classes_and_views_and_writes_nothing(command, tmp_path):
    file = write(tmp_path, data=DATA, columns=COLUMNS) / "data.py"
    shown = command(launch_main, *SMALL, "--dataset", f"{file}:make", "--dry-run", "--output-dir", tmp_path / "out")
    assert shown.code == 0, shown.said
    assert "180 train, 20 validation (stratified, seed 0), 60 test" in shown.out
    assert "classes    10: a, b, c, d, e, f, g, h, i, j" in shown.out
    assert "augmentation: crop, 9 views of each image" in shown.out
    assert not (tmp_path / "out").exists()


def test_a_study_of_files_has_short_names_and_refuses_changed_files(command, tmp_path):
    file, out = write_npz(tmp_path / "digits.npz", digits()), ("--output-dir", tmp_path / "out")
    words = ("--dataset", f"arrays:{file},views=none", "--teacher-epochs", "1", "--name", "npz")
    done = command(launch_main, *SMALL, *words, *out, *IN_PROCESS)
    assert done.code == 0, done.said
    study = tmp_path / "out" / "npz"
    rows = read_trials(study).to_pylist()
    assert {row["status"] for row in rows} == {"finished"}

    import mlflow

    from study.tracking.student import tracking_at

    with tracking_at(load_plan(study).tracking_uri):
        client = mlflow.MlflowClient()
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        named = {each.dataset.name for run in runs for each in run.inputs.dataset_inputs}
    assert named == {"arrays:digits.npz,views=none: train", "arrays:digits.npz,views=none: validation"}

    parts = digits()
    parts["train"][0][0] = 255 - parts["train"][0][0]
    write_npz(file, parts)
    with new_data_process():
        refused = command(launch_main, "--resume", "npz", *out, *IN_PROCESS, "--confirm", "1", "--seeds", "2")
    assert refused.code == 1, refused.said
    assert "ran on other data or another split" in refused.err


def test_a_teacher_of_the_user_s_data_is_given_to_a_study(command, tmp_path):
    file, out = write(tmp_path, data=DATA, columns=COLUMNS) / "data.py", ("--output-dir", tmp_path / "out")
    words = ("--dataset", f"{file}:make", "--model", "cnn_3_4", "--recipe", "short", "--epochs", "1", "--name", "t")
    done = command(teacher_main, *words, *out, "--quiet", "--no-mlflow")
    assert done.code == 0, done.said
    folder = tmp_path / "out" / "teachers" / "t"
    assert [path.name for path in (folder / "code").glob("*/data.py")] == ["data.py"]
    given = ("--teacher-checkpoint", folder / "teacher.safetensors", "--name", "given")
    for dataset in (f"{file}:make", f"{file}:keras"):  # the second has another normalisation
        with new_data_process():
            study = command(launch_main, *SMALL[:-2], "--dataset", dataset, *given[:3], dataset[-4:], *out, *IN_PROCESS)
        assert study.code == 0, study.said


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("{folder}/data.py:mak", "did you mean make?"),
        ("{folder}/dat.py:make", "did you mean data.py?"),
        ("{folder}/data.py", "names no object"),
        ("{folder}/data.py:flips", "differs when it is read again"),
        ("{folder}/data.py:drawn", "called twice, it returns different samples"),
        ("{folder}/fails.py:make", "ZeroDivisionError: division by zero"),
        ("arrays:{folder}/missing.npz", "there is no file or folder"),
        ("arrays:{folder}/digits.npz,label=fine", "has no labels"),
        ("array:{folder}/digits.npz", "Known: digits"),
        ("hf:./digits", "files have the form arrays:PATH"),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_any_work(command, tmp_path, dataset, says):
    write(tmp_path, data=DATA, columns=COLUMNS, fails="def make():\n    return 1 / 0\n")
    write_npz(tmp_path / "digits.npz", digits())
    words = ("--dataset", dataset.format(folder=tmp_path), "--output-dir", tmp_path / "out", "--dry-run")
    for main, more in ((launch_main, SMALL), (teacher_main, ("--model", "cnn_3_4", "--recipe", "short"))):
        done = command(main, *more, *words)
        assert done.code == 2, done.said
        assert says in done.err
        assert "Traceback" not in done.err or "ZeroDivision" in says
        forget_own()
    assert not (tmp_path / "out").exists()


def test_a_method_that_two_classes_make_pointless_is_refused(command, tmp_path):
    images, labels = digits()["train"]
    np.savez(tmp_path / "two.npz", images=images, labels=labels % 2)
    words = ("--space", "method", "--methods", "ce,kd,dist", "--dataset", f"arrays:{tmp_path}/two.npz", "--epochs", "1")
    done = command(launch_main, *words, "--output-dir", tmp_path / "out", "--dry-run")
    shown = done.said
    assert "two classes" in shown, shown


def test_packs_and_processes_of_ray_get_the_sources_sent(launch, tmp_path):
    file = tmp_path / "mine" / "data.py"
    # The file is gone when it is executed for the first time.
    gone = f"from pathlib import Path\nPath({str(file)!r}).unlink(missing_ok=True)\n"
    write(tmp_path / "mine", data=gone + DATA, columns=COLUMNS, method=METHOD)
    words = ("--dataset", f"{file}:make", "--teacher-epochs", "1", "--name", "own", "--output-dir", tmp_path / "out")
    method = ("--space", "none", "--method", file.with_name("method.py:METHOD"), "--search", "matching_power=1:4")
    done = launch(*method, "--set", "kd_weight=0.1", *SMALL[2:], *words, "--pack", "2")
    assert done.returncode == 0, done.stderr
    assert not file.exists()
    rows = read_trials(tmp_path / "out" / "own").to_pylist()
    assert {row["status"] for row in rows} == {"finished"}
    assert {row["method"].partition("@")[0] for row in rows} == {"method.py:METHOD", "ce", "kd"}


def test_commands_of_the_guide_are_understood(command, tmp_path, monkeypatch):
    for text in blocks_of("own_data.md", "python"):
        (tmp_path / text.split()[1]).write_text(text)
    write_npz(tmp_path / "scans.npz", digits())
    write_parquet(tmp_path / "pets", digits())
    monkeypatch.chdir(tmp_path)
    shown = planned_by("own_data.md", command, tmp_path / "out")
    assert len(shown) == 5
    assert all(re.search("(data|flips).py:make@[0-9a-f]{16}|arrays:", each) for each in shown)
