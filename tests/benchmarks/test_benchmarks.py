"""The scripts of `benchmarks/`, run as programs."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.process.environment import WORKERS

pytestmark = pytest.mark.launcher

FOLDER = Path(__file__).parents[2] / "benchmarks"
STEP_ROW = {
    "pair": str,
    "arm": str,
    "precision": str,
    "ratio_to_student_only": float,
    "over_plain": float,
    "over_loop": float,
    "n": int,
}
PACKING_ROW = {"case": str, "batch": int, "precision": str, "batches": str, "packed": int, "ratio": float, "n": int}
TEXT_ROW = {"pair": str, "arm": str, "ratio_to_student_only": float, "low": float, "high": float, "ms": float, "n": int}
LOADER_ROW = {"images": str, "against": str, "ratio": float, "n": int, "load": float}


def rows_of(name: str, folder: Path) -> list[dict]:
    path = folder / "rows.json"
    command = [sys.executable, str(FOLDER / name), "--quick", "--json", str(path)]
    # Scripts start anew if they lack the environment of a worker; one of them does here, the others are spared it.
    environment = {name: value for name, value in os.environ.items() if name not in WORKERS}
    if name != "packing.py":
        environment |= WORKERS
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())
    assert len(done.stdout.splitlines()) >= len(rows) + 1
    return rows


@pytest.mark.parametrize(
    ("name", "shape"),
    [("step.py", STEP_ROW), ("loader.py", LOADER_ROW), ("packing.py", PACKING_ROW), ("text.py", TEXT_ROW)],
)
def test_a_quick_benchmark_prints_a_table_and_writes_its_rows(name, shape, tmp_path):
    rows = rows_of(name, tmp_path)
    for row in rows:
        for key, kind in shape.items():
            assert type(row[key]) is kind, (key, row[key])
        assert all(math.isfinite(value) and value >= 0 for value in row.values() if isinstance(value, float))
        assert row["n"] >= 2
    if name == "step.py":
        arms = {row["arm"] for row in rows if row["precision"] == "fp32"}
        assert arms == {"student_only", "kd_live", "pesf_kd_live", "pesf_kd_stored", "dml"}
        assert {row["precision"] for row in rows} >= {"loop", "plain", "fp32"}
        assert all(row["ratio_to_student_only"] == 1 for row in rows if row["arm"] == "student_only")
    elif name == "text.py":
        assert {row["arm"] for row in rows} == {
            "student_only", "padded_to_128", "shuffled", "kd_stored", "pesf_kd_stored", "pesf_kd_live"
        }  # fmt: skip
        assert all(row["ratio_to_student_only"] == 1 for row in rows if row["arm"] == "student_only")
    elif name == "packing.py":
        assert {(row["packed"], row["batches"]) for row in rows} == {
            (k, b) for k in (2, 4, 8) for b in ("shared", "own")
        }
    else:
        assert {(row["images"], row["against"]) for row in rows} == {
            (images, against) for images in ("cifar", "28x28") for against in ("tensor", "pil")
        }


# Each script in a process that has imported libraries and nothing of ours: those imports take most of the time.
HELP = """
import json, os, runpy, sys
import mlflow, pyarrow.parquet, ray.cluster_utils, ray.tune, scipy.stats, torch, torchvision.transforms.v2

assert not {"analysis", "benchmarks", "study", "trainables"} & set(sys.modules)
for script in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        os.dup2(os.open(os.path.basename(script) + ".out", os.O_CREAT | os.O_WRONLY), 1)
        sys.argv[:] = [script, "--help"]
        sys.path[0] = os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")
    _, ended = os.wait()
    print(os.waitstatus_to_exitcode(ended))
"""


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    """Exit code and output of each script with --help, by its path."""
    folder = tmp_path_factory.mktemp("help")
    scripts = sorted(FOLDER.glob("*.py"))
    command = [sys.executable, "-c", HELP, *map(str, scripts)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    codes = map(int, done.stdout.split())
    outputs = [(folder / f"{script.name}.out").read_text() for script in scripts]
    return {each: (code, out, done.stderr) for each, code, out in zip(scripts, codes, outputs, strict=True)}


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_says_how_to_run_it(script, helped):
    code, shown, errors = helped[script]
    assert code == 0, errors
    assert f"python benchmarks/{script.name}" in shown
