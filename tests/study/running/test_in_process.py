"""Studies in one process without Ray: equal to studies on Ray, resumable by either executor, and rejected options."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from study.cli.progress import StudyProgress
from study.cli.request import resumed_plan
from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.records import EPOCHS_SCHEMA, read_epochs, read_trials
from study.rerun import main as rerun_main
from study.running import runner
from study.running.stop import Stop
from tests.conftest import start_process
from tests.study.factories import make_plan
from tests.study.inspection import assert_whole, read_journal, runs_of, wait_until
from tests.text_tasks import write_rte
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import COST_FACTS
from trainables.teacher import files as teacher_files
from trainables.tune import session

pytestmark = pytest.mark.study

IN_PROCESS = ("--executor", "in-process")
SMALL = ("--space", "adapter_width", "--trials", "2", "--promising", "1", "--replicates", "1")


def numbers_of(directory: Path) -> list[dict]:
    """Return the configs and measures of a study's trials in order, without times."""
    epochs = read_epochs(directory).to_pylist()
    kept = ("train/", "val/", "test/", "calibration/", "student_", "teacher", "adapter", "kd_", "temperature")
    return [
        {
            **{name: row[name] for name in ("stage", "name", "config_id", "replicate", "status", "epochs")},
            **{name: value for name, value in row.items() if name.startswith(kept) or name.endswith("_seed")},
            **{name: row[name] for name in COST_FACTS if not name.endswith(("seconds", "bytes"))},
            "by epoch": [
                {name: value for name, value in epoch.items() if name.startswith(("epoch", "train/", "val/"))}
                for epoch in epochs
                if epoch["trial_id"] == row["trial_id"]
            ],
        }
        for row in sorted(read_trials(directory).to_pylist(), key=lambda row: row["trial_id"])
    ]


def in_mlflow(directory: Path) -> dict[str, tuple[dict, dict, set]]:
    """Return params, metrics independent of time, and the names of all metrics, by stage and name of a trial."""
    _, children = runs_of(load_plan(directory))
    return {
        f"{run.data.tags['stage']} {run.info.run_name}": (
            run.data.params,
            {name: value for name, value in run.data.metrics.items() if name.startswith(("train/", "val/"))},
            set(run.data.metrics),
        )
        for run in children
    }


def run(plan, **options):
    """Run the rest of a study. Return the run and the messages."""
    said = io.StringIO()
    study_run, tracker = runner.run_study(
        plan, progress=StudyProgress(plan, stream=said), command="", versions={}, **options
    )
    assert tracker.finish("FINISHED" if study_run.complete else "KILLED") is None
    return study_run, said.getvalue()


@pytest.fixture
def at_epoch(monkeypatch):
    """Return a function that makes an action run at the start of an epoch of a trial, once or every time."""

    def prepare(ordinal: int, epoch: int, act, *, once: bool = True) -> None:
        begin = session.begin_run

        def begin_run(settings, **options):
            begun = begin(settings, **options)
            if int(settings["trial_id"].rpartition("-")[2]) == ordinal:
                inner = begun.train_epoch

                def train_epoch():
                    if begun.epoch + 1 == epoch and not (once and acted):
                        acted.append(True)
                        act()
                    return inner()

                begun.train_epoch = train_epoch
            return begun

        acted: list[bool] = []
        monkeypatch.setattr(session, "begin_run", begin_run)

    return prepare


@pytest.mark.parametrize("scheduler", ["none", pytest.param("asha", marks=pytest.mark.slow)])
def test_a_study_is_the_same_by_both_executors(launch, command, tmp_path, scheduler):
    """The search has more trials than the sampler's random start, so the model must see equal results."""
    study = (
        "--space", "joint", "--trials", "13", "--promising", "1", "--replicates", "1", "--epochs", "3",
        "--scheduler", scheduler, "--confirm", "1", "--seeds", "2", "--name", "same",
    )  # fmt: skip
    here, on_ray = tmp_path / "here" / "same", tmp_path / "ray" / "same"
    mine = command(launch_main, *study, *IN_PROCESS, "--output-dir", here.parent)
    assert mine.code == 0, mine.said
    if scheduler == "asha":  # the other study trains a teacher in each place
        shutil.copytree(here.parent / "teachers", on_ray.parent / "teachers")
    done = launch(*study, "--executor", "ray", "--max-concurrent", "1", "--output-dir", on_ray.parent, timeout=500)
    assert done.returncode == 0, done.stderr
    for directory in (here, on_ray):
        assert_whole(directory)
    assert numbers_of(here) == numbers_of(on_ray)
    assert in_mlflow(here) == in_mlflow(on_ray)
    assert read_trials(here).schema == read_trials(on_ray).schema
    assert read_epochs(here).schema == read_epochs(on_ray).schema
    statuses = {row["status"] for row in numbers_of(here)}
    assert statuses == ({"finished", "pruned"} if scheduler == "asha" else {"finished"})
    events = [[(e["event"], e.get("trial_id")) for e in read_journal(d / "journal.jsonl")[0]] for d in (here, on_ray)]
    lasting = [[e for e in each if e[0] in ("trial", "end", "confirmation", "dataset")] for each in events]
    assert [e[0] for e in lasting[0]] == [e[0] for e in lasting[1]]
    assert {path.name for path in here.iterdir()} == {path.name for path in on_ray.iterdir()}
    assert not list(here.rglob("checkpoint_*"))
    summaries = [json.loads((directory / "summary.json").read_text()) for directory in (here, on_ray)]
    assert summaries[0].keys() == summaries[1].keys()
    assert summaries[0]["trials"] == summaries[1]["trials"]


def test_a_study_in_this_process_is_whole_and_says_what_one_on_ray_says(in_process_study_run):
    assert_whole(in_process_study_run.directory)
    said, result = in_process_study_run.said, in_process_study_run.result
    assert "running in this process, without Ray" in said
    assert sum(line.startswith("[") and line.endswith(" s") and ", gap " in line for line in said.splitlines()) == 14
    assert result["trials"] == {"finished": 14, "pruned": 0, "failed": 0, "planned": 14}
    assert set(EPOCHS_SCHEMA.names) == set(read_epochs(in_process_study_run.directory).schema.names)


_WITHOUT_RAY = """
import sys
from study.launch import main
from trainables.run.run import DistillationRun

inner = DistillationRun.train_epoch

def train_epoch(self):
    print("printed by a trial")
    return inner(self)

DistillationRun.train_epoch = train_epoch
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
print(sorted(name for name in sys.modules if name.partition(".")[0] == "ray"), file=sys.stderr)
"""


def test_ray_is_not_imported_and_what_a_trial_prints_is_seen(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_RAY, *SMALL, "--epochs", "2", "--scheduler", "asha", "--confirm", "1",
         "--seeds", "2", "--optuna-storage", tmp_path / "mirror", "--name", "alone", "--output-dir", tmp_path,
         "--quiet", "--json", *IN_PROCESS],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    assert "printed by a trial" in done.stderr
    assert json.loads(done.stdout)["complete"] is True
    assert_whole(tmp_path / "alone")


def test_a_trial_that_raises_fails_alone_and_may_be_tried_again(command, at_epoch, tmp_path):
    def fail():
        raise ZeroDivisionError("of all things")

    at_epoch(1, 2, fail)
    study = (*SMALL, "--epochs", "3", "--name", "one", "--output-dir", tmp_path, *IN_PROCESS)
    done = command(launch_main, *study)
    assert done.code == 3, done.said
    failed, *rest = sorted(
        StudyLedger(load_plan(tmp_path / "one"), read_only=True).entries.values(), key=lambda e: e.status
    )
    assert (failed.ordinal, failed.status, len(failed.epochs)) == (1, "failed", 1)
    assert "ZeroDivisionError: of all things" in failed.error
    assert {entry.status for entry in rest} == {"finished"}
    again = command(launch_main, "--resume", "one", "--retry-failed", "--output-dir", tmp_path)
    assert again.code == 0, again.said
    assert "running in this process" in again.err  # the executor of the first run
    assert_whole(tmp_path / "one")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_study_after_the_epoch_and_a_resume_goes_on(command, at_epoch, tmp_path, number):
    at_epoch(0, 2, lambda: os.kill(os.getpid(), number))
    study = (*SMALL, "--epochs", "4", "--scheduler", "asha", "--name", "one", "--output-dir", tmp_path, *IN_PROCESS)
    done = command(launch_main, *study)  # with ASHA, every epoch is reported
    assert done.code == 130, done.said
    assert "stopping after the steps that are running" in done.err
    assert "interrupted; to go on:" in done.err
    (entry,) = StudyLedger(load_plan(tmp_path / "one"), read_only=True).entries.values()
    assert (entry.status, len(entry.epochs)) == (None, 2)
    again = command(launch_main, "--resume", "one", "--output-dir", tmp_path)
    assert again.code == 0, again.said
    assert_whole(tmp_path / "one")


def test_the_second_signal_ends_the_study_at_once(command, at_epoch, tmp_path):
    def hurry():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_epoch(0, 2, hurry)
    done = command(launch_main, *SMALL, "--epochs", "3", "--name", "one", "--output-dir", tmp_path, *IN_PROCESS)
    assert done.code == 130, done.said
    assert "interrupted at once; to go on:" in done.err
    again = command(launch_main, "--resume", "one", "--output-dir", tmp_path)
    assert again.code == 0, again.said
    assert_whole(tmp_path / "one")


def test_a_time_budget_that_is_used_up_in_any_phase_leaves_work_and_after_the_last_trial_none(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_files, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    plan = make_plan(
        tmp_path, trials=2, promising=1, replicates=1, sampler="random", base={"epochs": 2}, executor="in-process",
        confirmation={"configs": 1, "seeds": 2},
    )  # fmt: skip
    plan.save()
    reached = {
        "teacher": lambda stop: bool(list(tmp_path.glob("teachers/*.training/*.safetensors"))),
        "filling": lambda stop: bool(list(tmp_path.glob("teacher_outputs/*/*.arrow"))),
        "search": lambda stop: any(entry.epochs for entry in stop.ledger.in_stage("search")),
        "confirmation": lambda stop: any(entry.epochs for entry in stop.ledger.in_stage("confirm")),
        "end": lambda stop: stop.ledger.ended == stop.ledger.planned,
    }
    ended = []
    for phase, is_used_up in reached.items():
        with mock.patch.object(Stop, "out_of_time", property(is_used_up)):
            study_run, _ = run(plan)
        assert (study_run.out_of_time, study_run.complete) == (phase != "end", phase == "end"), phase
        ended.append(study_run.ledger.ended)
        assert bool(list(tmp_path.glob("teachers/*.safetensors"))) == (phase != "teacher")
    assert ended[:2] == [0, 0]
    assert ended[1] < ended[3] < ended[4]
    assert_whole(plan.directory)


LONG = ("--space", "adapter_width", "--trials", "1", "--promising", "1", "--replicates", "1", "--epochs", "20",
        "--teacher-outputs", "live", "--name", "long")  # fmt: skip


def kill_after_checkpoint(output_dir: Path, executor: str, folder: Path) -> None:
    """Start a study with epochs of a quarter of a second, and kill the driver once a trial has a checkpoint."""
    driver = {
        "in-process": ("tests.study.slow_driver", "0.25"),
        "ray": ("tests.study.killable_driver", folder, "first"),
    }
    process = start_process(
        *driver[executor], *LONG, "--executor", executor, "--output-dir", output_dir, "--quiet",
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    pattern = "long/tune/run-1/*/checkpoint_*/trial.safetensors"
    wait_until(lambda: bool(list(output_dir.glob(pattern))) or process.poll() is not None)
    process.kill()
    assert process.communicate()[1] == ""


def resumed_in_the_middle(directory: Path) -> set[str]:
    """Return the trials that a process continued from a later epoch than the first.

    Each process that trains a trial computes the teacher's outputs on the validation split once, so these epochs have
    more teacher forward passes.
    """
    usual = min(
        row["cost/teacher_forwards"] for row in read_epochs(directory).to_pylist() if row["cost/teacher_forwards"]
    )
    return {
        row["trial_id"]
        for row in read_epochs(directory).to_pylist()
        if row["epoch"] > 1 and row["cost/teacher_forwards"] > usual
    }


@pytest.mark.fault
@pytest.mark.parametrize(
    ("first", "second"), [("in-process", "in-process"), ("ray", "in-process"), ("in-process", "ray")]
)
def test_a_killed_study_goes_on_in_the_middle_of_a_trial_by_either_executor(command, tmp_path, first, second):
    output_dir = tmp_path / "out"
    kill_after_checkpoint(output_dir, first, tmp_path)
    done = command(launch_main, "--resume", "long", "--output-dir", output_dir, "--executor", second)
    assert done.code == 0, done.said
    assert ("without Ray" in done.err) == (second == "in-process")
    directory = output_dir / "long"
    assert_whole(directory)
    assert not list(directory.rglob("checkpoint_*"))
    resumed = resumed_in_the_middle(directory)
    assert resumed
    for trial in resumed:  # equal to an uninterrupted trial
        assert command(rerun_main, trial, "--output-dir", output_dir, "--quiet").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--space", "method", "--methods", "ce,kd,at,dkd+adapter", "--replicates", "1", "--epochs", "1"),
        ("--space", "temperature", "--method", "sftn", "--smoke"),
        ("--space", "adapter_width", "--smoke", "--teacher-outputs", "live", "--optuna-storage", "mirror"),
        ("--space", "adapter_width", "--smoke", "--storage-path", "elsewhere"),
    ],
    ids=["methods", "own teacher", "live", "storage path"],
)
def test_every_kind_of_study_runs(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = command(launch_main, *arguments, *IN_PROCESS, "--name", "one", "--output-dir", tmp_path / "out")
    assert done.code == 0, done.said
    assert_whole(tmp_path / "out" / "one")


def test_a_study_of_text_runs(command, tmp_path):
    done = command(
        launch_main, "--space", "adapter_width", "--dataset", "glue:rte", "--data-root", write_rte(tmp_path / "glue"),
        "--teacher", "bert_2_32", "--student", "bert:1", "--teacher-epochs", "1", "--smoke", *IN_PROCESS,
        "--name", "text", "--output-dir", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.said
    assert_whole(tmp_path / "out" / "text")


def test_a_confirmation_runs_in_this_process(command, tmp_path):
    study = (*SMALL, "--epochs", "1", "--name", "one", "--output-dir", tmp_path, *IN_PROCESS)
    assert command(launch_main, *study).code == 0
    done = command(confirm_main, "one", "--confirm", "1", "--seeds", "2", "--output-dir", tmp_path, *IN_PROCESS)
    assert done.code == 0, done.said
    assert "without Ray" in done.err
    rows = [row for row in read_trials(tmp_path / "one").to_pylist() if row["stage"] == "confirm"]
    assert rows
    assert all(row["test/accuracy"] is not None for row in rows)
    assert_whole(tmp_path / "one")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--max-concurrent", "2"), "runs one trial after the other: leave out --max-concurrent"),
        (("--pack", "2"), "packs none: leave out --pack"),
        (("--pack", "auto"), "packs none: leave out --pack"),
        (("--workers-per-trial", "2"), "has no processes of a trial: leave out --workers-per-trial"),
        (("--trial-timeout", "1"), "cannot end a trial that hangs, which would be this process"),
        (("--address", "auto"), "uses no cluster: leave out --address"),
        (("--ship-code",), "uses no nodes that code could be sent to: leave out --ship-code"),
        (("--storage-path", "s3://bucket/folder"), "name a folder as --storage-path"),
    ],
)
def test_what_only_ray_can_do_is_refused_before_any_work(command, tmp_path, arguments, reason):
    done = command(launch_main, *SMALL, *IN_PROCESS, *arguments, "--output-dir", tmp_path / "out")
    assert done.code == 2, done.said
    assert reason in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()


def test_what_ray_was_asked_to_do_is_left_out_by_a_resume_in_one_process(tmp_path):
    plan = make_plan(tmp_path, max_concurrent=2, pack=2, cpus_per_trial=0.5)
    plan.save()
    resumed = resumed_plan(plan.name, tmp_path, {"executor": "in-process"})
    assert (resumed.executor, resumed.max_concurrent, resumed.pack) == ("in-process", None, None)
    assert resumed.digest == plan.digest
    assert resumed_plan(plan.name, tmp_path, {}).pack == 2
    with pytest.raises(UsageError, match="packs none"):
        resumed_plan(plan.name, tmp_path, {"executor": "in-process", "pack": "2"})


def test_a_gpu_that_is_not_there_is_missed_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    plan = make_plan(tmp_path, executor="in-process", gpus_per_trial=0.5)
    with pytest.raises(StudyError, match=r"asks for 0\.5 GPU and this process has 0: lower --gpus-per-trial"):
        run(plan)
    assert not list(tmp_path.glob("teachers/*"))


def test_other_data_than_before_are_refused(tmp_path):
    plan = make_plan(tmp_path, trials=1, promising=1, replicates=1, base={"epochs": 1}, executor="in-process")
    plan.save()
    with mock.patch.object(Stop, "out_of_time", property(lambda stop: stop.ledger.ended > 0)):
        run(plan)
    path = plan.directory / "journal.jsonl"
    ledger = StudyLedger(plan, read_only=True)
    with (
        mock.patch("trainables.tune.tasks.dataset_digest", return_value="0" * 64),
        pytest.raises(StudyError, match="ran on other data or another split"),
    ):
        run(plan)
    assert ledger.ended == StudyLedger(plan, read_only=True).ended == 1
    assert path.exists()


def test_this_process_has_the_threads_afterwards_that_it_had(tmp_path):
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    seen = []
    begin = session.begin_run

    def begin_run(settings):
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return begin(settings)

    plan = make_plan(tmp_path, trials=1, promising=1, replicates=1, base={"epochs": 1}, executor="in-process")
    try:
        with mock.patch.object(session, "begin_run", begin_run):
            run(plan)
        assert set(seen) == {(1, True)}
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, False)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
