"""Full disks: a real small file system in memory, filled completely before each write."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from study.ledger.journal import Journal
from study.ledger.ledger import StudyLedger
from study.ledger.rows import epoch_rows, trial_row
from study.records import RecordWriter, read_trials
from study.result.outcome import _write_json
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from tests.study.inspection import assert_whole, read_journal
from tests.study.processes import start_study, wait_for_trials
from trainables.storage.rows import map_rows, write_rows
from trainables.storage.tensors import write_tensors

pytestmark = pytest.mark.fault


class SmallDisk:
    """File system of a few megabytes.

    Args:
        folder: mount point.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Fill the disk completely."""
        with self._ballast.open("ab", buffering=0) as file:
            size = 1 << 16
            while size:
                try:
                    size = size if file.write(b"x" * size) == size else size // 2
                except OSError:
                    size //= 2

    def empty(self) -> None:
        """Free the space again."""
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=24m", "pesfkd-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if mount else None
    if done is None or done.returncode != 0:
        pytest.skip(f"needs a file system of its own, which only root may mount: {done.stderr if done else 'no mount'}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name not in ("ballast", ".lock"))


def test_a_journal_on_a_full_disk_says_so_and_keeps_what_it_has(small_disk):
    path = small_disk.folder / "journal.jsonl"
    journal = Journal(path)
    journal.append({"event": "first", "text": "x" * 5000})
    small_disk.fill()
    event = {"event": "second", "text": "y" * 9000}  # more than the rest of the current page
    with pytest.raises(
        OSError, match=r"journal.jsonl cannot be written \(.*\): it needs [\d,]+ bytes, and there are [\d,]+"
    ):
        journal.append(event)
    taken = len(read_journal(path)[0])
    assert read_journal(path)[1] == []
    small_disk.empty()
    journal.append({"event": "third"}, durable=True)
    events, damaged = read_journal(path)
    assert (len(events), events[-1], damaged) == (taken + 1, {"event": "third"}, [])


def test_nothing_half_written_is_read_as_whole_and_all_is_written_when_there_is_room(small_disk, tmp_path):
    folder = small_disk.folder
    ledger = StudyLedger(make_plan(folder))
    PretendedTune(StudySearch(ledger, {}), ledger).run()
    writer = RecordWriter(ledger.plan.directory)
    entries = list(ledger.entries.values())
    for entry in entries[:-1]:
        writer.write(trial_row(ledger.plan, entry), epoch_rows(entry))
    _write_json(folder / "summary.json", {"old": True})
    rows, origin = torch.rand(4000, 64).half(), {"of": "this test"}
    writes = {
        "trial-planned-0012.parquet": lambda: writer.write(
            trial_row(ledger.plan, entries[-1]), epoch_rows(entries[-1])
        ),
        "segment-": writer.merge,
        "summary.json": lambda: _write_json(folder / "summary.json", {"new": "x" * 9000}),
        "plan.json": ledger.plan.save,
        "rows.arrow": lambda: write_rows(folder / "rows.arrow", rows, origin),
        "weights.safetensors": lambda: write_tensors(folder / "weights.safetensors", {"w": torch.rand(9000)}, {}),
    }
    small_disk.fill()
    before = names(folder)
    for name, write in writes.items():
        with pytest.raises(OSError, match=r"cannot be written \(.*\): it needs .* bytes, and there are") as caught:
            write()
        assert name in str(caught.value)
        assert names(folder) == before
    assert read_trials(ledger.plan.directory).num_rows == len(entries) - 1
    assert "old" in (folder / "summary.json").read_text()
    small_disk.empty()
    for write in writes.values():
        write()
    assert read_trials(ledger.plan.directory).num_rows == len(entries)
    assert map_rows(folder / "rows.arrow", origin, shape=(4000, 64), dtype="float16").equal(rows)


@pytest.mark.parametrize("events", [0, 40])
def test_a_study_whose_disk_fills_up_says_what_it_needs_and_goes_on_when_there_is_room(small_disk, launch, events):
    """Either nothing fits at all (0), or the disk, which also holds MLflow's database, fills during trials (40)."""
    study = ("--space", "adapter_width", "--trials", "5", "--promising", "1", "--replicates", "2", "--epochs", "8")
    if not events:
        small_disk.fill()
    process = start_study(*study, "--name", "tight", "--output-dir", small_disk.folder)
    try:
        if events:
            wait_for_trials(process, small_disk.folder / "tight", events, timeout=240)
            small_disk.fill()
        said = process.communicate(timeout=240)[1]
    finally:
        process.kill()
    assert process.returncode in (1, 2), said
    assert "Traceback" not in said
    small_disk.empty()
    if not events:
        assert "plan.json cannot be written (No space left on device): it needs " in said
        assert f"and there are 0 bytes free in {small_disk.folder}" in said
        assert names(small_disk.folder) == []  # the same command can be given again
        return
    assert "cannot be written (No space" in said or "No space left" in said, said
    assert f"--resume tight --output-dir {small_disk.folder}" in said
    done = launch("--resume", "tight", "--output-dir", small_disk.folder, "--executor", "in-process")
    assert done.returncode == 0, done.stderr
    assert_whole(small_disk.folder / "tight")
