"""Effects of Tune's config of a trial, without Tune."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.run.run import DistillationRun
from trainables.spec.measures import ACCURACY, CALIBRATION, COST_FACTS, DATA_FACTS
from trainables.tune import session
from trainables.tune.session import begin_run, report, take_notes
from trainables.tune.trainable import DistillationTrainable


def settings_of(teacher_file: Path, **fields: Any) -> dict[str, Any]:
    """Return the settings of a trial as Tune passes them."""
    return {
        "config": small_config(**fields).model_dump(mode="json"),
        "data_root": None,
        "teacher_path": str(teacher_file),
        "device": "cpu",
    }


@pytest.mark.parametrize(("method", "stored"), [("kd", True), ("at", False), ("vid", False)])
def test_a_trial_that_matches_maps_has_its_teacher_live_where_others_find_its_outputs_stored(
    method: str, stored: bool, teacher_file: Path, tmp_path: Path
) -> None:
    run = begin_run(
        settings_of(teacher_file, method=method) | {"teacher_outputs": {"location": str(tmp_path), "dtype": "float16"}}
    )
    assert run.teacher_outputs.stored == stored
    run_epoch(run)


def reports_of(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all reports of a trial."""
    trainable = DistillationTrainable(settings)
    reports = [trainable.step()]
    while not reports[-1]["done"]:
        reports.append(trainable.step())
    return reports


def test_epochs_are_told_of_one_by_one_or_together_and_are_the_same(teacher_file):
    settings = settings_of(teacher_file, epochs=3)
    each, together = reports_of(settings), reports_of({**settings, "seconds_between_reports": 100.0})
    assert [[epoch["epoch"] for epoch in one["epochs"]] for one in each] == [[1], [2], [3]]
    assert [[epoch["epoch"] for epoch in one["epochs"]] for one in together] == [[1, 2, 3]]
    assert [one["finished"] for one in each] == [False, False, True]
    assert ["calibration" in one for one in each] == [False, False, True]
    assert each[-1]["calibration"] == together[0]["calibration"]
    assert set(each[-1]["calibration"]) == set(CALIBRATION[:3])
    learnt = [epoch[ACCURACY] for one in each for epoch in one["epochs"]]
    assert learnt == [epoch[ACCURACY] for epoch in together[0]["epochs"]]
    assert together[0][ACCURACY] == learnt[-1]


def test_an_epoch_that_goes_wrong_leaves_those_before_it_told_of(teacher_file, monkeypatch):
    whole = DistillationRun.train_epoch

    def fails_at_the_third(run):
        if run.epoch == 2:
            raise RuntimeError("no third epoch")
        return whole(run)

    monkeypatch.setattr(DistillationRun, "train_epoch", fails_at_the_third)
    (told,) = reports_of({**settings_of(teacher_file, epochs=3), "seconds_between_reports": 100.0})
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2]
    assert math.isnan(told[ACCURACY])
    assert not told["finished"]
    assert "no third epoch" in told["failed"]


@pytest.mark.parametrize("confirms", [False, True])
def test_every_report_tells_what_the_trial_costs_by_what_it_is_and_what_its_splits_are(digits, teacher, confirms):
    run = DistillationRun(small_config(epochs=2), digits, teacher, reads_test=confirms)
    for last in (False, True):
        facts = report(run, [run_epoch(run)], saved_at=0.0)["facts"]
        known = DATA_FACTS if confirms and last else DATA_FACTS[:2]
        assert set(facts) == {*COST_FACTS, *known}
        for prefix, split in (("val", digits.validation), ("test", digits.test)):
            if f"data/{prefix}_samples" in known:
                largest = split.labels.bincount().max().item()
                assert facts[f"data/{prefix}_samples"] == len(split)
                assert facts[f"data/{prefix}_constant_score"] == largest / len(split)


def test_what_cannot_be_counted_is_told_and_costs_no_trial(digits, teacher, monkeypatch):
    def refuse(outputs, labels):
        raise RuntimeError("no such batch")

    take_notes()
    run = DistillationRun(small_config(method="sp"), digits, teacher)
    measures = run_epoch(run)
    monkeypatch.setattr("trainables.costs.ledger._known", {})
    run.objective = refuse
    told = report(run, [measures], saved_at=0.0)
    assert set(told["facts"]) == set(DATA_FACTS[:2])
    (note,) = told["notes"]
    assert note.startswith(
        "the costs of sp could not be counted and are not recorded: RuntimeError: no such batch (in refuse"
    )
    assert take_notes() == []


def test_the_costs_of_a_trial_are_counted_once_however_often_it_reports(teacher_file, monkeypatch):
    counted = []
    monkeypatch.setattr(session, "count_costs", lambda run: counted.append(run) or count_costs(run))
    told = reports_of(settings_of(teacher_file, epochs=3))
    assert len(told) == 3
    assert told[0]["facts"]["cost/step_flops"] == told[2]["facts"]["cost/step_flops"] > 0
    assert len(counted) == 1
