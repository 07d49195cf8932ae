import os
import resource
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from trainables.storage.rows import DTYPES, TeacherOutputsFileError, map_rows, write_rows

pytestmark = pytest.mark.study

ORIGIN = {"teacher_digest": "abc", "slot": 3}
SHAPE = (100, 6)


def some_rows(dtype: str = "float16") -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(DTYPES[dtype])


def read(path: Path, dtype: str = "float16") -> Tensor:
    return map_rows(path, ORIGIN, shape=SHAPE, dtype=dtype)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_rows(tmp_path / "new" / "slot.arrow", some_rows(), ORIGIN)
    return tmp_path / "new" / "slot.arrow"


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_written_is_read_to_the_bit(tmp_path, dtype):
    rows = some_rows(dtype)
    write_rows(tmp_path / "file", rows, ORIGIN)
    found = read(tmp_path / "file", dtype)
    assert found.dtype == rows.dtype
    assert torch.equal(found, rows)


def test_anyone_who_reads_arrow_can_read_it(path):
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    assert table.column_names == ["feature"]
    assert table.num_rows == 100
    assert b"teacher_digest" in table.schema.metadata[b"pesfkd"]


def test_a_file_is_readable_by_whom_the_umask_lets(path):
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_rows_lie_in_the_mapped_file_and_not_in_memory_of_the_process(tmp_path):
    file = tmp_path / "large.arrow"
    size = 48 << 20
    write_rows(file, torch.zeros(size // 512, 256, dtype=torch.float16), ORIGIN)
    before = _private_bytes()
    rows = map_rows(file, ORIGIN, shape=(size // 512, 256), dtype="float16")
    assert rows[torch.tensor([0, 5, size // 512 - 1])].sum() == 0
    assert _private_bytes() - before < size // 4
    start, end = _mapping_of(file)
    assert start <= rows.data_ptr() < rows.data_ptr() + size <= end


def test_a_file_that_is_not_there_is_told_from_one_that_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_a_file_cut_anywhere_is_refused_by_name(path):
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(TeacherOutputsFileError, match=path.name):
            read(path)


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_a_flip_of_any_byte_is_refused_or_changes_nothing(path, bit):
    content = path.read_bytes()
    rows = some_rows()
    refused = 0
    for position in range(len(content)):
        path.unlink()  # a mapped file must not change in place
        path.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
        try:
            found = read(path)
        except TeacherOutputsFileError:
            refused += 1
        else:
            assert torch.equal(found, rows), position
    assert refused > rows.numel() * 2  # every byte of the rows, and most of the metadata


def test_a_flip_in_any_block_of_a_larger_file_is_refused(tmp_path):
    file = tmp_path / "file"
    shape = (3 << 12, 256)  # 6 blocks
    write_rows(file, torch.zeros(shape, dtype=torch.float16), ORIGIN)
    content = file.read_bytes()
    for position in range(100_000, len(content), 1 << 20):
        file.unlink()
        file.write_bytes(content[:position] + b"\x01" + content[position + 1 :])
        with pytest.raises(TeacherOutputsFileError, match="damaged: wrong checksums in blocks"):
            map_rows(file, ORIGIN, shape=shape, dtype="float16")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"ARROW1\x00\x00" * 40])
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(TeacherOutputsFileError, match="not a complete teacher outputs file"):
        read(path)


def test_an_arrow_file_of_somebody_else_is_refused(path):
    table = pa.table({"feature": [1, 2, 3]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(TeacherOutputsFileError, match="not a complete teacher outputs file"):
        read(path)


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ({"teacher_digest": "abd", "slot": 3}, "teacher_digest is 'abc', expected 'abd'"),
        ({"teacher_digest": "abc", "slot": 4}, "slot is 3, expected 4"),
        ({"teacher_digest": "abc", "slot": 3, "new": 1}, "new is None, expected 1"),
        ({"teacher_digest": "abc"}, "slot is 3, expected None"),
    ],
)
def test_rows_of_another_origin_are_refused_naming_what_differs(path, origin, says):
    with pytest.raises(TeacherOutputsFileError, match=says):
        map_rows(path, origin, shape=SHAPE, dtype="float16")


def test_rows_of_another_shape_or_width_are_refused(path):
    with pytest.raises(TeacherOutputsFileError, match="it has 100 rows, expected 99"):
        map_rows(path, ORIGIN, shape=(99, 6), dtype="float16")
    for width, dtype in ((5, "float16"), (6, "float32")):
        with pytest.raises(TeacherOutputsFileError, match=r"fixed_size_binary\[12\].*expected 1 of"):
            map_rows(path, ORIGIN, shape=(100, width), dtype=dtype)


def test_when_the_disk_is_full_half_way_the_old_file_stays_and_nothing_else(path):
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_rows(path, torch.ones(100_000, 6, dtype=torch.float16), ORIGIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def _private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def _mapping_of(file: Path) -> tuple[int, int]:
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    ends = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return min(start for start, _ in ends), max(end for _, end in ends)
