import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

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
    """Run a benchmark with `--quick` and return the rows."""
    path = folder / "rows.json"
    command = [sys.executable, str(FOLDER / name), "--quick", "--json", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
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


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_says_how_to_run_it(launch, script):
    done = launch("--help", module=f"benchmarks.{script.stem}")
    assert done.returncode == 0, done.stderr
    assert f"python benchmarks/{script.name}" in done.stdout
