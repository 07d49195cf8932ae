"""Command line that runs a trial again, as a program, on a study run by the real launcher."""

import json
import os
import subprocess
import sys

import pytest

from study.records import read_trials
from study.rerun import main as rerun_main
from trainables.process.environment import WORKERS


def test_help_answers_without_heavy_imports_and_ends_with_three_examples(launch):
    done = launch("--help", module="study.rerun", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert done.stdout[done.stdout.index("Examples:") :].count("python -m study.rerun") == 3
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "ray", "mlflow", "optuna", "pyarrow", "pandas", "sklearn", "matplotlib"}


@pytest.mark.launcher
def test_it_starts_anew_as_a_worker_does_and_refuses_what_is_not_there(tmp_path):
    clean = {name: value for name, value in os.environ.items() if name not in WORKERS}
    done = subprocess.run(
        [sys.executable, "-m", "study.rerun", "nothing-0001", "--output-dir", tmp_path],
        env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "there is no trial 'nothing-0001'" in done.stderr


@pytest.mark.launcher
def test_trials_of_every_stage_have_the_bits_that_ray_s_processes_recorded(small_study, launch, command):
    rows = read_trials(small_study).to_pylist()
    chosen = {(row["stage"], row["method"]): row["trial_id"] for row in rows}
    assert set(chosen) == {("search", "pesf_kd"), ("control", "ce"), ("control", "kd"), ("replicate", "pesf_kd")}

    def state():
        return {path: path.stat().st_mtime_ns for path in small_study.parent.rglob("*")}

    before = state()
    first, *others = ((trial_id, "--output-dir", small_study.parent, "--json") for trial_id in chosen.values())
    program = launch(*first, module="study.rerun")
    answers = [(program.returncode, program.stdout, program.stderr)]
    answers += [(done.code, done.out, done.err) for done in (command(rerun_main, *each) for each in others)]
    for code, out, err in answers:
        assert code == 0, out + err
        told = json.loads(out)
        assert told["matches"]
        assert told["epochs"] == 3
        assert told["numbers"] > 3 * 8
    assert state() == before
