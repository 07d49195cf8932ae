"""The frozen teacher's outputs, computed once for all trials, epochs and processes, and mapped from files.

What is kept is the penultimate feature; the logits are the frozen head applied to it, which costs nothing
measurable.

There is a file for every slot of views (see `trainables.data.views`) and one for the validation split. Who first
asks for a slot that is not there computes it: one pass of the teacher over the train split, which is what a live
teacher costs an epoch. Everyone else maps the file. A file's rows depend on nothing that differs between trials or
machines' loads: the samples go through the teacher in their own order, in batches of a fixed size, on one thread. So
it does not matter who computes them, and a trial gives the same bits whether it found its rows or computed them.

Files can also be filled ahead, shard by shard (`missing`, `fill`): a shard is a whole file or, of a large one, a range
of its rows, kept in a file of its own until all of them are there.

With storage that all nodes reach (`RemoteFolder`), a node's folder holds copies: a file is fetched once a node, and
what a node computes is sent there.
"""

import logging
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from trainables.data.dataset import Dataset
from trainables.storage.remote_folder import RemoteFolder
from trainables.storage.rows import DTYPES, OutputsDtype, TeacherOutputsFileError, map_rows, write_rows
from trainables.storage.tensors import atomic_file, locked, remove_partial_files
from trainables.teacher_outputs.batch import TeacherBatch
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.table import FILL_BATCH, Table, TeacherOutputsError, TeacherTables

__all__ = [
    "ROWS_PER_SHARD",
    "FilledShard",
    "Shard",
    "StoredRows",
    "StoredTeacherOutputs",
    "TeacherOutputsError",
    "TeacherOutputsStore",
]

# Of a file with more rows, so many are a shard; a multiple of the batch, so that all batches stay what they are.
ROWS_PER_SHARD: Final = 128 * FILL_BATCH
_log = logging.getLogger(__name__)


class StoredRows(NamedTuple):
    """Features as they lie in a file.

    Args:
        rows: (N, D), of the store's dtype, read-only.
        forwards: samples that went through the teacher for this answer; 0 if the rows were there.
    """

    rows: Tensor
    forwards: int


class Shard(NamedTuple):
    """What one worker fills at a time.

    Args:
        slot: of the train split; None is the validation split.
        start: its first row.
        stop: the row after its last one.
    """

    slot: int | None
    start: int
    stop: int


class FilledShard(NamedTuple):
    """What became of a shard.

    Args:
        forwards: samples that went through the teacher; 0 if the rows were there.
        stored: whether its file now is where everyone looks for it.
    """

    forwards: int
    stored: bool


class TeacherOutputsStore:
    """The outputs of one teacher on one dataset, in files under the digest of everything they depend on.

    A file is verified once by each process, when it is first asked for. One that is damaged or is not what its
    name says is noted (`take_notes`) and built anew. Of several processes of a node that ask for the same rows one
    computes them and the others wait. Where a file cannot be written, who computed its rows goes on with them.

    Args:
        folder: holds the outputs of any number of teachers, each in a folder named by its key.
        teacher: the frozen teacher.
        dataset: its data.
        architecture: the teacher's name.
        augmentation: which views, as in `TrialConfig`.
        dtype: of the stored rows. float16 moved the divergence between a teacher and its stored self by at most
            1e-6 nats, bfloat16 by 6e-5 (CIFAR nets; a hundredth of that on the digits).
        device: where the teacher runs and the rows are wanted.
        remote: storage that all nodes reach; `folder` then holds this node's copies of what lies there.
        rows_per_shard: a multiple of the batch in which files are filled.
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
        """Sixteen hex digits of everything that the rows depend on."""
        return self.tables.key

    def slot(self, slot: int) -> StoredRows:
        """The features of the train split, every sample in its view of that slot.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        return self._rows(self.tables.slot(slot))

    def validation(self) -> StoredRows:
        """The features of the validation split, every image as it is.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        return self._rows(self.tables.validation)

    def stored_bytes(self, slots: int) -> int:
        """What the rows of the first `slots` slots and of the validation split take, there already or not."""
        return self.tables.count_rows(slots) * self.tables.width * DTYPES[self.dtype].itemsize

    def missing(self, slots: int) -> list[Shard]:
        """What is left to fill until the validation split and the first `slots` slots have their files.

        A file that is there counts, whatever is in it: who reads it will find out. Where all ranges of a large file
        are there and the file is not, the shard of all its rows puts them together.

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
        """Have a shard's rows in a file, computed unless they are there.

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
                self._note(f"{error}; not sent there: {table.file_name}")
                stored = False
        return FilledShard(forwards, stored)

    def take_notes(self) -> list[str]:
        """What somebody should know: files that were refused, or could not be stored; each is told once."""
        notes, self._notes = self._notes, []
        return notes

    def slot_path(self, slot: int) -> Path:
        """The file of a slot, on this node."""
        return self._path(self.tables.slot(slot))

    @property
    def validation_path(self) -> Path:
        """The file of the validation split, on this node."""
        return self._path(self.tables.validation)

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
                return self._built(table)
            self._mapped[table.name] = found
        return StoredRows(self._mapped[table.name], 0)

    def _built(self, table: Table) -> StoredRows:
        """The rows of a file that is not here or is not whole: by another process meanwhile, from afar, or now."""
        computed: StoredRows | None = None
        path = self._path(table)
        try:
            with locked(path.with_suffix(".lock")):
                found = self._map(table, noting=True)
                if found is None:
                    remove_partial_files(path)
                    found = self._fetched(table)
                if found is None:
                    computed = self._assembled(table)
                    write_rows(path, computed.rows, table.origin)
                    found = self._map(table)
                    self._send(table)
                    self._remove_parts(table)
        except OSError as error:
            self._note(f"{path}: not stored ({error}); who needed these rows goes on with those it computed")
            found = None
        if found is not None:
            self._mapped[table.name] = found
            return StoredRows(found, computed.forwards if computed is not None else 0)
        return computed or self._assembled(table)

    def _map(self, table: Table, *, noting: bool = False) -> Tensor | None:
        shape = (table.count, self.tables.width)
        try:
            return map_rows(self._path(table), table.origin, shape=shape, dtype=self.dtype)
        except FileNotFoundError:
            return None
        except TeacherOutputsFileError as error:
            if noting:  # only by the one that will mend it
                self._note(f"{error}; it is made anew")
            return None

    def _fetched(self, table: Table) -> Tensor | None:
        """A file from storage, copied to this node if it is what it should be."""
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
            self._note(f"{found}; it is made anew")
            return None
        except OSError as error:
            self._note(f"{error}; not fetched from there: {table.file_name}")
            return None

    def _send(self, table: Table) -> None:
        if self._remote is not None:
            try:
                self._remote.write_from(self._remote_name(table), self._path(table))
            except OSError as error:
                self._note(f"{error}; not sent there: {table.file_name}")

    def _assembled(self, table: Table) -> StoredRows:
        """A file's rows, from the ranges that are there; the others are computed."""
        parts = self._parts(table)
        if len(parts) == 1:
            return StoredRows(self.tables.compute(table), table.count)
        forwards = 0
        rows = torch.empty(table.count, self.tables.width, dtype=DTYPES[self.dtype])
        for part in parts:
            found = self._map(part, noting=True)
            found = found if found is not None else self._fetched(part)
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
    """A trial's view of a store.

    Args:
        store: may be shared by all trials of a process.
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
        """See `TeacherOutputsStore.stored_bytes`."""
        return self._store.stored_bytes(slots)

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Rows of the slot's file, gathered; the images are not looked at."""
        if self._slot_rows is None or slot != self._slot:
            self._slot_rows = self._wanted(self._store.slot(slot))
            self._slot = slot
        return self._batch(self._slot_rows, indices)

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Rows of the validation split's file, gathered; the images are not looked at."""
        if self._validation_rows is None:
            self._validation_rows = self._wanted(self._store.validation())
        return self._batch(self._validation_rows, indices)

    def _wanted(self, stored: StoredRows) -> Tensor:
        self.forwards += stored.forwards
        # On the CPU this is the mapped file itself; a GPU holds one slot at a time.
        return stored.rows.to(self._store.device)

    @torch.no_grad()
    def _batch(self, rows: Tensor, indices: Tensor) -> TeacherBatch:
        # Whole rows are copied at once; `rows[indices]` takes six times as long.
        feature = rows.index_select(0, indices).float()
        return TeacherBatch(feature, self._head(feature))
