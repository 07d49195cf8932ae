"""Each field is analysed on the scale on which the study searched it."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.reading.landmark import at_landmark, config_columns
from analysis.reading.pooling import of_study, pool_studies
from analysis.reading.scales import log_fields_in, log_fields_of
from analysis.reading.trials import EXAMPLES, StudyRecords, open_study
from search_spaces import MethodComparison, find_space, space_names
from study.records import DamagedRecordsError
from tests.analysis.synthetic import epochs_table, trial, trials_table, write_records

TRAINED = {"epochs": 1, "val/accuracy": 0.5}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", space_names())
def test_without_a_summary_fields_have_the_scale_of_their_space(name: str, text: bool) -> None:
    space = find_space(name, text=text)
    if isinstance(space, MethodComparison):
        logarithmic, linear = {each.name for each in space.tuned}, set()
    else:
        searched = [each for each in space.parameters if each.role != "fixed" and each.kind != "categorical"]
        logarithmic = {each.name for each in searched if each.log}
        linear = {each.name for each in searched} - logarithmic
    assert logarithmic <= log_fields_of([name])
    assert not linear & log_fields_of([name])


@pytest.mark.parametrize("directory", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_the_summary_of_a_shipped_study_names_the_scales(directory: Path) -> None:
    summary = json.loads((directory / "summary.json").read_text())
    for each in summary["searched"]:
        assert (each["name"] in open_study(directory).searched_in_logs) == each["log"]


def test_the_summary_goes_before_the_space(tmp_path: Path) -> None:
    rows = [trial(number, kd_weight=2.0**number, temperature=1.0 + number, **TRAINED) for number in range(3)]
    write_records(tmp_path, trials_table(rows), epochs_table([]))
    assert open_study(tmp_path).searched_in_logs == log_fields_of(["adapter_width"])
    (tmp_path / "summary.json").write_text(json.dumps({"log_fields": ["kd_weight"]}))
    study = open_study(tmp_path)
    assert study.searched_in_logs == {"kd_weight"}
    columns = config_columns(study.trials, ["kd_weight", "temperature"], study.searched_in_logs)
    assert columns.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_without_a_summary_the_plan_has_the_scales_of_the_bounds_that_the_user_gave(tmp_path: Path) -> None:
    rows = [trial(number, temperature=1.0 + number, **TRAINED) for number in range(3)]
    write_records(tmp_path, trials_table(rows), epochs_table([]))
    search = [{"field": "temperature", "log": False}, {"field": "ce_weight", "log": True}]
    (tmp_path / "plan.json").write_text(json.dumps({"space": "adapter_width", "search": search}))
    expected = (log_fields_of(["adapter_width"]) - {"temperature"}) | {"ce_weight"}
    assert open_study(tmp_path).searched_in_logs == expected
    assert pool_studies([tmp_path]).searched_in_logs == expected
    (tmp_path / "plan.json").write_text(json.dumps({"space": "adapter_width"}))
    assert open_study(tmp_path).searched_in_logs == log_fields_of(["adapter_width"])
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(DamagedRecordsError, match=r"plan\.json cannot be read"):
        open_study(tmp_path)


def test_a_pool_has_the_scales_of_its_studies_and_each_study_keeps_them(tmp_path: Path) -> None:
    for name, summary in (("one", {"log_fields": ["kd_weight"]}), ("other", {"log_fields": ["ce_weight"]})):
        rows = [trial(number, study=name, trial_id=f"{name}-{number}", **TRAINED) for number in range(3)]
        epochs = [{"trial_id": f"{name}-{number}", "epoch": 1, "val/accuracy": 0.5} for number in range(3)]
        write_records(tmp_path / name, trials_table(rows), epochs_table(epochs))
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    pool = pool_studies([tmp_path / "one", tmp_path / "other"])
    assert pool.searched_in_logs == {"kd_weight", "ce_weight"}
    assert at_landmark(of_study(pool, "one"), searched=True).log_fields == {"kd_weight", "ce_weight"}
    (tmp_path / "other" / "summary.json").unlink()
    assert pool_studies([tmp_path / "one", tmp_path / "other"]).searched_in_logs == {
        "kd_weight", *log_fields_of(["adapter_width"])
    }  # fmt: skip


def test_a_value_that_has_no_logarithm_leaves_the_field_as_it_is() -> None:
    table = trials_table([trial(number, temperature=float(number)) for number in range(3)])
    assert config_columns(table, ["temperature"], {"temperature"})[:, 0].tolist() == [0, 1, 2]
    missing = trials_table([trial(0, temperature=None), trial(1, temperature=2.0), trial(2, temperature=8.0)])
    assert np.array_equal(config_columns(missing, ["temperature"], {"temperature"})[:, 0], [np.nan, 1, 3], True)


def test_a_comparison_of_an_earlier_version_lists_no_fields_and_a_damaged_summary_is_named(tmp_path: Path) -> None:
    assert log_fields_in({"searched": []}) is None
    rows = [trial(0, space="method_tuned")]
    assert "kd_weight" in StudyRecords(trials_table(rows), epochs_table([])).searched_in_logs
    write_records(tmp_path, trials_table(rows), epochs_table([]))
    for damaged in ("{", "[]", '{"log_fields": 3}'):
        (tmp_path / "summary.json").write_text(damaged)
        with pytest.raises(DamagedRecordsError, match=r"summary\.json cannot be read .*restore it from a copy"):
            open_study(tmp_path)
        with pytest.raises(DamagedRecordsError, match=r"summary\.json cannot be read"):
            pool_studies([tmp_path])
