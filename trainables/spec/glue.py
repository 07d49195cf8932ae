"""GLUE tasks: columns, labels and metrics; imports no torch, so plans are checked quickly.

The labels of GLUE's test parts are secret. The development part therefore serves as the test split. The validation
split is drawn from the training part, by source.

Source: Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding (2019).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

GLUE_PREFIX: Final = "glue:"
HUB_DATASET: Final = "nyu-mll/glue"
Metric = Literal["accuracy", "matthews", "f1"]
# Rule for grouping training rows by source; see `trainables.data.text.source_split`.
SourceRule = Literal["phrase", "first", "any"]
_VALIDATION_SHARE: Final = 0.1
_LARGEST_VALIDATION: Final = 5_000


@dataclass(frozen=True)
class GlueTask:
    """One classification task.

    Args:
        name: the dataset name's part after `glue:`.
        title: name in papers.
        labels: class names. A label is an index into this tuple.
        spellings: class names in the TSV files.
        columns: text columns in the TSV files, one or two. Positions for files without a header.
        label_column: label column in the TSV files, likewise.
        parquet_columns: text columns in the Parquet files, one or two. Their label column is `label`.
        folder: TSV folder.
        parquet_folder: Parquet folder.
        test_part: development part's name, used as the test split: in the TSV files, in the Parquet files.
        rows: number of samples in (training part, development part).
        metrics: reported metrics, always including accuracy.
        objective: metric to maximise.
        sources: rule for grouping training rows by source, to draw the validation split.
        columns_without_header: number of columns in TSV files without a header, else 0.
        broken_rows: maximum number of training rows with missing cells. Such rows exist in the published file and are
            skipped.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    spellings: tuple[str, ...]
    columns: tuple[str, ...]
    label_column: str
    parquet_columns: tuple[str, ...]
    folder: str
    parquet_folder: str
    rows: tuple[int, int]
    test_part: tuple[str, str] = ("dev", "validation")
    metrics: tuple[Metric, ...] = ("accuracy",)
    objective: Metric = "accuracy"
    sources: SourceRule = "any"
    columns_without_header: int = 0
    broken_rows: int = 0

    @property
    def dataset(self) -> str:
        """Dataset name."""
        return f"{GLUE_PREFIX}{self.name}"

    @property
    def split_sizes(self) -> tuple[int, int, int]:
        """Number of samples in (train, validation, test)."""
        train, test = self.rows
        validation = min(_LARGEST_VALIDATION, round(_VALIDATION_SHARE * train))
        return train - validation, validation, test

    @property
    def layouts(self) -> tuple[tuple[str, ...], ...]:
        """Training and development files, in GLUE's own layout and in the layout of the Hugging Face Hub."""
        tsv, parquet = self.test_part
        return (
            (f"{self.folder}/train.tsv", f"{self.folder}/{tsv}.tsv"),
            tuple(f"{self.parquet_folder}/{part}-00000-of-00001.parquet" for part in ("train", parquet)),
        )


_BINARY: Final = ("0", "1")
_ENTAILMENT: Final = ("entailment", "not_entailment")
_INFERENCE: Final = ("entailment", "neutral", "contradiction")


def _mnli(name: str, kind: str, development: int) -> GlueTask:
    return GlueTask(
        name=name,
        title=f"MNLI-{kind}",
        labels=_INFERENCE,
        spellings=_INFERENCE,
        columns=("sentence1", "sentence2"),
        label_column="gold_label",
        parquet_columns=("premise", "hypothesis"),
        folder="MNLI",
        parquet_folder="mnli",
        test_part=(f"dev_{kind}", f"validation_{kind}"),
        rows=(392_702, development),
        sources="first",  # each premise has three hypotheses
    )


GLUE_TASKS: Final[dict[str, GlueTask]] = {
    task.name: task
    for task in (
        GlueTask(
            name="sst2",
            title="SST-2",
            labels=("negative", "positive"),
            spellings=_BINARY,
            columns=("sentence",),
            label_column="label",
            parquet_columns=("sentence",),
            folder="SST-2",
            parquet_folder="sst2",
            rows=(67_349, 872),
            sources="phrase",
        ),
        GlueTask(
            name="cola",
            title="CoLA",
            labels=("unacceptable", "acceptable"),
            spellings=_BINARY,
            columns=("3",),  # source, label, original author's mark, sentence
            label_column="1",
            parquet_columns=("sentence",),
            folder="CoLA",
            parquet_folder="cola",
            rows=(8_551, 1_043),
            metrics=("accuracy", "matthews"),
            objective="matthews",
            columns_without_header=4,
        ),
        GlueTask(
            name="mrpc",
            title="MRPC",
            labels=("not_equivalent", "equivalent"),
            spellings=_BINARY,
            columns=("#1 String", "#2 String"),
            label_column="Quality",
            parquet_columns=("sentence1", "sentence2"),
            folder="MRPC",
            parquet_folder="mrpc",
            rows=(3_668, 408),
            metrics=("accuracy", "f1"),
            objective="f1",
        ),
        GlueTask(
            name="rte",
            title="RTE",
            labels=_ENTAILMENT,
            spellings=_ENTAILMENT,
            columns=("sentence1", "sentence2"),
            label_column="label",
            parquet_columns=("sentence1", "sentence2"),
            folder="RTE",
            parquet_folder="rte",
            rows=(2_490, 277),
            sources="first",
        ),
        GlueTask(
            name="qnli",
            title="QNLI",
            labels=_ENTAILMENT,
            spellings=_ENTAILMENT,
            columns=("question", "sentence"),
            label_column="label",
            parquet_columns=("question", "sentence"),
            folder="QNLI",
            parquet_folder="qnli",
            rows=(104_743, 5_463),
        ),
        GlueTask(
            name="qqp",
            title="QQP",
            labels=("not_duplicate", "duplicate"),
            spellings=_BINARY,
            columns=("question1", "question2"),
            label_column="is_duplicate",
            parquet_columns=("question1", "question2"),
            folder="QQP",
            parquet_folder="qqp",
            rows=(363_846, 40_430),
            metrics=("accuracy", "f1"),
            objective="f1",
            broken_rows=100,
        ),
        _mnli("mnli", "matched", 9_815),
        _mnli("mnli_mismatched", "mismatched", 9_832),
    )
}
# Regression tasks, with label meanings.
REGRESSION_TASKS: Final = {"stsb": "a similarity from 0 to 5"}


def cached_by_hub(name: str) -> Path | None:
    """Return a GLUE file in the local Hugging Face cache, or None; downloads nothing.

    Args:
        name: file path in the Hub's repository.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # the extra `text` is not installed
        return None
    found = try_to_load_from_cache(HUB_DATASET, name, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def check_classes(task: GlueTask, num_classes: int, *, where: str) -> None:
    """Check that a checkpoint has as many classes as a task.

    Args:
        task: task to compare with.
        num_classes: number of classes in the checkpoint.
        where: checkpoint name for the message.

    Raises:
        ValueError: the numbers differ; the message gives both.
    """
    if num_classes != len(task.labels):
        raise ValueError(
            f"{where} has {num_classes} classes, and {task.dataset} {len(task.labels)} ({', '.join(task.labels)}): "
            "give a checkpoint that was fine-tuned on this task, or one without a classification layer"
        )
