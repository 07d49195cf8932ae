import pytest

from trainables.methods.registry import METHODS
from trainables.spec.datasets import DATASETS, check_dataset_name
from trainables.spec.glue import GLUE_TASKS, check_classes


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_every_task_is_a_dataset_whose_splits_are_those_of_its_files(name):
    task, info = GLUE_TASKS[name], DATASETS[f"glue:{name}"]
    assert check_dataset_name(info.name) == info.name == task.dataset
    assert info.num_classes == len(task.labels) == len(task.spellings)
    assert sum(info.split_sizes[:2]) == task.rows[0]
    assert info.split_sizes[2] == task.rows[1]
    assert info.num_views == 1
    assert len(task.columns) == len(task.parquet_columns)


def test_each_task_has_glues_own_measures():
    objectives = {name: task.objective for name, task in GLUE_TASKS.items()}
    others = {"cola": "matthews", "mrpc": "f1", "qqp": "f1"}
    assert objectives == dict.fromkeys(GLUE_TASKS, "accuracy") | others
    for task in GLUE_TASKS.values():
        assert {"accuracy", task.objective} == set(task.metrics)


def test_a_regression_is_refused_with_the_methods_that_need_classes():
    with pytest.raises(ValueError, match=r"'glue:stsb' is a regression.*similarity from 0 to 5") as caught:
        check_dataset_name("glue:stsb")
    assert all(method in str(caught.value) for method in METHODS)
    assert "glue:sst2" in str(caught.value)


@pytest.mark.parametrize(("given", "meant"), [("glue:sst-2", "glue:sst2"), ("glue:mnli_matched", "glue:mnli")])
def test_an_unknown_task_is_refused_with_the_nearest_name(given, meant):
    with pytest.raises(ValueError, match="did you mean") as caught:
        check_dataset_name(given)
    assert meant in str(caught.value)


def test_a_checkpoint_of_other_classes_is_refused_by_name():
    check_classes(GLUE_TASKS["mnli"], 3, where="models/bert")
    with pytest.raises(ValueError, match=r"models/bert has 2 classes, and glue:mnli 3 \(entailment, neutral"):
        check_classes(GLUE_TASKS["mnli"], 2, where="models/bert")
