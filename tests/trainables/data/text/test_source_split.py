from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from tests.trainables.data.text.conftest import tsv
from trainables.data import load_dataset
from trainables.data.sources import DataError
from trainables.data.text.dataset import count_sources
from trainables.data.text.samples import read_samples
from trainables.data.text.source_split import COMMON, sources_of, split_by_source
from trainables.spec.datasets import DATASETS
from trainables.spec.glue import GLUE_TASKS

pytestmark = pytest.mark.study


def test_a_phrase_has_the_source_of_the_sentence_that_it_is_cut_from():
    rows = ["a dull film with no plot", "no plot", "a bright film", "A  Bright", "bright film", "film with no"]
    sources = sources_of([rows], "phrase")
    assert sources.tolist() == [0, 0, 1, 1, 1, 0]


def test_a_short_phrase_of_several_sentences_is_common_and_is_for_training():
    rows = ["a dull film with no plot", "film", "a bright film", "with no"]
    sources = sources_of([rows], "phrase")
    assert sources.tolist() == [0, COMMON, 1, 0]
    sources = np.array([COMMON, *range(20)])
    assert 0 in split_by_source(np.ones(21), sources, 20, seed=0).train


def test_sentences_that_share_a_phrase_of_four_tokens_are_one_source():
    shared, other = "is not a good film", "not a good"
    rows = [f"this {shared}", f"that {shared} either", shared, other, "a good"]
    assert sources_of([rows], "phrase").tolist() == [0] * 5
    apart = ["this not a good plot", "that not a good scene", other]
    assert sources_of([apart], "phrase").tolist() == [0, 1, COMMON]


def test_a_premise_is_a_source_whatever_is_said_of_it():
    premises = ["It rains .", "it  rains .", "It snows .", ""]
    assert sources_of([premises, ["yes"] * 4], "first").tolist() == [0, 0, 1, 2]


def test_questions_are_connected_through_shared_ones_in_either_place():
    one = ["How old is he?", "Who is he?", "Where is Rome?", "", ""]
    other = ["who is he?", "Why him?", "Is Rome old?", "x", "y"]
    assert sources_of([one, other], "any").tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "rule"),
    [("sst2", "phrase"), ("mnli", "first"), ("mnli_mismatched", "first"), ("rte", "first")]
    + [(name, "any") for name in ("qnli", "qqp", "mrpc", "cola")],
)
def test_each_task_has_its_own_kind_of_source(name, rule):
    assert GLUE_TASKS[name].sources == rule


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2)), min_size=100, max_size=200))
def test_whatever_is_shared_stays_on_one_side(rows):
    texts = [[f"text {row[column]}" for row in rows] for column in (0, 1)]
    labels = np.array([row[2] for row in rows])
    for rule, columns in (("first", [0]), ("any", [0, 1])):
        try:
            split = split_by_source(labels, sources_of(texts, rule), 40, seed=0)
        except DataError:
            continue
        sides = [{texts[column][row] for row in side for column in columns} for side in (split.train, split.validation)]
        assert not sides[0] & sides[1]
        assert sorted([*split.train, *split.validation]) == list(range(len(rows)))
        assert 38 <= len(split.validation) <= 40


def test_sources_of_single_rows_are_split_as_rows_are_with_the_same_share_of_each_class():
    labels = np.repeat([0, 1, 2], [500, 300, 203])
    first, again, other = (split_by_source(labels, np.arange(1003), 100, seed=seed) for seed in (0, 0, 1))
    assert np.bincount(labels[first.validation]).tolist() == [50, 30, 20]
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)
    assert (first.sources, first.validation_sources) == (1003, 100)


def test_classes_keep_their_shares_as_near_as_whole_sources_allow():
    random = np.random.default_rng(0)
    sources = np.repeat(np.arange(400), random.integers(1, 9, size=400))
    labels = (random.random(len(sources)) < random.random(400)[sources]).astype(int)
    split = split_by_source(labels, sources, 180, seed=0)
    assert len(split.validation) == 180
    assert labels[split.validation].mean() == pytest.approx(labels.mean(), abs=0.01)


def test_a_source_of_more_than_a_tenth_of_validation_is_for_training():
    sources = np.concatenate([np.zeros(600, dtype=int), np.repeat([1], 11), np.arange(2, 402)])
    split = split_by_source(np.arange(len(sources)) % 2, sources, 100, seed=0)
    assert not {0, 1} & set(sources[split.validation])
    assert len(split.validation) == 100


def test_a_training_part_of_one_source_is_refused_with_its_size():
    with pytest.raises(
        DataError, match=r"cannot draw a validation split of 40 rows.*400 rows have 1 sources, the largest with 400"
    ):
        split_by_source(np.arange(400) % 2, np.zeros(400, dtype=int), 40, seed=0)


def test_the_refusal_of_a_task_names_its_file(small_task):
    root = small_task("mrpc")
    task = DATASETS["glue:mrpc"].task
    texts = [["the same ."] * 40, ["the same ."] * 40]
    (root / "MRPC" / "train.tsv").write_bytes(tsv(task, texts, [0, 1] * 20))
    with pytest.raises(DataError, match=r"MRPC/train\.tsv: cannot draw a validation split of 4 rows"):
        load_dataset("glue:mrpc", root)


def test_a_dataset_counts_its_sources(small_task):
    root = small_task("qqp")
    found = load_dataset("glue:qqp", root)
    assert found.source_counts == count_sources(DATASETS["glue:qqp"], root, seed=0)
    assert found.source_counts == {"sources": 40, "validation_sources": 4}


@pytest.mark.slow
def test_on_sst2_a_bag_of_words_does_on_validation_as_it_does_on_the_development_part(data_root):
    training, development = (
        read_samples(GLUE_TASKS["sst2"], data_root / "SST-2" / f"{part}.tsv", training=part == "train")
        for part in ("train", "dev")
    )
    texts = training.texts[0]
    rows, validation, *counts = split_by_source(training.labels, sources_of([texts], "phrase"), 5_000, seed=0)
    assert counts == [6_722, 508]
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    model = LogisticRegression(solver="liblinear", tol=0.01).fit(
        words.fit_transform([texts[row] for row in rows]), training.labels[rows]
    )
    found = model.score(words.transform([texts[row] for row in validation]), training.labels[validation])
    wanted = model.score(words.transform(development.texts[0]), development.labels)
    assert abs(found - wanted) < 0.02  # 0.93 against 0.82 if rows are drawn one by one
    assert overlap([texts[row] for row in validation], [texts[row] for row in rows]) < 0.1
    assert overlap(development.texts[0], [texts[row] for row in rows]) == pytest.approx(0.12, abs=0.02)


def overlap(rows, others, *, shortest=3):
    """Return the share of rows that contain one of the others (of three tokens or more) or are part of one."""
    kept = {other for other in (tuple(text.split()) for text in others) if len(other) >= shortest}
    starts = defaultdict(set)
    for row in (tuple(text.split()) for text in rows):
        starts[row[:shortest]].add(row)
    within = {
        row
        for other in kept
        for at in range(len(other) - shortest + 1)
        for row in starts.get(other[at : at + shortest], ())
        if other[at : at + len(row)] == row
    }
    count = 0
    for row in (tuple(text.split()) for text in rows):
        parts = {row[i:j] for i in range(len(row)) for j in range(i + shortest, len(row) + 1)}
        count += row in within or not kept.isdisjoint(parts)
    return count / len(rows)
