"""Several studies as one table, from folders and object stores, of this version and earlier ones."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.questions.association import between_configs
from analysis.reading.landmark import at_landmark
from analysis.reading.pooling import (
    compare_within_studies,
    distinct_runs,
    fields_varied,
    landmark_by_study,
    of_study,
    pool_studies,
    pool_table,
    studies_in,
    study_names,
    unequal_settings,
)
from analysis.reading.trials import EXAMPLES, StudyRecords, numbers, open_study, summarise_configs
from study.records import EPOCHS_SCHEMA, TRIALS_SCHEMA, DamagedRecordsError
from tests.analysis.conftest import FASHION
from tests.analysis.synthetic import epochs_table, trial, trials_table, whole_study, write_records
from tests.conftest import S3

pytestmark = pytest.mark.study


def of_name(name: str, numbers: range, **changes: object) -> list[dict[str, object]]:
    row = {"study": name, **changes}
    return [trial(number, **{**row, "trial_id": f"{name}-{number:04d}", "epochs": 2}) for number in numbers]


def written(directory: Path, rows: list[dict[str, object]]) -> Path:
    epochs = [{"trial_id": row["trial_id"], "epoch": epoch} for row in rows for epoch in (1, 2)]
    write_records(directory, trials_table(rows), epochs_table(epochs))
    return directory


def put(s3: S3, bucket: str, study: Path, name: str) -> None:
    for path in study.rglob("*.parquet*"):
        s3.put(bucket, f"{name}/{path.relative_to(study).as_posix()}", path.read_bytes())


def test_real_studies_pool_to_all_of_their_trials_and_epochs_in_the_order_given() -> None:
    pool, alone = pool_studies(FASHION), [open_study(place) for place in FASHION]
    assert study_names(pool) == ["fashion-adapter_width", "fashion-temperature", "fashion-joint"]
    assert pool.trials.num_rows == sum(each.trials.num_rows for each in alone) == 104
    assert pool.epochs.num_rows == sum(each.epochs.num_rows for each in alone)
    for name, each in zip(study_names(pool), alone, strict=True):
        own = of_study(pool, name)
        assert own.trials.select(each.trials.column_names).equals(each.trials)
        assert own.epochs.drop_columns(["study"]).select(each.epochs.column_names).equals(each.epochs)


def test_sidecars_are_not_read_from_an_object_store(s3: S3, tmp_path: Path) -> None:
    study = written(tmp_path / "checked", of_name("checked", range(3)))
    for path in list(study.rglob("*.parquet")):
        path.with_name(f"{path.name}.sha256").write_text(f"{'0' * 64}  {path.name}\n")
    (study / "records" / "trials" / "segment-gone.parquet.sha256").write_text(f"{'0' * 64}  segment-gone.parquet\n")
    bucket = s3.new_bucket()
    put(s3, bucket, study, "checked")
    for place in (study, s3.uri(f"{bucket}/checked")):
        assert pool_studies([place]).trials["trial_id"].to_pylist() == [f"checked-{number:04d}" for number in range(3)]


def test_an_object_store_gives_what_the_folders_give(s3: S3) -> None:
    bucket = s3.new_bucket()
    for study in FASHION[:2]:
        put(s3, bucket, study, f"shared/{study.name}")
    places = studies_in(s3.uri(f"{bucket}/shared"))
    assert len(places) == 2
    remote, local = pool_studies(places), pool_studies(FASHION[:2])
    assert remote.trials.equals(local.trials)
    assert remote.epochs.equals(local.epochs)
    mixed = pool_studies([FASHION[2], places[0]])
    assert study_names(mixed) == ["fashion-joint", "fashion-adapter_width"]


def test_an_object_store_without_that_study_is_told_by_its_name_and_without_a_secret(s3: S3) -> None:
    bucket = s3.new_bucket()
    with pytest.raises(FileNotFoundError, match=rf"s3://\*\*\*@{bucket}/nothing contains no records") as raised:
        pool_studies([s3.uri(f"{bucket}/nothing", user="testing:testing@")])
    assert "testing:testing" not in str(raised.value)
    with pytest.raises(OSError, match="no-such-bucket-of-mine"):
        pool_studies([s3.uri("no-such-bucket-of-mine/study")])


def test_what_an_earlier_version_did_not_record_is_null_and_what_a_later_one_adds_is_kept(tmp_path: Path) -> None:
    now, earlier, later = (written(tmp_path / name, of_name(name, range(3))) for name in ("now", "earlier", "later"))
    (file,) = (earlier / "records" / "trials").iterdir()
    dropped = ["adapter_kind", "val/sharpness_gap_centred"]
    pq.write_table(pq.read_table(file).drop_columns(dropped), file)
    (file,) = (later / "records" / "trials").iterdir()
    pq.write_table(pq.read_table(file).append_column("colour", pa.array(["red"] * 3)), file)
    pool = pool_studies([earlier, now, later])
    assert pool.trials["adapter_kind"].to_pylist() == [None] * 3 + ["serial"] * 6
    assert pool.trials["colour"].to_pylist() == [None] * 6 + ["red"] * 3
    assert pool.trials.schema.field("val/sharpness_gap_centred").type == pa.float64()
    assert set(TRIALS_SCHEMA.names) <= set(pool.trials.column_names)
    assert set(EPOCHS_SCHEMA.names) <= set(pool.epochs.column_names)


def test_a_column_of_whole_numbers_goes_with_one_of_fractions_and_not_with_words(tmp_path: Path) -> None:
    whole, words = (written(tmp_path / name, of_name(name, range(2))) for name in ("whole", "words"))
    for study, values in ((whole, pa.array([1, 2], pa.int64())), (words, pa.array(["hot", "cold"]))):
        (file,) = (study / "records" / "trials").iterdir()
        table = pq.read_table(file)
        pq.write_table(table.set_column(table.column_names.index("temperature"), "temperature", values), file)
    assert pool_studies([whole]).trials["temperature"].to_pylist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"the trials of .*words do not match.*temperature"):
        pool_studies([whole, words])


def test_a_study_is_read_as_a_crash_while_merging_left_it(tmp_path: Path) -> None:
    study = written(tmp_path / "crashed", of_name("crashed", range(3), seconds=1.0))
    (newer,) = of_name("crashed", range(1), seconds=9.0)
    pq.write_table(trials_table([newer]), study / "records" / "trials" / "trial-crashed-0000.parquet")
    (study / "records" / "trials" / ".trial-crashed-0001.parquet.half").write_bytes(b"half")
    pool = pool_studies([study])
    assert pool.trials["seconds"].to_pylist() == [9.0, 1.0, 1.0]


def test_the_same_study_twice_is_refused_wherever_its_copy_lies_and_whatever_it_is_called(tmp_path: Path) -> None:
    copy = shutil.copytree(FASHION[0], tmp_path / "copy")
    with pytest.raises(ValueError, match=r"fashion-adapter_width and .*copy both have trial .*the same study"):
        pool_studies([FASHION[0], copy])
    with pytest.raises(ValueError, match="the same study"):
        pool_studies({"one": FASHION[0], "other": copy})


def test_two_studies_of_one_name_are_pooled_under_names_of_ones_own(tmp_path: Path) -> None:
    here, there = (tmp_path / place / "fashion" for place in ("here", "there"))
    written(here, of_name("fashion", range(2), started=None))
    written(there, of_name("fashion", range(2, 5)))
    with pytest.raises(ValueError, match=r"different studies of one name, 'fashion': name them apart"):
        pool_studies([here, there])
    pool = pool_studies({"mine": here, "theirs": there})
    assert pool.trials["study"].to_pylist() == ["mine"] * 2 + ["theirs"] * 3
    assert set(pool.epochs["trial_id"].to_pylist()) == set(pool.trials["trial_id"].to_pylist())
    assert pool.trials["trial_id"][0].as_py() == "mine/fashion-0000"
    assert of_study(pool, "theirs").epochs.num_rows == 6


def test_a_place_without_records_says_what_it_is_instead(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"contains no records .*Is it a study's folder"):
        pool_studies([FASHION[0], tmp_path])
    with pytest.raises(FileNotFoundError, match=r"It contains studies \(fashion-adapter_width, .*studies_in"):
        pool_studies([EXAMPLES])
    with pytest.raises(FileNotFoundError, match="has no folder of a study"):
        studies_in(tmp_path)
    with pytest.raises(ValueError, match="no study is given"):
        pool_studies([])
    with pytest.raises(ValueError, match="ghost://bucket/study cannot be read"):
        pool_studies(["ghost://bucket/study"])


def test_a_damaged_file_is_named_with_its_study(tmp_path: Path) -> None:
    study = written(tmp_path / "hurt", of_name("hurt", range(40)))
    (file,) = (study / "records" / "epochs").iterdir()
    content = bytearray(file.read_bytes())
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedRecordsError, match=r"hurt/records/epochs is damaged"):
        pool_studies([study])


def test_the_studies_in_a_folder_are_found_by_name() -> None:
    found = [Path(place).name for place in studies_in(EXAMPLES)]
    assert found == sorted(place.name for place in EXAMPLES.iterdir())
    assert {place.name for place in FASHION} < set(found)


def test_a_run_that_several_studies_have_counts_once() -> None:
    pool = pool_studies(FASHION)
    once = distinct_runs(pool)
    # Five replicates of both controls are in all three studies, the sixth replicate in one.
    assert pool.trials.num_rows - once.trials.num_rows == 20
    assert sum(stage == "control" for stage in once.trials["stage"].to_pylist()) == 12
    assert set(once.epochs["trial_id"].to_pylist()) == set(once.trials["trial_id"].to_pylist())
    assert distinct_runs(once).trials.equals(once.trials)


def test_of_a_run_that_failed_in_one_study_the_finished_one_stays(tmp_path: Path) -> None:
    same = {"config_id": "A", "seed": 1, "data_seed": 1}
    failed = written(tmp_path / "failed", of_name("failed", range(1), status="failed", **same))
    finished = written(tmp_path / "finished", of_name("finished", range(1), **same))
    assert distinct_runs(pool_studies([failed, finished])).trials["study"].to_pylist() == ["finished"]


def test_studies_of_another_setting_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    assert unequal_settings(pool_studies(FASHION).trials) == {}
    digits = written(tmp_path / "digits", of_name("digits", range(2)))
    found = unequal_settings(pool_studies([FASHION[0], digits]).trials)
    assert found["dataset"] == {"fashion-adapter_width": ["fashion_mnist"], "digits": ["digits"]}
    assert {"dataset", "student", "epochs_planned"} == set(found)


def test_what_was_varied_is_what_a_study_varied_and_not_what_studies_differ_in(tmp_path: Path) -> None:
    rows = of_name("digits", range(2))
    rows[0]["ce_weight"], rows[1]["ce_weight"] = 0.5, 0.6
    pool = pool_studies([FASHION[0], FASHION[1], written(tmp_path / "digits", rows)])
    assert fields_varied(pool) == ("adapter_width", "adapter_learning_rate", "temperature", "ce_weight")


def test_configs_are_compared_within_their_own_study_and_corrected_for_all(tmp_path: Path) -> None:
    found = compare_within_studies(pool_studies(FASHION))
    assert [name for name, _ in found] == [place.name for place in FASHION for _ in range(2)]
    alone = [each for place in FASHION for each in summarise_configs(open_study(place).trials)]
    for _, summary in found:
        (own,) = (each for each in alone if each.config_id == summary.config_id)
        assert summary.against_baseline == own.against_baseline
        assert summary.corrected_p is not None
        assert own.against_baseline is not None
        assert own.against_baseline.p_value is not None
        assert own.against_baseline.p_value <= summary.corrected_p <= 1
    # Holm's correction multiplies the smallest of six p-values by six.
    smallest = min((each.against_baseline for _, each in found if each.against_baseline), key=lambda e: e.p_value or 1)
    assert min(each.corrected_p or 1 for _, each in found) == pytest.approx(6 * (smallest.p_value or 1))


def test_a_config_without_a_baseline_in_its_study_has_no_p_value(tmp_path: Path) -> None:
    repeated = {"stage": "replicate", "config_id": "A", "val/accuracy": 0.5}
    study = written(tmp_path / "alone", of_name("alone", range(2), **repeated))
    ((_, summary),) = compare_within_studies(pool_studies([study]))
    assert (summary.against_baseline, summary.corrected_p) == (None, None)


def test_what_takes_a_study_takes_a_pool_and_can_hold_the_study(tmp_path: Path) -> None:
    pool = distinct_runs(pool_studies(FASHION))
    found = between_configs(at_landmark(pool, searched=True), "centred", held=["study"])
    assert found.estimate.n == 40
    assert "given 2 columns" in found.estimate.method
    trials, epochs = whole_study()
    write_records(tmp_path / "invented", trials, epochs)
    assert pool_studies([tmp_path / "invented"]).trials.num_rows == trials.num_rows


def test_each_study_of_a_pool_is_at_its_own_landmark() -> None:
    early = [{**row, "status": "pruned"} for row in of_name("early", range(6))]
    late = of_name("late", range(6), seconds=1.0)
    for row in late:
        row["epochs"] = 9
    rows = [*early, *late]
    epochs = [
        {"trial_id": row["trial_id"], "epoch": epoch, "val/accuracy": 0.1 * epoch, "study": row["study"]}
        for row in rows
        for epoch in range(1, int(str(row["epochs"])) + 1)
    ]
    studies = pa.array([str(epoch["study"]) for epoch in epochs])
    pool = StudyRecords(trials_table(rows), epochs_table(epochs).append_column("study", studies))
    assert at_landmark(pool, searched=True).epoch == 2
    landmark = landmark_by_study(pool, searched=True)
    assert numbers(landmark.trials, "val/accuracy").tolist() == pytest.approx([0.2] * 6 + [0.9] * 6)
    assert landmark.note.startswith("early: 6 trials at epoch 2")
    assert "late: 6 trials at epoch 9, their last" in landmark.note
    assert landmark_by_study(pool, searched=False).trials.num_rows == 0


def test_the_table_of_a_pool_says_what_each_study_is() -> None:
    lines = pool_table(pool_studies(FASHION)).splitlines()
    assert len(lines) == 5
    said = "| fashion-joint | joint | fashion_mnist | cnn_32_64 → cnn_8_16 | 8 | 12 |"
    assert lines[4] == f"{said} 2 configs, 10 trials | 2 configs, 10 trials |"
