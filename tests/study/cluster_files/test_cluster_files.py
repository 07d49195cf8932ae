"""Files that start clusters: checked against Ray's schema and KubeRay's definition; the script is really run."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from study.cluster_files import CLUSTER_FILES, read_cluster_file
from study.cluster_files.__main__ import main
from study.plan.resolve import load_plan
from tests.study.inspection import assert_whole, read_journal

RAY_SCHEMA = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"

# Requirements of KubeRay's definition of a RayJob for the parts that are used. Other fields are rejected.
_TEMPLATE = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "image", "resources"],
                        "properties": {"name": {"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}},
                    },
                },
                "volumes": {"type": "array", "items": {"required": ["name"]}},
            },
        }
    },
}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
RAYJOB_SCHEMA = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": {"type": "string"},
                "runtimeEnvYAML": {"type": "string"},
                "backoffLimit": {"type": "integer"},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer"},
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["headGroupSpec"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {"type": "object", "properties": {"mode": {"enum": ["token", "disabled"]}}},
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["rayStartParams", "template"],
                            "additionalProperties": False,
                            "properties": {"rayStartParams": _PARAMETERS, "template": _TEMPLATE},
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["groupName", "rayStartParams", "template"],
                                "additionalProperties": False,
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": {"type": "integer"},
                                    "minReplicas": {"type": "integer"},
                                    "maxReplicas": {"type": "integer"},
                                    "rayStartParams": _PARAMETERS,
                                    "template": _TEMPLATE,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_a_cluster_of_ones_own_machines_fits_ray_s_schema_and_its_local_provider():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(read_cluster_file("ray"))
    jsonschema.validate(config, json.loads(RAY_SCHEMA.read_text()))
    for start in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert any("RAY_AUTH_MODE=token ray start" in command for command in start)
    validate_config(prepare_config(config))


def test_a_study_on_kubernetes_has_the_shape_of_a_rayjob():
    manifest = yaml.safe_load(read_cluster_file("kubernetes"))
    jsonschema.validate(manifest, RAYJOB_SCHEMA)
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["limits"] == container["resources"]["requests"]
    pins = (Path(__file__).parents[3] / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
    assert yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])["env_vars"]["STUDY"]


@pytest.mark.launcher
@pytest.mark.parametrize(
    ("there", "says"), [(False, "--space adapter_width --address auto"), (True, "--resume adapter-width-1")]
)
def test_a_rayjob_s_entrypoint_begins_a_study_or_goes_on_with_it(tmp_path, there, says):
    entrypoint = yaml.safe_load(read_cluster_file("kubernetes"))["spec"]["entrypoint"]
    (tmp_path / "adapter-width-1").mkdir()
    if there:
        (tmp_path / "adapter-width-1" / "plan.json").touch()
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", entrypoint.replace("/studies", str(tmp_path))], capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "STUDY": "adapter-width-1"},
    )  # fmt: skip
    assert says in done.stdout


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_studies_that_the_files_start_are_understood(launch, tmp_path, name):
    text = read_cluster_file(name).replace("\\\n#", " ").replace("CHANGE", "host")
    if name == "slurm":
        arguments = re.search(r"sbatch slurm\.sbatch (--.*)", text)[1]
    elif name == "kubernetes":
        arguments = yaml.safe_load(text)["spec"]["entrypoint"].split('--name "$STUDY" ')[1].split("; fi")[0]
    else:
        arguments = re.search(r"study\.launch (--.*)'", text)[1]
    done = launch(*arguments.split(), "--dry-run", "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_a_file_is_printed_by_name_and_another_name_is_refused(command):
    assert command(main, "slurm").out == read_cluster_file("slurm")
    assert {line.split()[0] for line in command(main).out.splitlines()} == set(CLUSTER_FILES)
    refused = command(main, "slrum")
    assert refused.code == 2
    assert "did you mean 'slurm'" in refused.err


@pytest.mark.launcher
def test_the_slurm_script_is_understood_by_its_shell(tmp_path):
    script = tmp_path / "study.sbatch"
    script.write_text(read_cluster_file("slurm"))
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# These replace Slurm's programs: every node is this machine.
_SRUN = """#!/bin/bash
echo "$@" >> "$STAND_IN_LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
_SCONTROL = """#!/bin/bash
echo scontrol "$@" >> "$STAND_IN_LOG"
[[ $1 == requeue ]] || printf 'one\\ntwo\\n'
"""


class Slurm:
    """Runs the script as a job on two nodes. Both nodes are this machine.

    Args:
        folder: folder for all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "stand-in.log"
        for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL), ("slurm.sbatch", read_cluster_file("slurm"))):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        with socket.socket() as found:
            found.bind(("", 0))
            self.port = found.getsockname()[1]

    def start(self) -> subprocess.Popen[str]:
        environment: dict[str, Any] = {
            **os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "STAND_IN_LOG": str(self.log),
            "SLURM_JOB_ID": str(self.port + 20_000 - self.port // 20_000 * 20_000), "SLURM_JOB_NODELIST": "one,two",
            "SLURM_CPUS_PER_TASK": "1", "STUDY": "queued", "OUTPUT_DIR": str(self.folder / "out"),
            "PYTHON": sys.executable,
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", self.folder / "slurm.sbatch", "--space", "adapter_width", "--trials", "1", "--promising", "1",
             "--replicates", "1", "--epochs", "30"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


# This replaces Python: Ray's commands succeed, and a study ends with the exit code in the file `code`.
_PYTHON = """#!/bin/bash
case "$*" in
    *ray.scripts.scripts*start*) exec sleep 600 ;;
    *study.launch*) echo "$@" >> "$STAND_IN_LOG"; exit "$(cat "${0%/*}/code")" ;;
esac
"""


@pytest.mark.launcher
def test_a_slurm_job_is_queued_again_if_its_study_was_stopped_or_ran_out_of_time_and_keeps_its_budget(tmp_path):
    slurm = Slurm(tmp_path)
    (tmp_path / "python").write_text(_PYTHON)
    (tmp_path / "python").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "STAND_IN_LOG": str(slurm.log), "SLURM_JOB_ID": "7", "STUDY": "queued",
        "SLURM_JOB_NODELIST": "one,two", "SLURM_CPUS_PER_TASK": "1", "OUTPUT_DIR": str(tmp_path / "out"),
    }  # fmt: skip
    kept = ["--time-budget", "3600", "--tracking-uri=http://me:hush@host:5000"]  # a plan does not contain the password
    asked = ["--space", "adapter_width", *kept, "--seed", "1"]
    first = ["--name", "queued", *asked]
    again = ["--resume", "queued", *kept]
    for code, is_queued in ((4, True), (0, False), (1, False), (3, False), (130, True)):
        slurm.log.write_text("")
        (tmp_path / "code").write_text(str(code))
        done = subprocess.run(
            ["bash", slurm.folder / "slurm.sbatch", *asked], env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        log = slurm.log.read_text()
        assert ("scontrol requeue 7" in log) == is_queued
        (launched,) = [line for line in log.splitlines() if "study.launch" in line]
        assert f"study.launch {' '.join(first if code == 4 else again)} --output-dir" in launched
        (tmp_path / "out" / "queued").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "queued" / "plan.json").touch()


@pytest.mark.fault
def test_the_slurm_script_runs_a_study_on_two_nodes_stops_it_when_told_and_goes_on(tmp_path):
    slurm = Slurm(tmp_path)
    job = slurm.start()
    journal = tmp_path / "out" / "queued" / "journal.jsonl"
    deadline = time.monotonic() + 300
    while job.poll() is None and not (
        journal.exists() and any(e["event"] == "epoch" for e in read_journal(journal)[0])
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    job.terminate()
    said = job.communicate(timeout=200)[0]
    assert job.returncode == 130, said
    assert "scontrol requeue" in slurm.log.read_text()
    again = slurm.start()
    said = again.communicate(timeout=400)[0]
    assert again.returncode == 0, said
    assert_whole(tmp_path / "out" / "queued")
    starts = [line for line in slurm.log.read_text().splitlines() if "scripts start" in line]
    assert [("--head" in line, line.split("--nodelist=")[1].split()[0]) for line in starts] == [
        (True, "one"), (False, "two"), (True, "one"), (False, "two"),
    ]  # fmt: skip
    assert load_plan(tmp_path / "out" / "queued").address.endswith(str(20_000 + slurm.port % 20_000))
