import pyarrow.parquet as pq
import pytest

from study import records
from study.ledger.ledger import StudyLedger, epoch_rows, trial_row
from study.records import EPOCHS_SCHEMA, TRIALS_SCHEMA, DamagedRecordsError, RecordWriter, read_epochs, read_trials
from study.running.runner import recorded_run
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from trainables.spec.measures import CALIBRATION, COST_FACTS, DATA_FACTS, MEASURES
from trainables.spec.trial import TrialConfig


@pytest.fixture
def ended(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    PretendedTune(StudySearch(ledger, {}), ledger).run()
    return ledger


def write_all(ledger, writer):
    for entry in ledger.entries.values():
        writer.write(trial_row(ledger.plan, entry), epoch_rows(entry))


def test_records_say_what_the_ledger_knows(ended):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    trials = read_trials(ended.plan.directory)
    assert trials.schema.equals(TRIALS_SCHEMA)
    for row, entry in zip(trials.to_pylist(), ended.entries.values(), strict=True):
        assert row["trial_id"] == entry.trial_id
        assert row["val/accuracy"] == entry.score
        assert row["adapter_width"] == entry.config.adapter_width
        assert row["seed"] == entry.config.seed
        assert row["config_id"] == entry.config.config_id
        assert row["epochs"] == row["epochs_planned"] == 4
        assert row["seconds"] == pytest.approx(2.0)
        assert row["val/ece_student"] is None
    epochs = read_epochs(ended.plan.directory)
    assert epochs.schema.equals(EPOCHS_SCHEMA)
    assert epochs.num_rows == 4 * len(ended.entries)
    assert epochs["epoch"].to_pylist()[:4] == [1, 2, 3, 4]


def test_every_config_field_and_measure_has_a_column():
    fields = {"epochs_planned" if name == "epochs" else name for name in TrialConfig.model_fields}
    assert fields | set(MEASURES) | set(COST_FACTS) | set(DATA_FACTS) | set(CALIBRATION) <= set(TRIALS_SCHEMA.names)
    assert set(MEASURES) <= set(EPOCHS_SCHEMA.names)
    assert len(set(TRIALS_SCHEMA.names)) == len(TRIALS_SCHEMA.names)


def test_merging_changes_no_row_and_leaves_one_file_each(ended):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    before = read_trials(ended.plan.directory), read_epochs(ended.plan.directory)
    writer.merge()
    assert (read_trials(ended.plan.directory), read_epochs(ended.plan.directory)) == before
    assert len(list((ended.plan.directory / "records").rglob("*.parquet"))) == 2
    assert RecordWriter(ended.plan.directory).recorded().keys() == set(ended.entries)


def test_merging_happens_as_a_study_goes(ended, monkeypatch):
    monkeypatch.setattr(records, "SEGMENT_TRIALS", 5)
    write_all(ended, RecordWriter(ended.plan.directory))
    folder = ended.plan.directory / "records" / "trials"
    assert len(list(folder.glob("segment-*"))) == 2
    assert len(list(folder.glob("trial-*"))) == len(ended.entries) - 10
    assert read_trials(ended.plan.directory).num_rows == len(ended.entries)


def test_a_crash_between_a_segment_and_the_removal_of_its_parts_doubles_nothing(ended, monkeypatch):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    monkeypatch.setattr("pathlib.Path.unlink", lambda *a, **k: None)
    writer.merge()
    assert read_trials(ended.plan.directory).num_rows == len(ended.entries)
    assert read_epochs(ended.plan.directory).num_rows == 4 * len(ended.entries)


def test_rows_of_an_earlier_version_have_nothing_where_later_columns_are(ended):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    path = next((ended.plan.directory / "records" / "trials").glob("trial-*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["dkd_beta"]), path, write_page_checksum=True)
    again = RecordWriter(ended.plan.directory)
    for _ in ("loose", "merged"):
        beta = read_trials(ended.plan.directory)["dkd_beta"].to_pylist()
        assert beta.count(None) == 1
        assert len(beta) == len(ended.entries)
        again.merge()


def test_records_from_before_there_were_costs_are_read_with_nothing_where_those_are(ended):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    folder = ended.plan.directory / "records"
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        old = table.select([name for name in table.column_names if not name.startswith("cost/")])
        pq.write_table(old.replace_schema_metadata(None), path, write_page_checksum=True)
    for table, schema in (
        (read_trials(ended.plan.directory), TRIALS_SCHEMA),
        (read_epochs(ended.plan.directory), EPOCHS_SCHEMA),
    ):
        assert table.schema.equals(schema)
        assert table.num_rows
        assert {value for name in schema.names if "cost/" in name for value in table[name].to_pylist()} == {None}


def test_bins_of_calibration_come_back_as_they_were_and_older_records_have_none(ended):
    writer = RecordWriter(ended.plan.directory)
    first, second, *_ = ended.entries.values()
    sums = {"count": [3, 1], "confidence": [0.1 + 0.2, 1.0], "correct": [2, 1]}
    first.calibration = second.calibration = {"calibration/val_student": sums}
    write_all(ended, writer)
    path = ended.plan.directory / "records" / "trials" / f"trial-{second.trial_id}.parquet"
    table = pq.read_table(path)
    older = table.select([name for name in table.column_names if not name.startswith("calibration/")])
    pq.write_table(older, path, write_page_checksum=True)
    again = RecordWriter(ended.plan.directory)
    for _ in ("loose", "merged"):
        trials = read_trials(ended.plan.directory)
        assert trials.schema.equals(TRIALS_SCHEMA)
        found = {row["trial_id"]: row["calibration/val_student"] for row in trials.to_pylist()}
        assert found.pop(first.trial_id) == [
            {"count": 3, "confidence": 0.1 + 0.2, "correct": 2},
            {"count": 1, "confidence": 1.0, "correct": 1},
        ]
        assert set(found.values()) == {None}
        again.merge()


def test_a_file_of_records_says_in_which_unit_a_cost_is(ended):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    writer.merge()
    path = next((ended.plan.directory / "records" / "trials").glob("segment-*.parquet"))
    written = pq.read_schema(path)
    for table in (written, read_trials(ended.plan.directory).schema):
        assert table.field("cost/seconds_per_step").metadata[b"unit"] == b"s"
        assert table.field("cost/step_flops").metadata[b"unit"] == b"FLOP/example"
        assert b"unit" not in (table.field("val/accuracy").metadata or {})


def test_a_write_that_fails_leaves_nothing_that_a_reader_meets_and_says_what_it_needs(ended, monkeypatch):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)

    def full_disk(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    entry = next(iter(ended.entries.values()))
    with pytest.raises(
        OSError, match=r"trial-another.parquet cannot be written \(.*\): it needs [\d,]+ bytes, and there are"
    ):
        writer.write({**trial_row(ended.plan, entry), "trial_id": "another"}, [])
    assert read_trials(ended.plan.directory).num_rows == len(ended.entries)
    assert not [p for p in (ended.plan.directory / "records").rglob("*") if p.name.startswith(".")]


@pytest.mark.parametrize("merged", [False, True])
def test_any_byte_of_the_records_that_changes_is_noticed(ended, merged):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    if merged:
        writer.merge()
    path = min((ended.plan.directory / "records" / "trials").glob("*.parquet"))
    whole = path.read_bytes()
    wanted = pq.read_table(path)
    name = whole.rindex(b"pesfkd.sha256")
    for position in {*range(0, len(whole), 211), *range(name - 40, name + 90), *range(len(whole) - 12, len(whole))}:
        content = bytearray(whole)
        content[position] ^= 0x20
        path.write_bytes(content)
        if name <= position < name + len(b"pesfkd.sha256"):
            continue  # no digest is known then; a flip there alone changes nothing that is read
        with pytest.raises(DamagedRecordsError, match="--resume"):
            read_trials(ended.plan.directory)
    for length in (0, 3, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedRecordsError, match="--resume"):
            read_trials(ended.plan.directory)
    path.write_bytes(whole)
    assert pq.read_table(path).equals(wanted), "a plain reader of Parquet reads them as well"


def test_records_that_are_damaged_or_not_the_journal_s_are_written_anew_from_it(ended):
    plan = ended.plan
    writer = RecordWriter(plan.directory)
    write_all(ended, writer)
    before = read_trials(plan.directory), read_epochs(plan.directory)
    epochs = min((plan.directory / "records" / "epochs").glob("*.parquet"))
    epochs.write_bytes(epochs.read_bytes()[:-20])
    said = []
    with recorded_run(plan, said.append):
        assert (read_trials(plan.directory), read_epochs(plan.directory)) == before
    assert [str(epochs) in line for line in said] == [True]
    for entry in list(ended.entries.values())[:1]:
        entry.status, entry.error = "failed", "another hand's"
        RecordWriter(plan.directory).write(trial_row(plan, entry), epoch_rows(entry))
    with recorded_run(plan):
        assert (read_trials(plan.directory), read_epochs(plan.directory)) == before


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is it a study's folder"):
        read_trials(tmp_path)
