from typing import Any

import pytest

from trainables.models.class_order import ClassNamesError, class_order
from trainables.spec.glue import GLUE_TASKS


def config(*names: str) -> dict[str, Any]:
    return {"id2label": {str(number): name for number, name in enumerate(names)}}


@pytest.mark.parametrize(
    ("task", "names", "order"),
    [
        ("sst2", ("NEGATIVE", "POSITIVE"), (0, 1)),
        ("sst2", ("positive", "negative"), (1, 0)),
        ("rte", ("not_entailment", "entailment"), (1, 0)),
        ("qnli", ("Not entailment", "Entailment"), (1, 0)),
        ("mnli", ("contradiction", "neutral", "entailment"), (2, 1, 0)),
        ("mnli", ("contradiction", "entailment", "neutral"), (1, 2, 0)),
        ("mrpc", ("equivalent", "not_equivalent"), (1, 0)),
        ("qqp", ("not-duplicate", "duplicate"), (0, 1)),
        ("cola", ("acceptable", "unacceptable"), (1, 0)),
        ("cola", ("1", "0"), (1, 0)),  # the order in GLUE's files
    ],
)
def test_classes_are_matched_by_name(task: str, names: tuple[str, ...], order: tuple[int, ...]) -> None:
    found = class_order(config(*names), GLUE_TASKS[task], where="folder")
    assert found.order == order
    assert [*found.labels] == [*GLUE_TASKS[task].labels]
    reordered = order != tuple(range(len(order)))
    wanted = f"classes reordered by name, from {', '.join(names)} to {', '.join(found.labels)}"
    assert found.note == (wanted if reordered else f"classes {', '.join(found.labels)}, in this order")


@pytest.mark.parametrize("content", [{}, {"id2label": None}, config("LABEL_0", "LABEL_1"), {"num_labels": 2}])
def test_classes_without_names_are_taken_as_they_are(content: dict[str, Any]) -> None:
    found = class_order(content, GLUE_TASKS["sst2"], where="folder")
    assert found.order == (0, 1)
    assert "config.json does not name the classes; assuming negative, positive, in this order" in found.note


def test_names_that_only_label2id_has_count() -> None:
    content = config("LABEL_0", "LABEL_1") | {"label2id": {"positive": 0, "negative": 1}}
    assert class_order(content, GLUE_TASKS["sst2"], where="folder").order == (1, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (config("joy", "anger"), "folder has the classes joy, anger, but glue:sst2 has negative, positive: give a"),
        (config("negative", "LABEL_1"), "folder has the classes negative, LABEL_1, but glue:sst2"),
        (config("positive", "positive"), "folder has the classes positive, positive, but"),
        (
            config("negative", "positive") | {"label2id": {"positive": 0, "negative": 1}},
            "contradicts itself: id2label has negative, positive, label2id positive, negative",
        ),
        ({"id2label": {"1": "negative", "2": "positive"}}, "id2label in config.json does not number .* from 0"),
        ({"id2label": ["negative", "positive"]}, "id2label in config.json does not map numbers to names"),
        ({"label2id": {"negative": "zero"}}, "label2id in config.json does not map names to numbers"),
    ],
)
def test_other_classes_and_contradictions_are_refused_with_both_lists(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ClassNamesError, match=says):
        class_order(content, GLUE_TASKS["sst2"], where="folder")
