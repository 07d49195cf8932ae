"""What Tune's config of a trial comes to, without Tune."""

from pathlib import Path

import pytest

from trainables.distillation import begin_run, epoch_result, take_notes
from trainables.measures import COST_FACTS
from trainables.training import DistillationRun

from .conftest import small_config


@pytest.mark.parametrize(("method", "stored"), [("kd", True), ("at", False), ("vid", False)])
def test_a_trial_that_matches_maps_has_its_teacher_live_where_others_find_its_outputs_stored(
    method: str, stored: bool, teacher_file: Path, tmp_path: Path
) -> None:
    settings = {
        "config": small_config(method=method).model_dump(mode="json"),
        "data_root": None,
        "teacher_path": str(teacher_file),
        "teacher_outputs": {"location": str(tmp_path), "dtype": "float16"},
        "device": "cpu",
    }
    run = begin_run(settings)
    assert run.teacher_outputs.stored == stored
    run.run_epoch()


def test_every_epoch_tells_what_the_trial_costs_by_what_it_is(digits, teacher):
    run = DistillationRun(small_config(), digits, teacher)
    for _ in range(2):
        assert set(epoch_result(run, run.run_epoch(), saved_at=0.0)["facts"]) == set(COST_FACTS)


def test_what_cannot_be_counted_is_told_and_costs_no_trial(digits, teacher, monkeypatch):
    def refuse(outputs, labels):
        raise RuntimeError("no such batch")

    take_notes()
    run = DistillationRun(small_config(method="sp"), digits, teacher)
    measures = run.run_epoch()
    monkeypatch.setattr("trainables.cost_ledger._known", {})
    run.objective = refuse
    assert epoch_result(run, measures, saved_at=0.0)["facts"] == {}
    (note,) = take_notes()
    assert note.startswith("what sp costs could not be counted, RuntimeError: no such batch (in refuse")
    assert take_notes() == []
