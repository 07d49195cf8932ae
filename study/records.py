"""Parquet records of trials and epochs: schema, incremental writing, and reading.

A study folder holds `records/trials/*.parquet` and `records/epochs/*.parquet`. Each ended trial adds one small file to
both folders, with a unique name and an atomic rename. A killed study therefore keeps every ended trial. From time to
time the small files are merged into segments. A reader sees each trial once, in whichever file it is.

Schema of `trials` (one row per trial):

- `trial_id, study, space, stage, name, method, config_id, replicate, seed, status, error, epochs, started, seconds`.
- One column per remaining field in a trial's config. The planned number of epochs is called `epochs_planned`. Settings
  for a user's own method come last, and are null for trials with other methods.
- One column per measure: the value at the trial's last epoch, null if the method does not have the measure.
- One column per cost fact and split fact (`COST_FACTS`, `DATA_FACTS`): null for trials recorded by an earlier version.
- One column per fact about the deployed student (`DEPLOY_FACTS`, for example `deploy/latency_1_seconds`): null in a
  study without these measurements, and for trials recorded by an earlier version.
- One column per network and split in `CALIBRATION`, for finished trials: a list of 15 bins, each with `count`,
  `confidence` and `correct` (see `trainables.spec.measures`).

Values of `stage`:

- search: proposed by the sampler.
- control: config not chosen by a search. Either a search's control, or a method compared as published.
- replicate: promising config on fresh seeds.
- tune: control `kd` at another temperature. The best temperature is confirmed.
- confirm: chosen config, or a control, on seeds unused by earlier stages. Only these trials have `test/accuracy`.

`status` is finished, pruned or failed. `seconds` is the trial's computing time, and `started` the time at which the
trial was first scheduled.

Schema of `epochs` (one row per epoch): `trial_id, epoch` (from 1), `time`, one column per measure. In `cost/...`
columns, the field metadata states the `unit`.

Each file has a sidecar `NAME.parquet.sha256` with the file's SHA-256 digest, in the `sha256sum -c` format. A reader
rejects a file if any byte differs from the digest. The journal contains everything in the records, so the next
`--resume` or `study.sync` writes a damaged file again. If the journal has lost recorded trials, both commands stop with
an error. Damaged files are not deleted but moved, with their sidecars, to `set-aside` in the study folder.

A file without sidecar is verified by the Parquet checksums of the data pages, and by comparing both copies of the
schema in the footer. This applies to files from earlier versions, some with an unused digest in the footer. It also
applies after a kill between writing a file and writing the sidecar. The writer removes the old sidecar before it
replaces a file, and writes the new sidecar last. It removes a file before the sidecar. Readers ignore sidecars without
a file, and the next writer removes them.
"""

import base64
import hashlib
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainables.spec.measures import (
    CALIBRATION,
    CLASSES,
    CORRECT,
    COST_FACTS,
    DATA_FACTS,
    DEPLOY_FACTS,
    MEASURES,
    unit_of,
)
from trainables.spec.trial import config_fields
from trainables.storage.files import replace_file

SEGMENT_TRIALS: Final = 64
_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
# Parquet names list elements "element", and Arrow compares types including names.
_BIN: Final = pa.struct([("count", pa.int64()), ("confidence", pa.float64()), ("correct", pa.int64())])
# Per class: test samples and correct test samples; validation samples, and the sum of their sharpness gaps.
_CLASS: Final = pa.struct(
    [("count", pa.int64()), ("correct", pa.int64()), ("gap_count", pa.int64()), ("gap", pa.float64())]
)
_CLASSES: Final = pa.list_(pa.field("element", _CLASS))
_BINS: Final = pa.list_(pa.field("element", _BIN))


def _column_type(annotation: Any) -> pa.DataType:
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}[annotation]


def _trials_schema() -> pa.Schema:
    leading: list[tuple[str, pa.DataType]] = [
        ("trial_id", pa.string()),
        ("study", pa.string()),
        ("space", pa.string()),
        ("stage", pa.string()),
        ("name", pa.string()),
        ("method", pa.string()),
        ("config_id", pa.string()),
        ("replicate", pa.int64()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("epochs", pa.int64()),
        ("started", _TIMESTAMP),
        ("seconds", pa.float64()),
    ]
    taken = {name for name, _ in leading}
    # `epochs` is the number of epochs run, and `epochs_planned` the number planned.
    config = [
        ("epochs_planned" if name == "epochs" else name, _column_type(field.annotation))
        for name, field in config_fields().items()
        if name == "epochs" or name not in taken
    ]
    facts = (*COST_FACTS, *DATA_FACTS, *DEPLOY_FACTS)
    calibration = [(name, _BINS) for name in CALIBRATION]
    answers = [(CORRECT, pa.binary()), (CLASSES, _CLASSES)]
    return pa.schema([*leading, *config, *_numbers(*MEASURES, *facts), *calibration, *answers])


def _schema_of(kind: str, rows: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Return the schema of the rows: first the columns for all studies, then the settings of a user's own method."""
    schema: pa.Schema = SCHEMAS[kind]
    known = set(schema.names)
    own = {
        name: _column_type(type(value))
        for row in rows
        for name, value in row.items()
        if name not in known and isinstance(value, bool | int | float | str)
    }
    return schema if not own else pa.schema([*schema, *own.items()])


def _numbers(*names: str) -> list[pa.Field]:
    units = {name: unit_of(name) for name in names}
    return [pa.field(name, pa.float64(), metadata={"unit": unit} if unit else None) for name, unit in units.items()]


TRIALS_SCHEMA: Final = _trials_schema()
EPOCHS_SCHEMA: Final = pa.schema(
    [("trial_id", pa.string()), ("epoch", pa.int64()), ("time", _TIMESTAMP), *_numbers(*MEASURES)]
)

SCHEMAS: Final = {"trials": TRIALS_SCHEMA, "epochs": EPOCHS_SCHEMA}
_SIDECAR_SUFFIX: Final = ".sha256"
_DERIVED_FILES: Final = ("records", "summary.json", "figures", "report.html")


class DamagedRecordsError(ValueError):
    """Error for a records file with content different from the written content."""


class RecordWriter:
    """Writer for one study's trials, as they end.

    Args:
        study_directory: study folder. `records/` is created in it.
    """

    def __init__(self, study_directory: Path) -> None:
        self._directory = study_directory
        self._folders = {kind: study_directory / "records" / kind for kind in SCHEMAS}
        # Single-trial tables, kept in memory so merging reads nothing.
        self._loose: dict[str, dict[Path, pa.Table]] = {}
        for kind, folder in self._folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            _remove_orphaned_sidecars(folder)
            tables = ((path, _read_whole(path)) for path in _loose_files(folder))
            self._loose[kind] = {path: table for path, table in tables if table is not None}

    def recorded(self) -> dict[str, tuple[str, str | None]]:
        """Return status and error per trial with both row and epochs on disk, by identifier."""
        trials = _read(self._folders["trials"], ["trial_id", "status", "error", "epochs"]).to_pylist()
        with_epochs = set(_read(self._folders["epochs"], ["trial_id"])["trial_id"].to_pylist())
        # Reversed: the first rows, from single-trial files, are the newest and must win.
        whole = [row for row in reversed(trials) if row["trial_id"] in with_epochs or row["epochs"] == 0]
        return {row["trial_id"]: (row["status"], row["error"]) for row in whole}

    def set_damaged_aside(self) -> list[Path]:
        """Move damaged files away and return their paths. The journal contains the trials."""
        damaged = [p for folder in self._folders.values() for p in folder.glob("*.parquet") if _read_whole(p) is None]
        if damaged:
            aside = _new_folder(self._directory)
            for path in damaged:
                target = aside / path.relative_to(self._directory)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)  # before the sidecar: without it, the file might pass for whole
                with suppress(FileNotFoundError):
                    _sidecar(path).rename(_sidecar(target))
        return damaged

    def drop(self, trial_ids: Collection[str]) -> None:
        """Remove the given trials, to be run again, and no others."""
        gone = pa.array(sorted(trial_ids), pa.string())
        for kind in ("trials", "epochs"):  # in this order: a trial without a row counts as not recorded
            for path in sorted(self._folders[kind].glob("*.parquet")):
                table = _read_file(path)
                kept = table.filter(pc.invert(pc.is_in(table["trial_id"], value_set=gone)))
                if kept.num_rows == table.num_rows:
                    continue
                if kept.num_rows:
                    _write(kept, path, compression="zstd")
                else:
                    _remove(path)
                self._loose[kind].pop(path, None)

    def write(self, trial: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Add an ended trial: first the epochs, then the row. Writing a trial again replaces it.

        Raises:
            OSError: the disk write fails. No partial file is left under a name used by readers.
        """
        for kind, rows in (("epochs", list(epochs)), ("trials", [dict(trial)])):
            path = self._folders[kind] / f"trial-{trial['trial_id']}.parquet"
            table = pa.Table.from_pylist(rows, schema=_schema_of(kind, rows))
            # For one or two rows, dictionaries and compression would triple the time and save nothing.
            _write(table, path, compression="none", use_dictionary=False)
            self._loose[kind][path] = table
        if len(self._loose["trials"]) >= SEGMENT_TRIALS:
            self.merge()

    def merge(self) -> None:
        """Merge the single-trial files into one segment per folder, epochs first.

        A crash in between loses nothing.
        """
        segment = f"segment-{uuid.uuid4().hex}.parquet"
        for kind in ("epochs", "trials"):
            loose = self._loose[kind]
            if len(loose) > 1:
                _write(_joined(loose.values()), self._folders[kind] / segment, compression="zstd")
                for path in loose:
                    _remove(path)
                loose.clear()


class RecordedTrial(NamedTuple):
    """Records content for one trial.

    Args:
        status: final status, or None if the row cannot be read.
        error: reason for a failure.
        epochs: number of recorded epochs.
    """

    status: str | None
    error: str | None
    epochs: int


def recorded_trials(study_directory: Path) -> dict[str, RecordedTrial]:
    """Return every trial in the records, by identifier.

    For a damaged single-trial file, the identifier is taken from the file name.
    """
    epochs: dict[str, int] = {}
    for row in _readable_rows(study_directory, "epochs", ["trial_id", "epoch"]):
        epochs[row["trial_id"]] = max(epochs.get(row["trial_id"], 0), row["epoch"] or 0)
    found = {trial_id: RecordedTrial(None, None, count) for trial_id, count in epochs.items()}
    # Reversed, so single-trial files come last and win: they hold the newest row of a rewritten trial.
    for row in reversed(_readable_rows(study_directory, "trials", ["trial_id", "status", "error", "epochs"])):
        count = max(row["epochs"] or 0, epochs.get(row["trial_id"], 0))
        found[row["trial_id"]] = RecordedTrial(row["status"], row["error"], count)
    return found


def recorded_config_ids(study_directory: Path) -> dict[str, str]:
    """Return the recorded config identifier of every readable trial, by trial identifier."""
    rows = _readable_rows(study_directory, "trials", ["trial_id", "config_id"])
    return {row["trial_id"]: row["config_id"] for row in rows if row.get("config_id") is not None}


def _readable_rows(study_directory: Path, kind: str, columns: list[str]) -> list[dict[str, Any]]:
    folder = study_directory / "records" / kind
    rows: list[dict[str, Any]] = []
    for path in _loose_files(folder) + sorted(folder.glob("segment-*.parquet")):
        try:
            rows += _read_file(path, columns).to_pylist()
        except DamagedRecordsError:
            if path.name.startswith("trial-"):
                trial_id = path.stem.removeprefix("trial-")
                rows.append({"trial_id": trial_id, "status": None, "error": None, "epochs": 0, "epoch": 0})
    return rows


def set_records_aside(study_directory: Path, *others: str) -> Path | None:
    """Move the records and all derived files to a new folder in `set-aside`.

    Args:
        study_directory: study folder.
        others: names of further files to move from the study folder.

    Returns:
        The new folder, or None if there is nothing to move.
    """
    there = [path for name in (*_DERIVED_FILES, *others) if (path := study_directory / name).exists()]
    if not there:
        return None
    aside = _new_folder(study_directory)
    for path in there:
        path.rename(aside / path.name)
    return aside


def _new_folder(study_directory: Path) -> Path:
    name, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while True:
        folder = study_directory / "set-aside" / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def read_trials(study_directory: str | Path) -> pa.Table:
    """Return one row per ended trial in a study, by start time (schema: this module).

    Raises:
        FileNotFoundError: the folder contains no records.
    """
    table = _read_unique(Path(study_directory), "trials", ["trial_id"])
    return table.sort_by([("started", "ascending"), ("trial_id", "ascending")])


def read_epochs(study_directory: str | Path) -> pa.Table:
    """Return one row per epoch of every ended trial, sorted by trial and epoch (schema: this module).

    Raises:
        FileNotFoundError: the folder contains no records.
    """
    table = _read_unique(Path(study_directory), "epochs", ["trial_id", "epoch"])
    return table.sort_by([("trial_id", "ascending"), ("epoch", "ascending")])


def _read_unique(study_directory: Path, kind: str, keys: list[str]) -> pa.Table:
    folder = study_directory / "records" / kind
    if not folder.is_dir():
        raise FileNotFoundError(f"{study_directory} contains no records ({folder} is missing): is it a study folder?")
    table = _read(folder, None)
    # After a crash between writing a segment and removing the parts, a trial is in both, with the same rows.
    seen: set[tuple[Any, ...]] = set()
    keep = []
    for position, key in enumerate(zip(*(table[name].to_pylist() for name in keys), strict=True)):
        if key not in seen:
            seen.add(key)
            keep.append(position)
    return table if len(keep) == table.num_rows else table.take(pa.array(keep, pa.int64()))


def _read(folder: Path, columns: list[str] | None) -> pa.Table:
    schema: pa.Schema = SCHEMAS[folder.name]
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    # Single-trial files first: they hold a rewritten trial's newest row.
    paths = _loose_files(folder) + sorted(folder.glob("segment-*.parquet"))
    return _joined([schema.empty_table(), *(_read_file(path, columns) for path in paths)])


def _joined(tables: Iterable[pa.Table]) -> pa.Table:
    # Records from earlier versions have fewer columns. The missing columns become null.
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise DamagedRecordsError(f"this version cannot read these records: {error}") from error


def _read_file(path: Path, columns: list[str] | None = None) -> pa.Table:
    stored = _stored_sidecar(path)
    content = path.read_bytes()
    try:
        # A sidecar changed by now belongs to another write of the file: a running study has replaced both.
        is_another = stored is not None and stored != _sidecar_content(path, content)
        if is_another and stored == _stored_sidecar(path):
            raise ValueError(f"its SHA-256 digest differs from the one in {_sidecar(path).name}")
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            if stored is None:
                _check_schema(file)
            return file.read(columns=columns)
    except Exception as error:  # pyarrow's errors, and Python's for invalid names or numbers
        raise DamagedRecordsError(
            f"{path} is damaged ({str(error).strip()}); `python -m study.launch --resume` of the study writes it again "
            "from the journal"
        ) from error


def _check_schema(file: pq.ParquetFile) -> None:
    """Compare both copies of the schema in the footer, Parquet's and Arrow's. Page checksums do not cover them.

    Otherwise, one flipped bit in a column name would look like a column missing from an earlier version.
    """
    stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if stored and not pa.ipc.read_schema(pa.BufferReader(base64.b64decode(stored))).equals(file.schema_arrow):
        raise ValueError("the two copies of the schema in its footer differ")


def _read_whole(path: Path) -> pa.Table | None:
    """Return the table in a file, or None if the file is damaged."""
    try:
        return _read_file(path)
    except DamagedRecordsError:
        return None


def _loose_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("trial-*.parquet"))


def _write(table: pa.Table, path: Path, **options: Any) -> None:
    content = _as_parquet(table, **options)
    # In this order: after a kill in between, the file has no sidecar instead of one for other content.
    _sidecar(path).unlink(missing_ok=True)
    replace_file(path, content)
    replace_file(_sidecar(path), _sidecar_content(path, content))


def _as_parquet(table: pa.Table, **options: Any) -> bytes:
    # A Python buffer would be slower: each of the hundreds of writes waits for the MLflow delivery thread.
    buffer = pa.BufferOutputStream()
    # If a table comes from a file of an earlier version, its metadata hold the digest of the old file.
    table = table.replace_schema_metadata(None)
    with pq.ParquetWriter(buffer, table.schema, write_page_checksum=True, **options) as writer:
        writer.write_table(table)
    return buffer.getvalue().to_pybytes()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + _SIDECAR_SUFFIX)


def _sidecar_content(path: Path, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()


def _stored_sidecar(path: Path) -> bytes | None:
    """Return the content of a file's sidecar, or None if there is none."""
    try:
        return _sidecar(path).read_bytes()
    except FileNotFoundError:
        return None


def _remove_orphaned_sidecars(folder: Path) -> None:
    """Remove sidecars without a file, left by a kill while files were removed."""
    for sidecar in folder.glob(f"*.parquet{_SIDECAR_SUFFIX}"):
        if not sidecar.with_suffix("").exists():
            sidecar.unlink(missing_ok=True)
