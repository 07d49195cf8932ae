"""Studies of networks of the user's own, whose file is gone before the first trial."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from study.cli.start_command import start_command
from study.export import main as export_main
from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.plan.user_code import code_names
from study.records import read_trials
from study.rerun import main as rerun_main
from tests.study.guides import blocks_of, planned_by
from tests.study.inspection import assert_whole
from tests.user_data import COLUMNS, DATA, new_data_process
from tests.user_methods import METHOD
from tests.user_nets import NET, new_process, write, write_net
from trainables.costs.epoch import run_epoch
from trainables.models.user_model import call_maker
from trainables.process.randomness import seeded
from trainables.run.checkpoint import save_checkpoint
from trainables.teacher.command import main as teacher_main
from trainables.tune.session import TrialSession, begin_run
from trainables.user_code.loading import canonical_name, sources_of

pytestmark = pytest.mark.study

IN_PROCESS = ("--executor", "in-process", "--quiet")
SMALL = ("--space", "adapter_width", "--trials", "1", "--promising", "1", "--replicates", "1", "--epochs", "1")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def test_a_study_runs_resumes_confirms_exports_and_reruns_without_the_user_s_file(command, tmp_path):
    file, out = write_net(tmp_path / "mine"), ("--output-dir", tmp_path / "out")
    networks = ("--student", f"{file}:make", "--teacher", f"{file}:plain")
    begun = (*SMALL, *networks, "--teacher-epochs", "1", "--name", "own", "--time-budget", "0.001")
    stopped = command(launch_main, *begun, *out, *IN_PROCESS)
    assert stopped.code == 4, stopped.said
    study = tmp_path / "out" / "own"
    plan = load_plan(study)
    assert re.fullmatch("net.py:make@[0-9a-f]{16}", plan.base.student)
    digest = plan.base.student.partition("@")[2]
    assert list(code_names(plan)) == [f"net.py:make@{digest}", f"net.py:plain@{digest}"]
    assert {path.name for path in (study / "code" / digest).iterdir()} == {"net.py", "blocks.py"}

    file.write_text("raise RuntimeError('changed')\n")
    with new_process():
        refused = command(launch_main, "--resume", "own", *out, *IN_PROCESS, "--student", f"{file}:make")
        assert refused.code == 2
        assert f"student: the study has 'net.py:make@{digest}', but 'net.py:make@" in refused.err
        assert "was given (the file, or a module that it imports, was changed; the study goes on with" in refused.err
        assert "Leave these options out to resume as planned, or start a new study" in refused.err
        shutil.rmtree(tmp_path / "mine")
    shutil.move(study / "code", tmp_path / "code")
    with new_process():
        lost = command(launch_main, "--resume", "own", *out, *IN_PROCESS)
        assert lost.code == 2
        assert "restore the folder code of the study from a copy, or name the same file again" in lost.err
        again = ("--student", f"{tmp_path / 'code' / digest / 'net.py'}:make")
        done = command(launch_main, "--resume", "own", *out, *IN_PROCESS, *again, "--confirm", "1", "--seeds", "2")
        assert (study / "code" / digest / "blocks.py").exists()
        assert done.code == 0, done.said
        assert_whole(study)
        best = json.loads((study / "summary.json").read_text())["best"]["options"]
        assert best["student"] == f"{study / 'code' / digest / 'net.py'}:make"
    assert {row["status"] for row in read_trials(study).to_pylist()} == {"finished"}

    with new_process():
        again = command(rerun_main, "own-0000", *out, "--json")
        assert again.code == 0, again.said
        assert json.loads(again.out)["matches"]
        exported = command(export_main, "own", *out, "--format", "torch-export", "--json")
        assert exported.code == 0, exported.said
        assert json.loads(exported.out)["student"] == f"net.py:make@{digest}"

    import mlflow

    from study.tracking.student import tracking_at

    shutil.rmtree(study)
    with new_process(), tracking_at(plan.tracking_uri):
        version = mlflow.MlflowClient().search_model_versions()[0]
        assert "net.py-make" in version.name
        model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
        images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8).numpy()
        assert model.predict(images).shape == (3, 10)


def test_a_trial_goes_on_in_another_process_to_the_bits_of_one_never_stopped(tmp_path):
    file = write_net(tmp_path / "mine")
    name = canonical_name(f"{file}:make")
    config = {"method": "ce", "student": name, "epochs": 2}  # with dropout
    settings = {"config": config, "data_root": None, "teacher_path": None, "user_code": [sources_of(name).to_json()]}
    shutil.rmtree(tmp_path / "mine")
    with new_process():
        whole = TrialSession(settings, begin=begin_run)
        expected = [*whole.step()["epochs"], *whole.step()["epochs"]]
    with new_process():
        first = begin_run(settings)
        run_epoch(first)
        save_checkpoint(first, tmp_path / "checkpoint")
    with new_process():
        run = begin_run({**settings, "checkpoints": [str(tmp_path / "checkpoint")]})
        assert run.epoch == 1
        measures = run_epoch(run)
    compared = {key for key in measures if key.startswith(("train/", "val/"))}
    assert {key: measures[key] for key in compared} == {key: expected[-1][key] for key in compared}
    assert compared


def test_the_same_file_elsewhere_is_the_same_study_and_uses_its_teacher(command, tmp_path):
    plans = {}
    for place, change in (("a", ""), ("b", ""), ("c", "# changed\n")):
        file = write_net(tmp_path / place)
        file.write_text(file.read_text() + change)
        words = ("--student", f"{file}:plain", "--teacher", "cnn_3_4", "--dry-run", "--json", "--name", "own")
        shown = command(launch_main, *SMALL, *words, "--output-dir", tmp_path / "out")
        assert shown.code == 0, shown.said
        plans[place] = json.loads(shown.out)["plan"]["base"]["student"]
    assert plans["a"] == plans["b"] != plans["c"]
    assert not (tmp_path / "out").exists()


def test_methods_that_match_maps_need_named_stages_and_are_refused_by_name(command, tmp_path):
    file, out = write_net(tmp_path), ("--output-dir", tmp_path / "out", "--dry-run")
    methods = ("--space", "method", "--teacher", "resnet8", "--epochs", "1")
    refused = command(launch_main, *methods, *out, "--methods", "ce,kd,at", "--student", f"{file}:plain")
    assert refused.code == 2
    reason = r"--methods at cannot match .*the student net.py:plain@.* gives no maps of its stages: .*self\.stages"
    assert re.search(reason, refused.err), refused.err
    left_out = command(launch_main, *methods, *out, "--student", f"{file}:plain")
    assert left_out.code == 0, left_out.said
    assert re.search(r"left out\s+sftn, fitnet, at, sp, vid: .*gives no maps of its stages", left_out.said), (
        left_out.said
    )
    fine = command(launch_main, *methods, *out, "--methods", "ce,kd,at,fitnet,sp,vid", "--student", f"{file}:make")
    assert fine.code == 0, fine.said
    sftn = command(launch_main, *methods, *out, "--methods", "ce,kd,sftn", "--student", f"{file}:make")
    assert sftn.code == 2
    assert "cannot resume from the output of a stage" in sftn.err


def test_a_method_that_matches_maps_trains_with_two_networks_of_the_user_s(command, tmp_path):
    file, out = write_net(tmp_path / "mine"), ("--output-dir", tmp_path / "out")
    words = ("--student", f"{file}:make", "--teacher", f"{file}:Net", "--space", "method", "--methods", "ce,kd,at,vid")
    words += ("--replicates", "1", "--epochs", "1", "--teacher-epochs", "1", "--name", "maps", "--precision", "bf16")
    done = command(launch_main, *words, *out, *IN_PROCESS)
    assert done.code == 0, done.said
    rows = read_trials(tmp_path / "out" / "maps").to_pylist()
    assert {row["method"] for row in rows} == {"ce", "kd", "at", "vid"}
    assert all(row["cost/student_parameters"] > 0 and row["cost/step_flops"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--student", "{file}:mke"), "did you mean make?"),
        (("--student", "{folder}/nte.py:make"), "did you mean net.py?"),
        (("--student", "{file}"), "names no object"),
        (("--teacher", "{folder}/bad.py:make"), "bad.py is not valid Python"),
        (("--teacher", "{folder}/fails.py:make"), "ZeroDivisionError: division by zero"),
        (("--student", "no_module:make"), "there is no module no_module"),
        (("--student", "torchvison:resnet18"), "did you mean 'torchvision:resnet18'?"),
        (("--student", "{folder}/tuple.py:make"), "returns a tuple of 2"),
        (("--student", "{file}:make", "--dataset", "glue:sst2"), "networks of your own are for images"),
        (("--student", "{file}:make", "--pack", "2"), "a network of your own keeps channels apart"),
    ],
)
def test_bad_code_is_refused_before_any_work(command, tmp_path, words, says):
    tuple_net = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(64 * in_channels, num_classes)

    def forward(self, images):
        feature = images.flatten(1)
        return self.fc(feature), feature


make = Net
"""
    file = write_net(tmp_path, bad="def make(:\n", fails="1 / 0\n", tuple=tuple_net)
    given = [word.format(file=file, folder=tmp_path) for word in words]
    done = command(launch_main, "--space", "adapter_width", *given, "--output-dir", tmp_path / "out", "--dry-run")
    assert done.code == 2, done.said
    assert says in done.err
    assert "user_code/" not in done.err
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_the_user_s_is_trained_alone_and_given_to_a_study(command, tmp_path, monkeypatch):
    file, out = write_net(tmp_path / "mine"), ("--output-dir", tmp_path / "out")
    words = ("--dataset", "digits", "--model", f"{file}:make", "--recipe", "short", "--epochs", "1", "--name", "t")
    done = command(teacher_main, *words, *out, "--quiet", "--no-mlflow", "--json")
    assert done.code == 0, done.said
    folder = tmp_path / "out" / "teachers" / "t"
    card, printed = (folder / "README.md").read_text(encoding="utf-8"), json.loads(done.out)
    shutil.rmtree(tmp_path / "mine")
    monkeypatch.chdir(folder)
    for line in card.splitlines():  # the commands of the card, in the card's folder
        if line.startswith("python -m study.launch"):
            with new_process():
                shown = command(launch_main, *shlex.split(line)[3:], "--dry-run", *out)
            assert shown.code == 0, shown.said
        if line.startswith("python -m trainables.teacher"):
            with new_process():
                shown = command(teacher_main, *shlex.split(line)[3:], "--dry-run", *out)
            assert shown.code == 0, shown.said
    assert card.count("code/") == 2
    monkeypatch.chdir(tmp_path)
    with new_process():
        shown = command(launch_main, *SMALL, *shlex.split(printed["teacher_options"]), "--dry-run", *out)
        assert shown.code == 0, shown.said
        again = command(teacher_main, *shlex.split(printed["command"])[3:], "--dry-run", *out)
        assert again.code == 0, again.said
    write_net(tmp_path / "mine")
    study = (*SMALL, "--student", "cnn_3_4", "--teacher-checkpoint", folder / "teacher.safetensors", *out)
    with new_process():
        refused = command(launch_main, *study, "--dry-run")
        assert refused.code == 2
        place = refused.err.strip().rpartition("--teacher ")[2]
        assert place.startswith(f"{folder}/code/")
        given = command(launch_main, *study, "--teacher", place, "--name", "given", *IN_PROCESS)
        assert given.code == 0, given.said
    name = canonical_name(f"{file}:make")
    with seeded(5):
        weights = call_maker(name, num_classes=10, in_channels=1).state_dict()
    torch.save(weights, tmp_path / "own.pth")
    own = (*SMALL, "--student", "cnn_3_4", "--teacher-checkpoint", tmp_path / "own.pth", *out, "--dry-run",
           "--teacher-normalisation", "0.5/0.25")  # fmt: skip
    assert command(launch_main, *own, "--teacher", f"{file}:make").code == 0
    misfit = command(launch_main, *own, "--teacher", f"{file}:plain")
    assert misfit.code == 2
    assert "does not fit the network: it lacks" in misfit.err


def test_a_search_over_own_students_learns_from_an_ensemble_of_own_teachers(command, tmp_path):
    file, out = write_net(tmp_path / "mine"), ("--output-dir", tmp_path / "out")
    for seed in ("0", "1"):
        words = (
            "--dataset",
            "digits",
            "--model",
            f"{file}:plain",
            "--recipe",
            "short",
            "--epochs",
            "1",
            "--seed",
            seed,
        )
        done = command(teacher_main, *words, "--name", f"t{seed}", *out, "--quiet", "--no-mlflow")
        assert done.code == 0, done.said
    files = [str(tmp_path / "out" / "teachers" / name / "teacher.safetensors") for name in ("t0", "t1")]
    words = ("--teacher-checkpoint", ",".join(files), "--teacher", f"{file}:plain+{file}:plain", "--space", "none")
    words += ("--search", f"student={file}:make,{file}:plain,cnn_3_4", "--trials", "3", "--promising", "1")
    done = command(launch_main, *words, "--replicates", "1", "--epochs", "1", "--name", "both", *out, *IN_PROCESS)
    assert done.code == 0, done.said
    study = tmp_path / "out" / "both"
    rows = read_trials(study).to_pylist()
    plan = load_plan(study)
    digest = plan.base.teacher.rpartition("@")[2]
    assert {row["status"] for row in rows} == {"finished"}
    own = {f"net.py:make@{digest}", f"net.py:plain@{digest}"}
    assert {row["student"] for row in rows if row["stage"] == "control"} == {*own, "cnn_3_4"}
    assert {row["teacher"] for row in rows} == {f"net.py:plain@{digest}+net.py:plain@{digest}"}
    assert set(code_names(plan)) == own
    shutil.rmtree(tmp_path / "mine")
    with new_process():
        again = command(rerun_main, "both-0001", *out, "--json")
        assert again.code == 0, again.said
        assert json.loads(again.out)["matches"]
    with new_process():  # the printed command names the study's own copy
        printed = shlex.split(start_command(plan))[3:]
        shown = command(launch_main, *printed, "--dry-run", "--json")
        assert shown.code == 0, shown.said
        assert json.loads(shown.out)["plan"]["search"] == plan.model_dump(mode="json")["search"]


def test_processes_of_ray_get_the_sources_of_network_data_and_method_sent(launch, command, tmp_path):
    # The driver removes the file when it tries the network out, before any other process begins.
    file = tmp_path / "mine" / "net.py"
    gone = f"from pathlib import Path\nPath({str(file)!r}).unlink(missing_ok=True)\n"
    write_net(tmp_path / "mine", gone + NET)
    folder = write(tmp_path / "mine", method=METHOD, data=DATA, columns=COLUMNS)
    own = ("--student", f"{file}:make", "--teacher", f"{file}:plain", "--teacher-epochs", "1")
    own += ("--dataset", f"{folder}/data.py:make", "--method", f"{folder}/method.py:METHOD", "--set", "kd_weight=0.1")
    size = ("--space", "none", "--search", "matching_power=1:4", *SMALL[2:], "--max-concurrent", "2")
    done = launch(*size, *own, "--cpus-per-trial", "0.5", "--name", "own", "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert not file.exists()
    rows = read_trials(tmp_path / "out" / "own").to_pylist()
    assert {row["status"] for row in rows} == {"finished"}
    assert {row["method"].partition("@")[0] for row in rows} == {"method.py:METHOD", "ce", "kd"}
    assert {(row["student"][:12], row["dataset"][:12]) for row in rows} == {("net.py:make@", "data.py:make")}
    shutil.rmtree(tmp_path / "mine")
    with new_data_process():  # one process gives the bits that Ray's gave
        again = command(rerun_main, "own-0000", "--output-dir", tmp_path / "out", "--json")
        assert again.code == 0, again.said
        assert json.loads(again.out)["matches"]


def test_commands_of_the_guide_are_understood(command, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(blocks_of("own_model.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    shown = planned_by("own_model.md", command, tmp_path / "out")
    assert len(shown) == 3
    assert all(re.search("net.py:make@[0-9a-f]{16}", each) for each in shown)
