"""Small GLUE tasks in the published formats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables.spec.datasets import DATASETS
from trainables.spec.glue import GLUE_TASKS, GlueTask

TRAIN, TEST = 40, 12
_WORDS = [
    "a",
    "the",
    "film",
    "plot",
    "is",
    "was",
    "not",
    "very",
    "good",
    "bad",
    "dull",
    "bright",
    ",",
    ".",
    '"quoted"',
    "wit's",
    "90",
    "café",
]
# Headers of the published files. They have more columns than are read.
_HEADERS = {
    "sst2": ("sentence", "label"),
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "qnli": ("index", "question", "sentence", "label"),
    "qqp": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "mnli": ("index", "promptID", "sentence1", "sentence2", "label1", "gold_label"),
    "mnli_mismatched": ("index", "promptID", "sentence1", "sentence2", "label1", "gold_label"),
}

MakeTask = Callable[..., Path]


def texts_of(task: GlueTask, count: int, *, seed: int) -> tuple[list[list[str]], list[int]]:
    """Return texts of 1 to 30 words for each column, and labels with nearly equal class counts."""
    random = np.random.default_rng(seed)
    columns = [
        [" ".join(random.choice(_WORDS, size=random.integers(1, 31))) for _ in range(count)] for _ in task.columns
    ]
    return columns, random.permutation(np.arange(count) % len(task.labels)).tolist()


def tsv(task: GlueTask, columns: list[list[str]], labels: list[int], *, end: str = "\n") -> bytes:
    """Return the content of a TSV file of the task."""
    if task.columns_without_header:
        rows = [("gj04", task.spellings[y], "", text) for text, y in zip(columns[0], labels, strict=True)]
    else:
        header = _HEADERS[task.name]
        places = [header.index(name) for name in (*task.columns, task.label_column)]
        rows = [header]
        for *texts, label in zip(*columns, labels, strict=True):
            row = ["0"] * len(header)
            for place, cell in zip(places, (*texts, task.spellings[label]), strict=True):
                row[place] = cell
            rows.append(tuple(row))
    return "".join("\t".join(row) + end for row in rows).encode()


def write_parquet(path: Path, task: GlueTask, columns: list[list[str]], labels: list[int]) -> None:
    """Write the same data in the Parquet format of the Hugging Face hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = dict(zip(task.parquet_columns, columns, strict=True))
    numbered = {"label": pa.array(labels, pa.int64()), "idx": pa.array(range(len(labels)), pa.int32())}
    pq.write_table(pa.table(named | numbered), path)


@pytest.fixture
def small_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTask:
    """Return a function that writes a task of 40 training and 12 development samples and returns the data root.

    The registry then expects these sizes.
    """

    def make(name: str, *, kind: str = "tsv", root: Path | None = None, seed: int = 0) -> Path:
        root = tmp_path / "data" if root is None else root
        task = replace(GLUE_TASKS[name], rows=(TRAIN, TEST))
        info = replace(DATASETS[task.dataset], task=task, split_sizes=task.split_sizes)
        monkeypatch.setitem(DATASETS, task.dataset, info)
        for number, (path, count) in enumerate(zip(task.layouts[kind == "parquet"], task.rows, strict=True)):
            columns, labels = texts_of(task, count, seed=seed + number)
            file = root / path
            if kind == "parquet":
                write_parquet(file, task, columns, labels)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(tsv(task, columns, labels))
        return root

    return make
