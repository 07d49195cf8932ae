"""Store of the frozen teacher's outputs: computed once for all trials, epochs and processes, and mapped from files.

The store keeps the penultimate features. The logits are recomputed with the frozen head, at no measurable cost.

There is one file for every view slot (see `trainables.data.views`) and one for the validation split. The first process
to need a missing slot computes the rows, in one teacher pass over the train split. A live teacher costs the same in
every epoch. All other processes map the file. The rows depend neither on the trial nor on the load of the
machine: samples pass through the teacher in their own order, in batches of a fixed size, on one thread. Any process may
therefore compute them, and a trial gives the same bits with stored and with computed rows.

Files can also be filled in advance, shard by shard (`missing`, `fill`). A shard is a whole file, or a range of rows of
a large file. Each range is kept in a separate file until all ranges exist.

With storage shared by all nodes (`RemoteFolder`), a node's folder holds copies. A node fetches each file once, and
uploads every computed file.
"""

import logging
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from trainables.data.dataset import Dataset
from trainables.storage.atomic import atomic_file, locked, remove_partial_files
from trainables.storage.remote_folder import RemoteFolder
from trainables.storage.rows import DTYPES, OutputsDtype, TeacherOutputsFileError, map_rows, write_rows
from trainables.teacher_outputs.batch import TeacherBatch
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.shard import Shard
from trainables.teacher_outputs.table import FILL_BATCH, Table, TeacherTables

# Files with more rows are split into shards of this size. The shard size is a multiple of the batch size, so splitting
# changes no batch.
ROWS_PER_SHARD: Final = 128 * FILL_BATCH
_log = logging.getLogger(__name__)


class StoredRows(NamedTuple):
    """Features as stored in a file.

    Args:
        rows: (N, D), in the store's dtype, read-only.
        forwards: samples passed through the teacher for this request; 0 if the rows existed.
    """

    rows: Tensor
    forwards: int


class FilledShard(NamedTuple):
    """Result of filling a shard.

    Args:
        forwards: samples passed through the teacher; 0 if the rows existed.
        stored: whether the file is now in the final place, known to all processes.
    """

    forwards: int
    stored: bool


class TeacherOutputsStore:
    """Outputs of one teacher on one dataset, in a folder named by a digest of all dependencies.

    Each process verifies a file once, on first use. A damaged or wrong file is noted (`take_notes`) and rebuilt. If
    several processes on a node need the same rows, one computes them and the others wait. If a file cannot be written,
    the computing process continues with the rows in memory.

    Args:
        folder: folder for the outputs of any number of teachers. Each teacher has a subfolder named by the key.
        teacher: frozen teacher.
        dataset: the outputs' dataset.
        architecture: name of the teacher architecture.
        augmentation: view choice, as in `TrialConfig`.
        dtype: dtype of stored rows. With float16, the divergence between a teacher and the stored outputs changed by at
            most 1e-6 nats, with bfloat16 by 6e-5 (CIFAR networks; a hundredth of that on the digits).
        device: device for the teacher and the looked-up outputs.
        remote: storage shared by all nodes. If given, `folder` holds this node's copies.
        rows_per_shard: rows per shard, a multiple of the batch size for filling (`FILL_BATCH`).
    """

    def __init__(
        self,
        folder: Path,
        teacher: FrozenTeacher,
        dataset: Dataset,
        *,
        architecture: str,
        augmentation: str,
        dtype: OutputsDtype = "float16",
        device: torch.device | str = "cpu",
        remote: RemoteFolder | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
    ) -> None:
        assert rows_per_shard % FILL_BATCH == 0
        self.device = torch.device(device)
        self.teacher = teacher.to(self.device)
        self.dtype: OutputsDtype = dtype
        self.tables = TeacherTables(
            self.teacher,
            dataset,
            architecture=architecture,
            augmentation=augmentation,
            dtype=dtype,
            device=self.device,
        )
        self.folder = folder / self.tables.key
        self._mapped: dict[str, Tensor] = {}
        self._remote = remote
        self._rows_per_shard = rows_per_shard
        self._notes: list[str] = []

    @property
    def key(self) -> str:
        """Sixteen hex digits of the digest of all row dependencies."""
        return self.tables.key

    def slot(self, slot: int) -> StoredRows:
        """Return the train split's features, with every sample in the slot's view.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        return self._rows(self.tables.slot(slot))

    def validation(self) -> StoredRows:
        """Return the validation split's features, without augmentation.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        return self._rows(self.tables.validation)

    def stored_bytes(self, slots: int) -> int:
        """Return the rows' size in bytes for the first `slots` slots and the validation split, stored or not."""
        return self.tables.count_rows(slots) * self.tables.width * DTYPES[self.dtype].itemsize

    def missing(self, slots: int) -> list[Shard]:
        """Return the shards left to fill for the validation split and the first `slots` slots.

        Existing files are not read here; their content is verified on use. If all ranges of a large file exist but the
        file does not, one shard with all rows is returned. Filling this shard joins the ranges.

        Raises:
            RemoteFolderError: the storage does not answer.
        """
        there = self._names()
        missing = []
        for slot in (None, *range(slots)):
            table = self._table(slot)
            if table.file_name not in there:
                parts = [part for part in self._parts(table) if part.file_name not in there]
                missing += [Shard(slot, part.start, part.stop) for part in parts or [table]]
        return missing

    def fill(self, shard: Shard) -> FilledShard:
        """Store a shard's rows in a file, computing them if missing.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        table = self._table(shard.slot)
        if (shard.start, shard.stop) != (table.start, table.stop):
            table = table.rows(shard.start, shard.stop)
        forwards = self._rows(table).forwards
        stored = self._path(table).exists()
        if self._remote is not None and stored:
            try:
                if table.file_name not in self._names():
                    self._remote.write_from(self._remote_name(table), self._path(table))
            except OSError as error:
                self._note(f"{error}; not uploaded: {table.file_name}")
                stored = False
        return FilledShard(forwards, stored)

    def take_notes(self) -> list[str]:
        """Return and clear the notes for the user about rejected files and files that could not be stored."""
        notes, self._notes = self._notes, []
        return notes

    def _table(self, slot: int | None) -> Table:
        return self.tables.slot(slot) if slot is not None else self.tables.validation

    def _parts(self, table: Table) -> list[Table]:
        starts = range(table.start, table.stop, self._rows_per_shard)
        if len(starts) == 1:
            return [table]
        return [table.rows(start, min(start + self._rows_per_shard, table.stop)) for start in starts]

    def _path(self, table: Table) -> Path:
        return self.folder / table.file_name

    def _remote_name(self, table: Table) -> str:
        return f"{self.key}/{table.file_name}"

    def _names(self) -> set[str]:
        if self._remote is not None:
            return self._remote.names(self.key)
        return {path.name for path in self.folder.glob("*.arrow")}

    def _rows(self, table: Table) -> StoredRows:
        if table.name not in self._mapped:
            found = self._map(table)
            if found is None:
                return self._build_rows(table)
            self._mapped[table.name] = found
        return StoredRows(self._mapped[table.name], 0)

    def _build_rows(self, table: Table) -> StoredRows:
        """Return the rows for a file, missing or damaged on this node.

        The rows come from a file written by another process in the meantime, from remote storage, or are computed.
        """
        computed: StoredRows | None = None
        path = self._path(table)
        try:
            with locked(path.with_suffix(".lock")):
                found = self._map(table, add_note=True)
                if found is None:
                    remove_partial_files(path)
                    found = self._fetch(table)
                if found is None:
                    computed = self._assemble(table)
                    write_rows(path, computed.rows, table.origin)
                    found = self._map(table)
                    self._send(table)
                    self._remove_parts(table)
        except OSError as error:
            self._note(f"{path}: not stored ({error}); the process uses the rows it computed")
            found = None
        if found is not None:
            self._mapped[table.name] = found
            return StoredRows(found, computed.forwards if computed is not None else 0)
        return computed or self._assemble(table)

    def _map(self, table: Table, *, add_note: bool = False) -> Tensor | None:
        shape = (table.count, self.tables.width)
        try:
            return map_rows(self._path(table), table.origin, shape=shape, dtype=self.dtype)
        except FileNotFoundError:
            return None
        except TeacherOutputsFileError as error:
            if add_note:  # only in the rebuilding process
                self._note(f"{error}; the file is rebuilt")
            return None

    def _fetch(self, table: Table) -> Tensor | None:
        """Fetch a file from remote storage and copy it to this node, if the file is valid."""
        if self._remote is None:
            return None
        shape = (table.count, self.tables.width)
        try:
            with atomic_file(self._path(table)) as file:
                self._remote.read_into(self._remote_name(table), file)
                file.flush()
                return map_rows(Path(file.name), table.origin, shape=shape, dtype=self.dtype)
        except FileNotFoundError:
            return None
        except TeacherOutputsFileError as error:
            found = str(error).replace(str(Path(file.name)), f"{self._remote}/{self._remote_name(table)}")
            self._note(f"{found}; the file is rebuilt")
            return None
        except OSError as error:
            self._note(f"{error}; not downloaded: {table.file_name}")
            return None

    def _send(self, table: Table) -> None:
        if self._remote is not None:
            try:
                self._remote.write_from(self._remote_name(table), self._path(table))
            except OSError as error:
                self._note(f"{error}; not uploaded: {table.file_name}")

    def _assemble(self, table: Table) -> StoredRows:
        """Return a file's rows from existing ranges. Missing ranges are computed."""
        parts = self._parts(table)
        if len(parts) == 1:
            return StoredRows(self.tables.compute(table), table.count)
        forwards = 0
        rows = torch.empty(table.count, self.tables.width, dtype=DTYPES[self.dtype])
        for part in parts:
            found = self._map(part, add_note=True)
            found = found if found is not None else self._fetch(part)
            if found is None:
                found = self.tables.compute(part)
                forwards += part.count
            rows[part.start - table.start : part.stop - table.start] = found
        return StoredRows(rows, forwards)

    def _remove_parts(self, table: Table) -> None:
        for part in self._parts(table):
            if part is not table:
                self._mapped.pop(part.name, None)
                for path in (self._path(part), self._path(part).with_suffix(".lock")):
                    path.unlink(missing_ok=True)
                if self._remote is not None:
                    self._remote.delete(self._remote_name(part))

    def _note(self, text: str) -> None:
        _log.warning("%s", text)
        self._notes.append(text)


class StoredTeacherOutputs:
    """Source of teacher outputs for one trial, read from a store.

    Args:
        store: store, which may be shared by all trials in a process.
    """

    stored = True

    def __init__(self, store: TeacherOutputsStore) -> None:
        self._store = self.source = store
        self._head = store.teacher.head
        self.numbers_per_sample = self._head.in_features + self._head.out_features
        self._slot: int | None = None
        self._slot_rows: Tensor | None = None
        self._validation_rows: Tensor | None = None
        self.forwards = 0

    def stored_bytes(self, slots: int) -> int:
        """Return the stored rows' size in bytes (see `TeacherOutputsStore.stored_bytes`)."""
        return self._store.stored_bytes(slots)

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Look up the outputs in the slot's file. The argument `images` is ignored."""
        if self._slot_rows is None or slot != self._slot:
            self._slot_rows = self._to_device(self._store.slot(slot))
            self._slot = slot
        return self._batch(self._slot_rows, indices)

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Look up the outputs in the validation split's file. The argument `images` is ignored."""
        if self._validation_rows is None:
            self._validation_rows = self._to_device(self._store.validation())
        return self._batch(self._validation_rows, indices)

    def _to_device(self, stored: StoredRows) -> Tensor:
        self.forwards += stored.forwards
        # On the CPU this is the mapped file itself. A GPU holds one slot at a time.
        return stored.rows.to(self._store.device)

    @torch.no_grad()
    def _batch(self, rows: Tensor, indices: Tensor) -> TeacherBatch:
        # `index_select` copies whole rows at once; `rows[indices]` takes six times as long.
        feature = rows.index_select(0, indices).float()
        return TeacherBatch(feature, self._head(feature))
