"""Records of simulated studies with planted effects."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.records import EPOCHS_SCHEMA, TRIALS_SCHEMA

START = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "dataset": "digits",
    "student": "cnn_3_4",
    "teacher": "cnn_32_64",
    "epochs_planned": 15,
    "temperature": 4.0,
    "adapter_kind": "serial",
    "adapter_width": 16,
    "detach_adapter_target": False,
    "adapter_learning_rate": 0.05,
}


def trial(number: int, **changes: Any) -> dict[str, Any]:
    """Return the row of a finished search trial, with `changes` applied."""
    row = {
        **CONFIG,
        "trial_id": f"s-{number:04d}",
        "study": "s",
        "space": "adapter_width",
        "stage": "search",
        "name": "w16-T4.0-s0",
        "method": "pesf_kd",
        "config_id": f"config{number}",
        "replicate": 0,
        "seed": number,
        "status": "finished",
        "epochs": 15,
        "started": START + timedelta(seconds=number),
        "seconds": 1.0,
    }
    return {**row, **changes}


def trials_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return the rows as a trials table. Columns that no row contains are null."""
    return pa.Table.from_pylist(rows, schema=TRIALS_SCHEMA)


def epochs_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return the rows as an epochs table."""
    return pa.Table.from_pylist(rows, schema=EPOCHS_SCHEMA)


def whole_study(*, searched: int = 24, pruned: int = 4, replicates: int = 5) -> tuple[pa.Table, pa.Table]:
    """Return the tables of a search over width and rate, with repetitions and all epochs.

    The three best configs and the controls are repeated on fresh seeds. Accuracy falls by 0.02 per nat of gap. The gap
    falls with the logarithm of the width. Trials of a replicate share noise.
    """
    generator = np.random.default_rng(0)
    rows = []
    for number in range(searched):
        width = int(np.exp(generator.uniform(np.log(2), np.log(256))))
        gap = 6 - 0.8 * np.log(width) + 0.5 * generator.normal()
        accuracy = 0.80 - 0.02 * gap + 0.015 * generator.normal()
        changes = {"adapter_width": width, "name": f"w{width}-T4.0-s0", "val/sharpness_gap": gap}
        if number % max(1, searched // max(1, pruned)) == 3 and pruned:
            changes |= {"status": "pruned", "epochs": 5}
            accuracy -= 0.15
        rate = float(np.exp(generator.uniform(-6, -1)))
        rows.append(trial(number, **changes, adapter_learning_rate=rate, **{"val/accuracy": accuracy}))
    finished = [row for row in rows if row["status"] == "finished"]
    best = sorted(finished, key=lambda row: -row["val/accuracy"])[:3]
    shared = 0.02 * generator.normal(size=replicates + 1)
    for replicate in range(1, replicates + 1):
        repeated = [("pesf_kd", row, row["val/accuracy"] - 0.02, row["val/sharpness_gap"]) for row in best]
        repeated += [("ce", {}, 0.66, None), ("kd", {}, 0.69, 7.0)]
        for method, row, mean, gap in repeated:
            noise = shared[replicate] + 0.01 * generator.normal()
            changes = {
                "method": method,
                "stage": "replicate" if row else "control",
                "replicate": replicate,
                "config_id": row.get("config_id", f"config-{method}"),
                "adapter_width": row.get("adapter_width", 16),
                "name": f"{row['name'][:-3]}-s{replicate}" if row else f"{method}-s{replicate}",
                "val/accuracy": mean + noise,
                "val/sharpness_gap": None if gap is None else gap + 0.2 * generator.normal(),
                "test/accuracy": mean + noise - 0.01,
            }
            if row:
                changes["adapter_learning_rate"] = row["adapter_learning_rate"]
            rows.append(trial(len(rows), **changes))
    epochs = [
        {
            "trial_id": row["trial_id"],
            "epoch": epoch,
            "val/accuracy": row["val/accuracy"] * (1 - 0.8 * np.exp(-epoch / 3)),
            "val/sharpness_gap": row["val/sharpness_gap"] and row["val/sharpness_gap"] * (1 + np.exp(-epoch / 4)),
        }
        for row in rows
        for epoch in range(1, row["epochs"] + 1)
    ]
    return trials_table(rows), epochs_table(epochs)


def write_records(directory: Path, trials: pa.Table, epochs: pa.Table) -> None:
    """Write both tables where a study has them."""
    for kind, table in (("trials", trials), ("epochs", epochs)):
        (directory / "records" / kind).mkdir(parents=True)
        pq.write_table(table, directory / "records" / kind / "segment-0.parquet")
