import hashlib
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study import records
from study.ledger.ledger import StudyLedger
from study.ledger.rows import epoch_rows, trial_row
from study.records import EPOCHS_SCHEMA, TRIALS_SCHEMA, DamagedRecordsError, RecordWriter, read_epochs, read_trials
from study.running.runner import recorded_run
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from trainables.spec.measures import CALIBRATION, COST_FACTS, DATA_FACTS, MEASURES
from trainables.spec.trial import config_fields

pytestmark = pytest.mark.study

EXAMPLES = Path(records.__file__).parents[1] / "analysis" / "examples"


@pytest.fixture
def ended(tmp_path):
    ledger = StudyLedger(make_plan(tmp_path))
    PretendedTune(StudySearch(ledger, {}), ledger).run()
    return ledger


def write_all(ledger, writer):
    for entry in ledger.entries.values():
        writer.write(trial_row(ledger.plan, entry), epoch_rows(entry))


def sidecar(path):
    return path.with_name(f"{path.name}.sha256")


def write_as_earlier_version(table, path):
    sidecar(path).unlink(missing_ok=True)
    pq.write_table(table, path, write_page_checksum=True)


def assert_checked(folder, count):
    """Assert that a folder has this many files, each with the digest computed by hashlib, and nothing else."""
    files = list(folder.glob("*.parquet"))
    assert len(files) == count
    for path in files:
        assert sidecar(path).read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    assert set(folder.iterdir()) == {*files, *map(sidecar, files)}


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
    fields = {"epochs_planned" if name == "epochs" else name for name in config_fields()}
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
    assert len(list(folder.glob("segment-*.parquet"))) == 2
    assert len(list(folder.glob("trial-*.parquet"))) == len(ended.entries) - 10
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
    write_as_earlier_version(pq.read_table(path).drop_columns(["dkd_beta"]), path)
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
        write_as_earlier_version(old.replace_schema_metadata(None), path)
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
    write_as_earlier_version(older, path)
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


@pytest.mark.study
@pytest.mark.parametrize("merged", [False, True])
def test_any_byte_of_the_records_that_changes_is_noticed(ended, merged):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    if merged:
        writer.merge()
    path = min((ended.plan.directory / "records" / "trials").glob("*.parquet"))
    whole = path.read_bytes()
    wanted = pq.read_table(path)
    for position in {*range(0, len(whole), 97), *range(12), *range(len(whole) - 12, len(whole))}:
        content = bytearray(whole)
        content[position] ^= 0x20
        path.write_bytes(content)
        with pytest.raises(DamagedRecordsError, match="--resume"):
            read_trials(ended.plan.directory)
    for length in (0, 3, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedRecordsError, match="--resume"):
            read_trials(ended.plan.directory)
    path.write_bytes(whole)
    digest = sidecar(path).read_bytes()
    for position in range(len(digest)):
        sidecar(path).write_bytes(digest[:position] + bytes([digest[position] ^ 0x20]) + digest[position + 1 :])
        with pytest.raises(DamagedRecordsError, match="--resume"):
            read_trials(ended.plan.directory)
    sidecar(path).write_bytes(digest)
    assert read_trials(ended.plan.directory).num_rows == len(ended.entries)
    assert pq.read_table(path).equals(wanted), "a plain reader of Parquet reads them as well"


@pytest.mark.launcher
@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
@pytest.mark.parametrize("merged", [False, True])
def test_sha256sum_accepts_the_records_and_names_a_file_that_changed(ended, merged):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    if merged:
        writer.merge()
    for folder in (ended.plan.directory / "records" / kind for kind in ("trials", "epochs")):
        names = sorted(path.name for path in folder.glob("*.parquet"))
        command = ["sha256sum", "--check", "--strict", *(f"{name}.sha256" for name in names)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()) == (0, [f"{name}: OK" for name in names]), done.stderr
        changed = bytearray((folder / names[0]).read_bytes())
        changed[len(changed) // 2] ^= 1
        (folder / names[0]).write_bytes(changed)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[0]) == (1, f"{names[0]}: FAILED")


def test_every_file_has_its_sidecar_whatever_the_writer_does(ended):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    folder = ended.plan.directory / "records"
    first, second, *_ = ended.entries
    for kind in ("trials", "epochs"):
        assert_checked(folder / kind, len(ended.entries))
    writer.drop([first])
    for kind in ("trials", "epochs"):
        assert_checked(folder / kind, len(ended.entries) - 1)
    writer.merge()
    writer.drop([second])
    for kind in ("trials", "epochs"):
        assert_checked(folder / kind, 1)
    writer.drop(ended.entries)
    for kind in ("trials", "epochs"):
        assert_checked(folder / kind, 0)


@pytest.mark.study
@pytest.mark.parametrize("step", ["write", "write again", "merge", "drop"])
@pytest.mark.parametrize("kind", ["epochs", "trials"])
def test_a_kill_between_a_file_and_its_sidecar_leaves_a_readable_record_and_a_resume_that_completes(
    ended, monkeypatch, step, kind
):
    writer = RecordWriter(ended.plan.directory)
    entries = list(ended.entries.values())
    row, epochs = trial_row(ended.plan, entries[-1]), epoch_rows(entries[-1])
    actions = {
        "write": lambda: writer.write(row, epochs),
        "write again": lambda: writer.write(row, epochs),
        "merge": writer.merge,
        "drop": lambda: writer.drop([entries[0].trial_id]),
    }
    write_all(ended, writer)
    before = read_trials(ended.plan.directory), read_epochs(ended.plan.directory)
    if step == "write":
        writer.drop([entries[-1].trial_id])
    if step == "drop":
        writer.merge()
    replace_file = records.replace_file

    def killed(path, content):
        if path.name.endswith(".parquet.sha256") and path.parent.name == kind:
            raise KeyboardInterrupt
        replace_file(path, content)

    with monkeypatch.context() as context:
        context.setattr(records, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            actions[step]()
    folder = ended.plan.directory / "records" / kind
    (unprotected,) = (path for path in folder.glob("*.parquet") if not sidecar(path).exists())
    assert pq.read_table(unprotected).num_rows
    rows = {each["trial_id"]: each for each in before[0].to_pylist()}
    assert all(each == rows[each["trial_id"]] for each in read_trials(ended.plan.directory).to_pylist())
    said = []
    with recorded_run(ended.plan, said.append):
        assert (read_trials(ended.plan.directory), read_epochs(ended.plan.directory)) == before
    assert said == []
    assert not (ended.plan.directory / "set-aside").exists()


def test_a_kill_between_removing_a_file_and_its_sidecar_is_no_damage(ended, monkeypatch):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    before = read_trials(ended.plan.directory), read_epochs(ended.plan.directory)
    unlink = Path.unlink

    def killed(path, **options):
        if path.name.endswith(".parquet.sha256") and path.name.startswith("trial-"):
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as context:
        context.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.merge()
    assert read_trials(ended.plan.directory) == before[0]
    said = []
    with recorded_run(ended.plan, said.append):
        assert (read_trials(ended.plan.directory), read_epochs(ended.plan.directory)) == before
    assert said == []
    assert {path.with_suffix("") for path in (ended.plan.directory / "records").rglob("*.sha256")} == set(
        (ended.plan.directory / "records").rglob("*.parquet")
    )


def test_a_kill_while_a_damaged_file_is_moved_does_not_leave_it_without_its_sidecar(ended, monkeypatch):
    """Without the sidecar, the file would pass as undamaged, because the changed byte is not in a page."""
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    before = read_trials(ended.plan.directory), read_epochs(ended.plan.directory)
    path = min((ended.plan.directory / "records" / "trials").glob("*.parquet"))
    path.write_bytes(b"p" + path.read_bytes()[1:])
    rename, renamed = Path.rename, []

    def killed(path, target):
        if renamed:
            raise KeyboardInterrupt
        renamed.append(path)
        return rename(path, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.set_damaged_aside()
    assert renamed == [path]
    with recorded_run(ended.plan):
        assert (read_trials(ended.plan.directory), read_epochs(ended.plan.directory)) == before
    (aside,) = (ended.plan.directory / "set-aside").rglob("*.parquet")
    assert aside.read_bytes()[:1] == b"p"


def test_a_file_that_a_running_study_replaces_while_it_is_read_is_not_called_damaged(ended, monkeypatch):
    writer = RecordWriter(ended.plan.directory)
    write_all(ended, writer)
    entry = next(iter(ended.entries.values()))
    row = {**trial_row(ended.plan, entry), "error": "a newer row"}
    stored, pending = records._stored_sidecar, [row]

    def stored_before_a_write(path):
        found = stored(path)
        if path.name == f"trial-{entry.trial_id}.parquet" and path.parent.name == "trials" and pending:
            writer.write(pending.pop(), epoch_rows(entry))
        return found

    monkeypatch.setattr(records, "_stored_sidecar", stored_before_a_write)
    assert "a newer row" in read_trials(ended.plan.directory)["error"].to_pylist()
    assert not pending


@pytest.mark.parametrize("name", ["fashion-joint", "sst2-pkd"])
def test_records_of_an_earlier_version_are_read_and_keep_their_identifiers(name, tmp_path):
    """Those of sst2-pkd have a digest in the footer, which is not used. Those of fashion-joint have none."""
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    for kind, reader in (("trials", read_trials), ("epochs", read_epochs)):
        (path,) = (tmp_path / name / "records" / kind).glob("*.parquet")
        assert (b"pesfkd.sha256" in path.read_bytes()) == (name == "sst2-pkd")
        assert not sidecar(path).exists()
        plain, found = pq.read_table(path), reader(tmp_path / name)
        keys = [key for key in ("trial_id", "epoch", "config_id", "seed") if key in plain.column_names]
        rows = [tuple(each.values()) for each in found.select(keys).to_pylist()]
        assert sorted(rows) == sorted(tuple(each.values()) for each in plain.select(keys).to_pylist())
        assert rows
    writer = RecordWriter(tmp_path / name)
    assert writer.set_damaged_aside() == []
    first, *others = sorted(writer.recorded())
    writer.drop([first])
    assert sorted(RecordWriter(tmp_path / name).recorded()) == others
    for kind in ("trials", "epochs"):
        assert_checked(tmp_path / name / "records" / kind, 1)
        (path,) = (tmp_path / name / "records" / kind).glob("*.parquet")
        assert b"pesfkd.sha256" not in path.read_bytes(), "the digest of the earlier file would be wrong in this one"


@pytest.mark.study
@pytest.mark.parametrize("name", ["fashion-joint", "sst2-pkd"])
@pytest.mark.parametrize("kind", ["trials", "epochs"])
def test_a_flipped_bit_in_records_of_an_earlier_version_changes_no_value_that_is_read(name, kind, tmp_path):
    shutil.copytree(EXAMPLES / name, tmp_path / name)
    reader = {"trials": read_trials, "epochs": read_epochs}[kind]
    (path,) = (tmp_path / name / "records" / kind).glob("*.parquet")
    whole, wanted, noticed = path.read_bytes(), reader(tmp_path / name), []
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for position in {*range(0, len(whole), 307), *range(footer, len(whole), 61)}:
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        try:
            assert reader(tmp_path / name).equals(wanted), f"read as something else after a flip at byte {position}"
        except DamagedRecordsError as error:
            noticed.append(str(error))
    assert any("CRC" in said for said in noticed), "by the checksum of a page"
    assert any("two copies of the schema" in said for said in noticed), "by the names of columns"
    assert all(f"{path} is damaged" in said and "--resume" in said for said in noticed)


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
    with pytest.raises(FileNotFoundError, match="is it a study folder"):
        read_trials(tmp_path)
