"""A second study of a dataset states which seeds repeat, and how often the test split was read."""

import json
from pathlib import Path

import pytest

from study.cli.preview import describe_plan
from study.plan.plan import StudyPlan
from study.plan.siblings import readings, readings_note, repeated_seed_note, sibling_notes, siblings
from tests.analysis.synthetic import epochs_table, trial, trials_table, write_records
from tests.study.factories import make_plan


def planned(folder: Path, name: str, **values: object) -> StudyPlan:
    plan = make_plan(folder, name=name, **values)
    plan.save()
    return plan


def confirmed(plan: StudyPlan, number: int) -> None:
    """Write records with `number` trials that read the test split, and one that did not."""
    rows = [trial(k, stage="confirm", **{"test/accuracy": 0.8, "val/accuracy": 0.8}) for k in range(number)]
    write_records(plan.directory, trials_table([*rows, trial(number, **{"val/accuracy": 0.8})]), epochs_table([]))


def test_the_only_study_of_a_dataset_repeats_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path, "first")
    assert sibling_notes(plan) == []
    assert readings(plan) == (0, (), (), 0)


def test_a_second_study_with_the_same_seed_says_so_and_names_a_free_one(tmp_path: Path) -> None:
    planned(tmp_path, "first")
    planned(tmp_path, "second", seed=1)
    planned(tmp_path, "elsewhere", base={"dataset": "mnist"})
    third = make_plan(tmp_path, name="third")
    assert [each.name for each in siblings(third)] == ["first", "second"]
    note = repeated_seed_note(third)
    assert note is not None
    assert note.startswith("Seeds repeat: first in this folder used seed 0 on digits too.")
    assert note.endswith("--seed 2 is unused.")
    assert repeated_seed_note(make_plan(tmp_path, name="fourth", seed=2)) is None
    assert "\nnote       Seeds repeat: first in this folder" in describe_plan(third, [])


def test_readings_of_the_test_split_are_counted_over_the_folder(tmp_path: Path) -> None:
    first, second = planned(tmp_path, "first"), planned(tmp_path, "second", seed=1)
    confirmed(first, 3)
    assert readings_note(first) == "The test split of digits was read by 3 trials of 1 study in this folder (first)."
    confirmed(second, 2)
    for plan in (first, second):
        assert readings(plan) == (5, ("first", "second"), (), 0)
    note = readings_note(second)
    assert note is not None
    assert note.startswith(
        "The test split of digits was read by 5 trials of 2 studies in this folder (first and second)."
    )
    assert note.endswith("the split is no longer untouched.")


def test_plans_that_cannot_be_read_are_left_out_and_damaged_records_are_named(tmp_path: Path) -> None:
    plan = planned(tmp_path, "first")
    for name, content in (("text", "no plan"), ("list", "[]"), ("other", json.dumps({"base": {"dataset": "digits"}}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(content)
    assert siblings(plan) == [("other", 0)]
    folder = tmp_path / "other" / "records" / "trials"
    folder.mkdir(parents=True)
    (folder / "segment-0.parquet").write_bytes(b"damaged")
    assert readings_note(plan) == "The records of other cannot be read and are not counted."


@pytest.mark.parametrize("seed", [0, 3])
def test_many_studies_with_the_seed_are_counted(tmp_path: Path, seed: int) -> None:
    for number in range(7):
        planned(tmp_path, f"s{number}", seed=seed)
    note = repeated_seed_note(make_plan(tmp_path, name="mine", seed=seed))
    assert note is not None
    assert "s0, s1, s2, s3, s4 and 2 more in this folder" in note
    assert f"--seed {1 if seed == 0 else 0} is unused" in note
