"""Studies on machines that share no folder: refused by name without storage, and whole with it."""

import pytest

from study.plan.resolve import load_plan
from study.records import read_trials
from tests.cluster.clusters import HEAD_PORT, STORAGE, TRACKING, assert_nothing_lost, output_folder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CONNECTED = ("--address", f"head:{HEAD_PORT}")


def test_nodes_that_do_not_see_the_output_folder_are_named_and_nothing_is_left(real):
    study = real.launch("--space", "adapter_width", "--smoke", "--name", "unseen", *CONNECTED)
    said = study.finish(code=1)
    others = ", ".join(sorted(machine.address for name, machine in real.network.machines.items() if "worker" in name))
    assert f"--output-dir {study.directory.parent} is not seen by nodes {others}: give --storage-path s3://" in said
    assert not study.directory.exists()
    assert not list(output_folder(study).rglob(".node-check*"))


def test_a_node_that_does_not_reach_the_storage_is_named(real):
    (worker,) = (machine for machine in real.network.machines.values() if machine.name == "worker2")
    hosts = worker.root / "home/hosts"
    known = hosts.read_text()
    hosts.write_text(known.replace(" storage\n", " elsewhere\n"))
    try:
        study = real.launch(
            "--space", "adapter_width", "--smoke", "--name", "apart", *CONNECTED, "--storage-path", STORAGE
        )
        said = study.finish(code=1)
    finally:
        hosts.write_text(known)
    assert f"node {worker.address} cannot use the storage: s3://studies/checkpoints" in said
    assert "Set credentials on every node" in said
    assert not study.directory.exists()


def test_a_study_with_storage_needs_no_shared_folder(real):
    study = real.launch(
        "--space", "adapter_width", "--smoke", "--confirm", "1", "--name", "whole", *CONNECTED,
        "--storage-path", STORAGE, "--tracking-uri", TRACKING,
    )  # fmt: skip
    said = study.finish(timeout=400)
    assert_nothing_lost(study, tracked=True)
    assert "copied to each node" in said
    confirmed = [row["trial_id"] for row in read_trials(study.directory).to_pylist() if row["stage"] == "confirm"]
    students = {path.name for path in (study.directory / "students").iterdir() if path.suffix == ".safetensors"}
    assert students
    assert {name.split(".")[0] for name in students} <= set(confirmed)
    assert len(students) == 2 * len({name.split(".")[0] for name in students}), "a student's example is missing"
    # The driver has the teacher, and only the driver has a study.
    assert list((output_folder(study) / "teachers").glob("*.safetensors"))
    assert not (output_folder(study) / "teacher_outputs").exists()
    for machine in real.network.machines.values():
        assert machine is real.head or not (machine.home / "studies").exists()
    # Nothing but the teacher's outputs stays on the storage.
    left = real.head.shell(LIST, STORAGE_URI=STORAGE).split()
    assert {name.split("/")[0] for name in left} <= {"about.txt", "teacher_outputs", "whole-" + identifier(study)}
    assert not [name for name in left if "safetensors" in name]


def identifier(study) -> str:
    return load_plan(study.directory).study_id[:8]


LIST = """python -c '
import os, pyarrow.fs as fs
system, path = fs.FileSystem.from_uri(os.environ["STORAGE_URI"])
found = system.get_file_info(fs.FileSelector(path, recursive=True))
print(*(each.path.removeprefix(path + "/") for each in found if each.is_file))
'"""
