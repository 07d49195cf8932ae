"""Fixed packs: the same members give the same bits, also when they resume."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.conftest import small_config
from trainables.tune.cohort import Cohort
from trainables.tune.session import begin_run

pytestmark = pytest.mark.study

Numbers = dict[str, dict[int, dict[str, float]]]


def settings_of(teacher_file: Path, **fields: Any) -> dict[str, Any]:
    return {
        "config": small_config(**fields).model_dump(mode="json"), "data_root": None, "teacher_path": str(teacher_file),
        "device": "cpu", "checkpoints": [],
    }  # fmt: skip


@pytest.fixture
def members(teacher_file: Path) -> list[dict[str, Any]]:
    """Three trials of one pack, and one of another method."""
    kinds = [{"adapter_width": 4}, {"adapter_width": 16, "seed": 1}, {"adapter_width": 7, "seed": 2}, {"method": "kd"}]
    return [{"trial_id": f"t-{k:04}", **settings_of(teacher_file, epochs=4, **kind)} for k, kind in enumerate(kinds)]


def numbers_of(cohort: Cohort, *, until: int = 99, folder: Path | None = None) -> Numbers:
    """Train up to an epoch, and save it if a folder is given. Return the measures without costs."""
    found: Numbers = {}
    for reports in cohort.run():
        for name, report in reports.items():
            for epoch in report["epochs"]:
                kept = {key: value for key, value in epoch.items() if key.startswith(("train/", "val/"))}
                found.setdefault(name, {})[epoch["epoch"]] = kept
        if max(found["t-0000"]) >= until:
            for name in cohort.running if folder is not None else ():
                cohort.save(name, folder / name / f"checkpoint_{until:06}")
            break
    return found


def test_a_pack_resumed_from_checkpoints_and_one_begun_again_equal_one_never_interrupted(members, tmp_path):
    whole = numbers_of(Cohort(members, begin=begin_run))
    assert {name: sorted(epochs) for name, epochs in whole.items()} == {
        each["trial_id"]: [1, 2, 3, 4] for each in members
    }
    numbers_of(Cohort(members, begin=begin_run), until=2, folder=tmp_path)
    saved = [{**each, "checkpoints": [str(tmp_path / each["trial_id"] / "checkpoint_000002")]} for each in members]
    resumed = numbers_of(Cohort(saved, begin=begin_run))
    assert resumed == {name: {epoch: epochs[epoch] for epoch in (3, 4)} for name, epochs in whole.items()}
    # One checkpoint is missing: all begin again, because a pack of other epochs would round differently.
    lost = [{**each, "checkpoints": [] if each is saved[1] else each["checkpoints"]} for each in saved]
    assert numbers_of(Cohort(lost, begin=begin_run)) == whole


def test_a_member_that_has_ended_trains_again_for_the_others_and_reports_nothing(members):
    whole = numbers_of(Cohort(members, begin=begin_run))
    ended = [{**each, "has_ended": each["trial_id"] == "t-0001"} for each in members]
    assert numbers_of(Cohort(ended, begin=begin_run)) == {name: whole[name] for name in whole if name != "t-0001"}
    without = numbers_of(Cohort([each for each in members if each["trial_id"] != "t-0001"], begin=begin_run))
    assert without["t-0003"] == whole["t-0003"]  # another method is another pack
    assert without["t-0000"] != whole["t-0000"], "the rounding depends on the members, so they have to be recorded"


def test_a_member_that_cannot_begin_fails_alone(members):
    def begin(settings: dict[str, Any]) -> Any:
        if settings["trial_id"] == "t-0002":
            raise ZeroDivisionError("of all things")
        return begin_run(settings)

    reports: dict[str, list[dict[str, Any]]] = {}
    for each in Cohort(members, begin=begin).run():
        for name, report in each.items():
            reports.setdefault(name, []).append(report)
    assert [report["done"] for report in reports["t-0002"]] == [True]
    assert "ZeroDivisionError: of all things" in reports["t-0002"][0]["failed"]
    assert {name for name, told in reports.items() if told[-1]["finished"]} == {"t-0000", "t-0001", "t-0003"}


def test_a_stopped_member_trains_no_further(members):
    cohort = Cohort(members, begin=begin_run)
    for reports in cohort.run():
        if reports["t-0000"]["epoch"] == 1:
            cohort.stop({"t-0001"})
        assert ("t-0001" in reports) == (reports["t-0000"]["epoch"] == 1)
