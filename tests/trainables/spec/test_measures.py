import pytest

from trainables.spec.glue import GLUE_TASKS
from trainables.spec.measures import (
    ACCURACY,
    MEASURES,
    OBJECTIVES,
    SHARPNESS_GAP,
    VALIDATION_MEASURES,
    objective_in_words,
    objective_of,
)


def test_every_measure_has_one_name_under_one_of_four_headings():
    assert len(set(MEASURES)) == len(MEASURES)
    assert {name.split("/")[0] for name in MEASURES} == {"val", "train", "cost", "test"}
    assert {ACCURACY, SHARPNESS_GAP} <= set(VALIDATION_MEASURES)


@pytest.mark.parametrize(
    ("dataset", "measure", "words"),
    [
        ("digits", "accuracy", "accuracy"),
        ("image_folder:glue:cola", "accuracy", "accuracy"),
        ("glue:sst2", "accuracy", "accuracy"),
        ("glue:cola", "matthews", "Matthews correlation"),
        ("glue:qqp", "f1", "F1"),
    ],
)
def test_the_objective_is_the_datasets_own_on_either_split(dataset, measure, words):
    assert objective_of(dataset) == f"val/{measure}"
    assert objective_of(dataset, "test") == f"test/{measure}"
    assert objective_in_words(dataset) == words


def test_every_task_reports_its_objective():
    for task in GLUE_TASKS.values():
        assert objective_of(task.dataset) in OBJECTIVES
        assert {f"{split}/{name}" for split in ("val", "test") for name in task.metrics} <= set(MEASURES)
