"""Fixtures shared by the trial tests: the digits, a teacher trained once, and small trials."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.text_tasks import small_text_dataset
from trainables.conformance.case import SMALL, TEXT, TIMED, small_config, without_costs
from trainables.data import load_dataset
from trainables.data.dataset import Dataset
from trainables.methods.registry import METHODS
from trainables.spec.methods import method_spec
from trainables.spec.trial import TrialConfig
from trainables.teacher.files import ensure_teacher, load_teacher
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import TeacherOutputsStore

__all__ = ["SMALL", "TEXT", "TIMED", "small_config", "without_costs"]

IMAGE_METHODS = [name for name in METHODS if method_spec(name).modality != "text"]
MakeStore = Callable[..., TeacherOutputsStore]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", None)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="session")
def teacher_file(teacher_folder: Path, digits: Dataset) -> Path:
    return ensure_teacher(small_config(), digits, teacher_folder)


@pytest.fixture
def teacher(teacher_file: Path, digits: Dataset) -> FrozenTeacher:
    return load_teacher(teacher_file, small_config(), digits)


@pytest.fixture
def make_store(tmp_path: Path, teacher: FrozenTeacher, digits: Dataset) -> MakeStore:
    """Return a function that opens a store of teacher outputs with changed arguments."""

    def make(**changes: object) -> TeacherOutputsStore:
        values = {"architecture": "cnn_8_16", "augmentation": "views", "dtype": "float32"} | changes
        values = {"folder": tmp_path, "teacher": teacher, "dataset": digits} | values
        return TeacherOutputsStore(**values)

    return make


def slot_path(store: TeacherOutputsStore, slot: int) -> Path:
    """Return the file of a slot on this node."""
    return store.folder / store.tables.slot(slot).file_name


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.fixture(scope="session")
def text() -> Dataset:
    """Small text dataset under the name of SST-2, with as many sentences as there are digits."""
    return small_text_dataset(train=1077, validation=120, test=60)


@pytest.fixture(scope="session")
def text_teacher_file(teacher_folder: Path, text: Dataset) -> Path:
    return ensure_teacher(text_config(), text, teacher_folder)


@pytest.fixture
def text_teacher(text_teacher_file: Path, text: Dataset) -> FrozenTeacher:
    return load_teacher(text_teacher_file, text_config(), text)


@pytest.fixture
def make_text_store(tmp_path: Path, text_teacher: FrozenTeacher, text: Dataset) -> MakeStore:
    """Return a function that opens a store of a text teacher's outputs with changed arguments."""

    def make(**changes: object) -> TeacherOutputsStore:
        values = {"architecture": "bert_2_32", "augmentation": "none", "dtype": "float32"} | changes
        values = {"folder": tmp_path, "teacher": text_teacher, "dataset": text} | values
        return TeacherOutputsStore(**values)

    return make


def text_config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(TEXT | changes)
