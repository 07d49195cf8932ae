"""`python -m tests.study.fuzz_readers records|outputs [OPTIONS OF LIBFUZZER] FOLDER`: fuzz a reader with atheris.

The code coverage of the readers guides the fuzzer. Records have no sidecar, so that the fuzzer also reaches the reader
behind the digest check.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["study.records", "trainables.storage.rows"]):
    from study import records
    from trainables.storage import rows as teacher_outputs_file

_PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))
_ORIGIN = {"of": "a test"}


def write_whole(kind: str, path: Path) -> None:
    """Write a valid file to start from."""
    if kind == "records":
        row = {"trial_id": "a-0000", "study": "a", "status": "finished", "epochs": 1}
        table = records.pa.Table.from_pylist([row], schema=records.TRIALS_SCHEMA)
        path.write_bytes(records._as_parquet(table, compression="none", use_dictionary=False))
    else:
        rows = teacher_outputs_file.torch.arange(24).reshape(4, 6).half()
        teacher_outputs_file.write_rows(path, rows, _ORIGIN)


def _read_records(content: bytes) -> None:
    """Read the content as a file of records. Only the error for damaged records may be raised."""
    folder = _PLACE / "records" / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "segment-a.parquet").write_bytes(content)
    try:
        records.read_trials(_PLACE)
    except records.DamagedRecordsError:
        return


def _map_outputs(content: bytes) -> None:
    """Map the content as teacher outputs. Only the error for damaged files may be raised."""
    path = _PLACE / "rows.arrow"
    path.write_bytes(content)
    try:
        teacher_outputs_file.map_rows(path, _ORIGIN, shape=(4, 6), dtype="float16")
    except teacher_outputs_file.TeacherOutputsFileError:
        return


def main() -> None:
    kind = sys.argv.pop(1)
    write_whole(kind, Path(sys.argv[-1]) / "whole")
    atheris.Setup(sys.argv, _read_records if kind == "records" else _map_outputs)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
