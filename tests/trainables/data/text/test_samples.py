import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.data.text.conftest import texts_of, tsv, write_parquet
from trainables.data.sources import DataError
from trainables.data.text.samples import read_samples, read_tsv
from trainables.spec.glue import GLUE_TASKS

SST2, COLA, MNLI, QQP = (GLUE_TASKS[name] for name in ("sst2", "cola", "mnli", "qqp"))
FILE = Path("dev.tsv")


@pytest.mark.parametrize("name", GLUE_TASKS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_tsv_file_gives_the_texts_and_labels_that_are_in_it(name, end, start):
    task = GLUE_TASKS[name]
    columns, labels = texts_of(task, 20, seed=1)
    found = read_tsv(task, FILE, start.encode() + tsv(task, columns, labels, end=end))
    assert list(found.texts) == columns
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == labels


# Any possible cell content: quotes, and characters that other readers treat as line ends.
CELLS = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, st.integers(0, 2)), min_size=1, max_size=8))
def test_whatever_a_text_says_it_is_read_as_it_is(rows):
    columns, labels = [[row[0] for row in rows], [row[1] for row in rows]], [row[2] for row in rows]
    found = read_tsv(MNLI, FILE, tsv(MNLI, columns, labels))
    assert list(found.texts) == columns
    assert found.labels.tolist() == labels


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_content_is_read_or_refused_by_name(content):
    for task in (SST2, COLA):
        for start in (b"", b"sentence\tlabel\n", b"gj04\t1\t\tA sentence.\n"):
            said, found = "", None
            try:
                found = read_tsv(task, FILE, start + content)
            except DataError as error:
                said = str(error)
            assert said.startswith("dev.tsv") if found is None else len(found.texts[0]) == len(found.labels) > 0


@pytest.mark.parametrize(
    ("task", "content", "said"),
    [
        (SST2, b"", "dev.tsv: the file is empty"),
        (SST2, b"sentence\tlabel\n", "dev.tsv: has a header but no samples"),
        (SST2, b"text\tlabel\nfine\t1\n", "dev.tsv, row 1: no column 'sentence'; SST-2 needs 'sentence', 'label', the"),
        (SST2, b"sentence\tlabel\nfine\t1\ndull\t2\n", "dev.tsv, row 3: unknown label '2'; SST-2 has 0, 1"),
        (SST2, b"sentence\tlabel\nfine\n", "dev.tsv, row 2: 1 cells, expected 2: fine"),
        (SST2, b"sentence\tlabel\nfine\t1\n\n", "dev.tsv, row 3: 1 cells, expected 2"),
        (SST2, b"sentence\tlabel\nfine\t1\nna\xefve\t1\n", "dev.tsv, row 3: not UTF-8 (byte 0xef)"),
        (COLA, b"gj04\t1\t\tA sentence.\ngj04\t1\tA sentence.\n", "dev.tsv, row 2: 3 cells, expected 4"),
        (COLA, b"gj04\t-1\t\tA sentence.\n", "dev.tsv, row 1: unknown label '-1'"),
        (
            MNLI,
            b"sentence1\tsentence2\tgold_label\na\tb\t-\n",
            "dev.tsv, row 2: unknown label '-'; MNLI-matched has en",
        ),
        (QQP, b"question1\tquestion2\tis_duplicate\na\tb\n", "dev.tsv, row 2: 2 cells, expected 3"),
    ],
)
def test_bad_input_is_refused_by_file_and_row(task, content, said):
    with pytest.raises(DataError) as caught:
        read_tsv(task, FILE, content)
    assert str(caught.value).startswith(said)


def test_rows_that_the_published_file_breaks_are_left_out_with_a_warning_and_no_more_of_them():
    content = b"question1\tquestion2\tis_duplicate\na\tb\t1\nwhy\nnot\t?\nc\td\t0\n"
    with pytest.warns(UserWarning, match="dev.tsv: skipped 2 rows with the wrong number of cells"):
        found = read_tsv(QQP, FILE, content, broken_rows=2)
    assert found.texts == (["a", "c"], ["b", "d"])
    with pytest.raises(DataError, match="row 4: 2 cells, expected 3"):
        read_tsv(QQP, FILE, content, broken_rows=1)


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_both_formats_give_the_same_samples_and_the_same_digest(name, tmp_path, small_task):
    small_task(name)
    task = GLUE_TASKS[name]
    columns, labels = texts_of(task, 40, seed=0)
    write_parquet(tmp_path / "train.parquet", task, columns, labels)
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(tsv(task, columns, labels)))
    from trainables.spec.datasets import DATASETS

    small = DATASETS[task.dataset].task
    one, other = (read_samples(small, tmp_path / file, training=True) for file in ("train.parquet", "train.tsv.gz"))
    assert one.texts == other.texts == tuple(columns)
    assert one.digest == other.digest
    assert one._replace(labels=1 - one.labels).digest != one.digest


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"text": ["a"], "label": [0]}, "no column 'sentence'; SST-2 needs 'sentence', 'label', the file has 'text'"),
        ({"sentence": ["a", "b"], "label": [0, -1]}, ", row 2: unknown label -1; SST-2 has 0 to 1"),
        ({"sentence": ["a", None], "label": [0, 1]}, ", row 2: no value in column 'sentence'"),
        ({"sentence": [1], "label": [0]}, "column 'sentence' holds int64, expected text"),
        ({"sentence": ["a"], "label": ["0"]}, "column 'label' holds string, expected integers"),
        ({"sentence": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "contains no samples"),
    ],
)
def test_a_parquet_file_of_other_content_is_refused_by_name(table, said, tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(DataError) as caught:
        read_samples(SST2, path, training=True)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_truncated_file_is_refused_by_name(tmp_path):
    parquet, text = tmp_path / "train.parquet", tmp_path / "train.tsv"
    columns, labels = texts_of(SST2, 40, seed=0)
    write_parquet(parquet, SST2, columns, labels)
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train\.parquet: not a complete Parquet file"):
        read_samples(SST2, parquet, training=True)
    text.write_bytes(tsv(SST2, columns, labels))
    with pytest.raises(DataError, match=r"train\.tsv: 40 samples; the training part of SST-2 has 67,349"):
        read_samples(SST2, text, training=True)
