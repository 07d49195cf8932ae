"""Checkpoints of trials in another folder and on an S3-compatible server, with kills and resumes."""

import subprocess
from pathlib import Path

import psutil
import pytest

from study.cli.start_command import start_command
from study.plan.resolve import load_plan
from study.records import read_epochs
from study.running.trial_storage import TrialStorage, check_trial_storage
from tests.conftest import S3, start_process
from tests.forking_workers import OWN_SERVER
from tests.study.factories import make_plan
from tests.study.inspection import assert_whole
from tests.study.processes import kill, wait_in_study
from trainables.process.errors import StudyError

TRAIN, VALIDATION = 1077, 360
SECRET = "hush-hush"


def checkpoints(s3: S3, bucket: str) -> set[str]:
    return {name for name in s3.names(bucket) if "/checkpoint_" in name}


@pytest.mark.launcher
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nowhere://someone:hush-hush@bucket/x", "Unrecognized filesystem type"),
        ("s3://bucket/x?secret_key=hush-hush", "Unexpected query parameter"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused_without_its_secrets(tmp_path, uri, says):
    with pytest.raises(StudyError, match=says) as refusal:
        check_trial_storage(make_plan(tmp_path, storage_path=uri))
    assert "--storage-path" in str(refusal.value)
    assert "***" in str(refusal.value)
    assert SECRET not in str(refusal.value)


@pytest.mark.launcher
def test_a_bucket_that_is_not_there_is_refused(s3, tmp_path):
    plan = make_plan(tmp_path, storage_path=s3.uri("no-such-bucket/x", user=f"someone:{SECRET}@"))
    with pytest.raises(StudyError, match=r"s3://\*\*\*@no-such-bucket/x.* cannot be used for checkpoints"):
        check_trial_storage(plan)
    check_trial_storage(make_plan(tmp_path, storage_path=s3.uri(f"{s3.new_bucket()}/x")))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="--storage-path: cannot write in"):
        check_trial_storage(make_plan(tmp_path, storage_path=str(tmp_path / "file" / "x")))
    check_trial_storage(make_plan(tmp_path, storage_path=str(tmp_path / "new" / "x")))


def test_a_uri_with_one_slash_is_refused_and_a_folder_is_made_absolute(launch, tmp_path):
    refused = launch("--space", "joint", "--storage-path", "s3:/bucket", "--output-dir", tmp_path / "out")
    assert refused.returncode == 2
    assert "such as s3://BUCKET/FOLDER" in refused.stderr
    shown = launch("--space", "joint", "--dry-run", "--storage-path", "shared", "--output-dir", tmp_path / "out")
    assert f"checkpoints under {Path.cwd() / 'shared'}" in shown.stdout


def test_a_plan_keeps_the_place_and_not_its_secrets(tmp_path):
    plan = make_plan(tmp_path, storage_path=f"s3://someone:{SECRET}@bucket/x")
    plan.save()
    assert load_plan(plan.directory).storage_path == "s3://***@bucket/x"
    assert "--storage-path 's3://***@bucket/x'" in start_command(plan)
    assert plan.digest == make_plan(tmp_path, study_id=plan.study_id).digest


def test_runs_and_checkpoints_are_found_newest_first(tmp_path):
    plan = make_plan(tmp_path, storage_path=str(tmp_path / "shared"))
    own = tmp_path / "shared" / f"{plan.name}-{plan.study_id[:8]}"
    places = (
        "run-2/t/checkpoint_000003", "run-2/t/checkpoint_000011", "run-10/t/checkpoint_000000", "run-10/u",
        "run-10/t+9/checkpoint_000001", "run-10/t+12/checkpoint_000000", "run-10/t-2/checkpoint_000004",
    )  # fmt: skip
    for place in places:
        (own / place).mkdir(parents=True)
    storage = TrialStorage(plan)
    assert storage.next_run["name"] == "run-11"
    assert [Path(str(found)).relative_to(own).as_posix() for found in storage.checkpoints_of("t")] == [
        "run-10/t+12/checkpoint_000000", "run-10/t+9/checkpoint_000001", "run-10/t/checkpoint_000000",
        "run-2/t/checkpoint_000011", "run-2/t/checkpoint_000003",
    ]  # fmt: skip
    assert storage.checkpoints_of("u") == []
    storage.clear(f"{own}/run-10/t+12")
    assert storage.checkpoints_of("t") == []
    assert len(storage.checkpoints_of("t-2")) == 1


@pytest.mark.slow
def test_a_study_in_another_folder_leaves_no_checkpoint_behind(launch, output_dir, tmp_path):
    done = launch(
        "--space", "adapter_width", "--smoke", "--name", "apart", "--output-dir", output_dir,
        "--storage-path", tmp_path / "shared",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_whole(output_dir / "apart")
    assert not (output_dir / "apart" / "tune").exists()
    assert [path.name for path in (tmp_path / "shared").glob("apart-*/*")] == ["run-1"]
    assert not list((tmp_path / "shared").rglob("checkpoint_*"))


@pytest.mark.slow
def test_workers_and_a_driver_killed_go_on_from_storage(s3, launch, tmp_path):
    bucket = s3.new_bucket()
    uri = s3.uri(f"{bucket}/checkpoints", user=f"someone:{SECRET}@")
    (tmp_path / "work").mkdir()
    process = start_process(  # epochs are slow, and each has a checkpoint
        "tests.study.killable_driver", tmp_path / "work", "far",
        "--space", "adapter_width", "--teacher", "cnn_8_16", "--trials", "2", "--promising", "1", "--replicates", "1",
        "--epochs", "40", "--teacher-outputs", "live", "--name", "far", "--output-dir", tmp_path,
        "--storage-path", uri, stdout=subprocess.DEVNULL, **OWN_SERVER,
    )  # fmt: skip
    wait_in_study(process, lambda: checkpoints(s3, bucket))
    workers = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "Trainable" in str(child.cmdline())
    ]
    workers[0].kill()
    first = checkpoints(s3, bucket)
    wait_in_study(process, lambda: len(checkpoints(s3, bucket) - first) >= 3)
    said = kill(process)
    again = launch("--resume", "far", "--output-dir", tmp_path)
    assert again.returncode == 2
    assert "give --storage-path again" in again.stderr
    done = launch("--resume", "far", "--output-dir", tmp_path, "--storage-path", uri, timeout=500)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "far")
    # Each process that trains a trial computes the teacher's outputs on the validation split once.
    begun = [
        (row["trial_id"], row["epoch"])
        for row in read_epochs(tmp_path / "far").to_pylist()
        if row["cost/teacher_forwards"] >= TRAIN + VALIDATION
    ]
    assert any(epoch > 1 for _, epoch in begun), "no trial went on from where it was"
    kept = s3.objects(bucket)
    assert not [name for name in kept if "/checkpoint_" in name]
    assert [name for name in kept if "/run-2/" in name]
    assert SECRET not in said + done.stdout + done.stderr
    assert not [name for name, content in kept.items() if SECRET.encode() in content]
    written = subprocess.run(["grep", "-rl", SECRET, tmp_path], capture_output=True, text=True, check=False)
    assert (written.returncode, written.stdout) == (1, "")
