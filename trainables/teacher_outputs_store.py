"""The frozen teacher's outputs, computed once for all trials, epochs and processes, and mapped from files.

What is kept is the penultimate feature; the logits are the frozen head applied to it, which costs nothing
measurable.

There is a file for every slot of views (see `trainables.data.views`) and one for the validation split. The first
trial that comes to a slot computes it: one pass of the teacher over the train split, which is what a live teacher
costs that epoch. Everyone else maps the file. A file's rows depend on nothing that differs between trials: the
samples go through the teacher in their own order, in batches of a fixed size, on one thread. So it does not matter
who computes them, and a trial gives the same bits whether it found its rows or computed them.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from trainables.data.dataset import Dataset, digest_of
from trainables.data.views import Normaliser, ViewedImages, ViewTable, view_table, views_of_slots
from trainables.storage import locked, remove_partial_files
from trainables.teacher import FrozenTeacher
from trainables.teacher_outputs import TeacherBatch
from trainables.teacher_outputs_file import DTYPES, OutputsDtype, TeacherOutputsFileError, map_rows, write_rows
from trainables.training import one_thread

_FORMAT: Final = "pesfkd-teacher-outputs-1"
_FILL_BATCH: Final = 512  # part of the format: another size may change the last bits
_log = logging.getLogger(__name__)


class TeacherOutputsError(ValueError):
    """The teacher's outputs cannot be stored as asked."""


class StoredRows(NamedTuple):
    """Features as they lie in a file.

    Args:
        rows: (N, D), of the store's dtype, read-only.
        forwards: samples that went through the teacher for this answer; 0 if the rows were there.
    """

    rows: Tensor
    forwards: int


class TeacherOutputsStore:
    """The outputs of one teacher on one dataset, in files under the digest of everything they depend on.

    A file is verified once by each process, when it is first asked for. One that is damaged or is not what its
    name says is named in the log and built anew. Of several processes that ask for the same rows one computes
    them and the others wait. Where a file cannot be written, the trial that computed its rows goes on with them.

    Args:
        folder: holds the outputs of any number of teachers, each in a folder named by its key.
        teacher: the frozen teacher.
        dataset: its data.
        architecture: the teacher's name.
        augmentation: which views, as in `TrialConfig`.
        dtype: of the stored rows. float16 moved the divergence between a teacher and its stored self by at most
            1e-6 nats, bfloat16 by 6e-5 (CIFAR nets; a hundredth of that on the digits).
        device: where the teacher runs and the rows are wanted.
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
    ) -> None:
        self.device = torch.device(device)
        self.teacher = teacher.to(self.device)
        self.dtype: OutputsDtype = dtype
        self._dataset = dataset
        self._table = view_table(dataset.name, augmentation)
        self._normalise = Normaliser(dataset.mean, dataset.std, self.device)
        self._mapped: dict[Path, Tensor] = {}
        self.origin: dict[str, Any] = {
            "format": _FORMAT,
            "batch": _FILL_BATCH,
            "architecture": architecture,
            "teacher_digest": teacher.digest,
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "split_seed": dataset.seed,
            "views": len(self._table),
            "views_digest": _table_digest(self._table),
            "feature_dim": teacher.head.in_features,
            "dtype": dtype,
            "byte_order": sys.byteorder,
            # Other kernels round otherwise, and a trial must give the same bits from found as from new rows.
            "device": self.device.type,
            "torch": torch.__version__,
        }
        content = json.dumps(self.origin, sort_keys=True)
        self.key = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.folder = folder / self.key

    def slot(self, slot: int) -> StoredRows:
        """The features of the train split, every sample in its view of that slot.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        views = self._views[slot]
        origin = self.origin | {"split": "train", "slot": slot, "slot_digest": digest_of("slot", views.numpy())}
        return self._rows(self.slot_path(slot), origin, len(views), lambda: self._train_images(views))

    def validation(self) -> StoredRows:
        """The features of the validation split, every image as it is.

        Raises:
            TeacherOutputsError: a feature does not fit the dtype.
        """
        images = self._dataset.validation.images
        origin = self.origin | {"split": "validation"}
        return self._rows(self.validation_path, origin, len(images), lambda: iter(images.split(_FILL_BATCH)))

    def slot_path(self, slot: int) -> Path:
        """The file of a slot."""
        return self.folder / f"slot-{slot:04d}.arrow"

    @property
    def validation_path(self) -> Path:
        """The file of the validation split."""
        return self.folder / "validation.arrow"

    @cached_property
    def _views(self) -> Tensor:
        # (V, N): all slots, of which a trial's are the first.
        count = len(self._table)
        views = views_of_slots(len(self._dataset.train), count, count, seed=self._dataset.seed)
        return views.to(torch.int16)

    def _train_images(self, views: Tensor) -> Iterator[Tensor]:
        images = ViewedImages(self._dataset.train.images.to(self.device), self._table)
        for indices in torch.arange(len(views), device=self.device).split(_FILL_BATCH):
            yield images.batch(indices, views[indices.cpu()].long().to(self.device))

    def _rows(
        self, path: Path, origin: dict[str, Any], count: int, images: Callable[[], Iterator[Tensor]]
    ) -> StoredRows:
        found = self._map(path, origin, count)
        if found is not None:
            return StoredRows(found, 0)
        computed: Tensor | None = None
        try:
            with locked(path.with_suffix(".lock")):
                found = self._map(path, origin, count)
                if found is not None:
                    return StoredRows(found, 0)
                remove_partial_files(path)
                computed = self._compute(images())
                write_rows(path, computed, origin)
                mapped = self._map(path, origin, count)
        except OSError as error:
            _log.warning("%s: not stored (%s); the trial goes on with the rows it computed", path, error)
            mapped = None
        if computed is None:
            computed = self._compute(images())
        return StoredRows(mapped if mapped is not None else computed, count)

    def _map(self, path: Path, origin: dict[str, Any], count: int) -> Tensor | None:
        if path not in self._mapped:
            shape = (count, self.teacher.head.in_features)
            try:
                self._mapped[path] = map_rows(path, origin, shape=shape, dtype=self.dtype)
            except FileNotFoundError:
                return None
            except TeacherOutputsFileError as error:
                _log.warning("%s; it is built anew", error)
                return None
        return self._mapped[path]

    def _compute(self, batches: Iterator[Tensor]) -> Tensor:
        with one_thread():
            features = [self.teacher(self._normalise(images.to(self.device))).feature for images in batches]
        exact = torch.cat(features)
        rows = exact.to(DTYPES[self.dtype])
        if not exact.isfinite().all():
            raise TeacherOutputsError("the teacher's features are not finite: its weights are of no use")
        if not rows.isfinite().all():
            raise TeacherOutputsError(
                f"the teacher's features reach {exact.abs().max():g}, which {self.dtype} does not hold; "
                "choose float32 or bfloat16, or a live teacher"
            )
        return rows.cpu()


class StoredTeacherOutputs:
    """A trial's view of a store.

    Args:
        store: may be shared by all trials of a process.
    """

    stored = True

    def __init__(self, store: TeacherOutputsStore) -> None:
        self._store = store
        self._head = store.teacher.head
        self.numbers_per_sample = self._head.in_features + self._head.out_features
        self._slot: int | None = None
        self._slot_rows: Tensor | None = None
        self._validation_rows: Tensor | None = None
        self.forwards = 0

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
        feature = rows[indices].float()
        return TeacherBatch(feature, self._head(feature))


def _table_digest(table: ViewTable) -> str:
    return hashlib.sha256(json.dumps(asdict(table)).encode()).hexdigest()[:16]
