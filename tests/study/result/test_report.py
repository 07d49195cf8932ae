"""Report at the end of a study."""

from pathlib import Path

from study.records import RecordWriter
from study.result.report import about_study, write_study_report
from tests.analysis.report.studies import Page
from tests.study.factories import make_plan


def test_every_study_ends_with_its_report(in_process_study_run):
    shown = Page((in_process_study_run.directory / "report.html").read_text(encoding="utf-8"))
    assert in_process_study_run.summary["report"] == str(in_process_study_run.directory / "report.html")
    assert in_process_study_run.summary["question"] in shown.said[""]
    assert "python -m study.launch --space adapter_width" in shown.said["again"]
    assert f"python -m study.confirm {in_process_study_run.directory.name}" in shown.said["again"]
    for config in in_process_study_run.summary["configs"]:
        assert any(f"{config['accuracy']['value']:.3f} [" in cell for row in shown.rows for cell in row)
    ratios = [config["cost"]["flops_to_ce"] for config in in_process_study_run.summary["configs"]]
    (front, *points) = shown.charts["cost"][0]["data"]
    assert sorted(point["x"][0] for point in points) == sorted(ratios)
    assert front["name"] == "front"


def test_a_report_that_fails_is_a_note_and_no_error(tmp_path: Path):
    plan = make_plan(tmp_path)
    plan.save()
    RecordWriter(plan.directory)
    notes: list[str] = []
    path = write_study_report(plan, notes)
    assert path is not None
    assert notes == []
    before = path.read_bytes()
    (plan.directory / "records" / "trials" / "segment-0.parquet").write_bytes(b"no parquet")
    assert write_study_report(plan, notes) is None
    (note,) = notes
    assert "segment-0.parquet is damaged" in note
    assert f"python -m analysis.report planned --output-dir {tmp_path}" in note
    assert path.read_bytes() == before


def test_what_was_searched_is_told_with_its_bounds(tmp_path: Path):
    told = about_study(make_plan(tmp_path))
    varied = {each["name"]: each for each in told["searched"]}
    assert told["log_fields"] == sorted(name for name, each in varied.items() if each["log"])
    assert set(varied) == set(make_plan(tmp_path).search_space.varied)
    assert varied["adapter_width"]["role"] == "scientific"
    assert varied["adapter_width"]["low"] < varied["adapter_width"]["high"]
    assert told["versions"]["version.torch"]
