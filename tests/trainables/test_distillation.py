"""What Tune's config of a trial comes to, without Tune."""

from pathlib import Path

import pytest

from trainables.distillation import begin_run

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
