"""Teacher output tables: each file's rows, with origin and computation."""

import copy
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from trainables.data.dataset import Dataset, Split, digest_of
from trainables.data.views import AnyViewedImages, AnyViewTable, Normaliser, view_table, views_of_slots
from trainables.models.compute import place
from trainables.process.threads import one_thread
from trainables.spec.modality import is_text
from trainables.storage.rows import DTYPES, OutputsDtype
from trainables.teacher_outputs.frozen import FrozenTeacher

FILL_BATCH: Final = 512  # part of the format: another batch size may change the last bits
_FORMAT: Final = "pesfkd-teacher-outputs-1"


class TeacherOutputsError(ValueError):
    """Teacher outputs cannot be stored as requested."""


@dataclass(frozen=True)
class Table:
    """One file's rows.

    Args:
        name: file name without suffix.
        origin: row description by name, written to the file.
        start: first row, counted in the split.
        stop: row after the last one.
        inputs: function of a first row and the row after the last one. It yields batches of row numbers and model
            inputs.
    """

    name: str
    origin: dict[str, Any]
    start: int
    stop: int
    inputs: Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]

    @property
    def count(self) -> int:
        """Row count."""
        return self.stop - self.start

    @property
    def file_name(self) -> str:
        """File name."""
        return f"{self.name}.arrow"

    def rows(self, start: int, stop: int) -> "Table":
        """Return the table for a range of rows, for a separate file."""
        name = f"{self.name}.rows-{start:08d}-{stop:08d}"
        return Table(name, self.origin | {"rows": [start, stop]}, start, stop, self.inputs)


class TeacherTables:
    """One teacher's tables on one dataset.

    Args:
        teacher: frozen teacher, on the device.
        dataset: the tables' dataset.
        architecture: teacher architecture.
        augmentation: view choice, as in `TrialConfig`.
        dtype: row dtype.
        device: teacher device.
    """

    def __init__(
        self,
        teacher: FrozenTeacher,
        dataset: Dataset,
        *,
        architecture: str,
        augmentation: str,
        dtype: OutputsDtype,
        device: torch.device,
    ) -> None:
        self.width = teacher.head.in_features
        self._teacher = teacher
        self._dataset = dataset
        self._dtype = DTYPES[dtype]
        self._device = device
        self._views_table = view_table(dataset.info, augmentation)
        self._normalise = Normaliser(dataset.mean, dataset.std, device)
        self.origin: dict[str, Any] = {
            "format": _FORMAT,
            "batch": FILL_BATCH,
            "architecture": architecture,
            "teacher_digest": teacher.digest,
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "split_seed": dataset.seed,
            "views": len(self._views_table),
            "views_digest": _table_digest(self._views_table),
            "feature_dim": teacher.head.in_features,
            "dtype": dtype,
            "byte_order": sys.byteorder,
            # Other kernels round differently, and a trial must give the same bits with stored and with computed rows.
            "device": device.type,
            "torch": torch.__version__,
        }
        if is_text(dataset.name):
            from trainables.data.text.dataset import EVALUATION_BATCH

            self.origin["sentences"] = EVALUATION_BATCH  # batch size for sentences with similar length
        content = json.dumps(self.origin, sort_keys=True)
        self.key = hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def num_views(self) -> int:
        """Number of views; also the largest possible number of slots."""
        return len(self._views_table)

    def count_rows(self, slots: int) -> int:
        """Return the total row count for the first `slots` slots and the validation split."""
        return slots * len(self._dataset.train) + len(self._dataset.validation)

    def slot(self, slot: int) -> Table:
        """Return the train split's table, with every sample in the slot's view."""
        views = self._views[slot]
        origin = {"split": "train", "slot": slot, "slot_digest": digest_of("slot", views.numpy())}

        def images(start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
            for rows in torch.arange(start, stop, device=self._device).split(FILL_BATCH):
                pixels = self._viewed.batch(rows, views[rows.cpu()].long().to(self._device))
                yield rows, self._normalise(pixels.to(self._device))

        inputs = images if not is_text(self._dataset.name) else self._sentences(self._dataset.train)
        return Table(f"slot-{slot:04d}", self.origin | origin, 0, len(views), inputs)

    @property
    def validation(self) -> Table:
        """Validation split table, without augmentation."""
        split = self._dataset.validation

        def images(start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
            for rows in torch.arange(start, stop).split(FILL_BATCH):
                yield rows, self._normalise(split.images[rows[0] : rows[-1] + 1].to(self._device))

        inputs = images if not is_text(self._dataset.name) else self._sentences(split)
        return Table("validation", self.origin | {"split": "validation"}, 0, len(split), inputs)

    def _sentences(self, split: Split) -> Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]:
        """Return a text split's `inputs` function, which yields batches of sentences with similar length.

        Sentences are sorted by length inside blocks of `FILL_BATCH` rows. The batches are therefore the same for a
        whole file and for a shard.
        """
        from trainables.data.text.dataset import EVALUATION_BATCH, TextSplit, on_device

        assert isinstance(split, TextSplit)
        placed, lengths = on_device(split, self._device), split.lengths

        def sentences(start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
            for rows in torch.arange(start, stop).split(FILL_BATCH):
                for some in rows[lengths[rows].argsort(stable=True)].split(EVALUATION_BATCH):
                    yield some, placed.batch(some.to(self._device))

        return sentences

    def compute(self, table: Table) -> Tensor:
        """Compute a table's rows in one teacher pass over the inputs, on one thread.

        Returns:
            Rows (N, D) on the CPU.

        Raises:
            TeacherOutputsError: a feature is not finite, or does not fit the dtype.
        """
        rows = torch.empty(table.count, self.width, dtype=self._dtype)
        largest = torch.zeros((), device=self._device)
        with one_thread():
            for places, inputs in table.inputs(table.start, table.stop):
                exact = self._placed_teacher(inputs).feature
                largest = torch.maximum(largest, exact.abs().max())
                rows[places.cpu() - table.start] = exact.to(self._dtype).cpu()
        if not largest.isfinite():
            raise TeacherOutputsError("the teacher's features are not finite: use a teacher with other weights")
        if largest > torch.finfo(self._dtype).max:
            raise TeacherOutputsError(
                f"the teacher's features reach {largest:g}, which {self.origin['dtype']} cannot represent; choose "
                "--teacher-outputs-dtype bfloat16 or float32, or --teacher-outputs live"
            )
        return rows

    @cached_property
    def _placed_teacher(self) -> FrozenTeacher:
        # A separate copy with a fixed memory layout. Trials convert their teacher to the layout for their precision,
        # but the rows must not depend on the computing trial.
        return place(copy.deepcopy(self._teacher), self._device, "fp32")

    @cached_property
    def _views(self) -> Tensor:
        # (V, N), all slots. A trial uses the first ones.
        count = self.num_views
        return views_of_slots(len(self._dataset.train), count, count, seed=self._dataset.seed)

    @cached_property
    def _viewed(self) -> AnyViewedImages:
        return self._dataset.viewed(self._views_table, self._device)


def _table_digest(table: AnyViewTable) -> str:
    return hashlib.sha256(json.dumps(asdict(table)).encode()).hexdigest()[:16]
