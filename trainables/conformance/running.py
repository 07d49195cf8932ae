"""Run all checks on a user's method, network or dataset, with one result line per check."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import torch

from trainables.conformance.case import SMALL, Bench, Case, cases_of, small_config
from trainables.conformance.checks import CHECKS
from trainables.conformance.requirement import CheckFailedError
from trainables.data import load_dataset
from trainables.data.dataset import Dataset, Split
from trainables.data.image_check import check_image_folder as check_images
from trainables.data.registry import dataset_info
from trainables.process.threads import one_thread
from trainables.run.shape_check import ShapeError, Wanted, check_method, check_network
from trainables.teacher.files import ensure_teacher, load_teacher
from trainables.teacher_outputs.store import TeacherOutputsStore
from trainables.tune.session import describe_error
from trainables.user_code.loading import line_of

_TRAIN: Final = 1077  # as the digits have
_VALIDATION: Final = 360
_TEACHER: Final = str(SMALL["teacher"])


class CheckResult(NamedTuple):
    """Result of one check.

    Args:
        check: the checked property in words.
        case: checked variant, as in `with adapter`; empty for the method alone.
        reason: why the check failed; empty if it passed.
    """

    check: str
    case: str
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the check passed."""
        return not self.reason


def check_user_method(name: str, dataset: str, root: Path | None) -> Iterator[CheckResult]:
    """Yield the results of all checks of a method, on small trials with an image dataset.

    The first check is a step on noise, as before a study. If it fails, it is the only one.

    Args:
        name: name of a registered method, or canonical name of a loadable user method.
        dataset: canonical name of an image dataset. At most 1,077 training samples are used.
        root: folder with the dataset's files.
    """
    cases = cases_of([name], dataset)
    for case in cases:
        first = _result(case, "a step on noise has losses that are finite", partial(_step, case))
        yield first
        if not first.passed:
            return
    with TemporaryDirectory(prefix="pesfkd-check-") as place, _quiet():
        bench = _bench(dataset, root, Path(place))
    for number, (case, check) in enumerate((case, check) for case in cases for check in CHECKS):
        with TemporaryDirectory(prefix="pesfkd-check-") as folder:
            at = bench._replace(folder=Path(folder) / str(number), make_store=_stores(bench, Path(folder) / "outputs"))
            words = check.__name__.replace("_", " ")
            yield _result(case, words, partial(check, case, at))


def check_user_network(name: str, dataset: str) -> Iterator[CheckResult]:
    """Yield the results of all checks of a network. A study runs the same checks before the first trial.

    Args:
        name: canonical name.
        dataset: canonical name of an image dataset.
    """
    info = dataset_info(dataset)
    for words, wanted in (
        (f"it takes samples of {dataset} in evaluation", Wanted(info, 2, trains=False)),
        (f"it takes samples of {dataset} in training", Wanted(info, 2)),
    ):
        yield _result(Case("ce", dataset=dataset), words, partial(check_network, name, wanted, flag="network"))


def check_user_dataset(name: str, root: Path | None) -> Iterator[CheckResult]:
    """Yield the results of all checks of an image dataset. The checks stop at the first failure.

    Args:
        name: canonical name.
        root: folder with the dataset's files, for datasets that have one.
    """
    for words, check in (
        ("it has images with labels, and classes that its parts share", partial(dataset_info, name)),
        ("all images can be decoded, and are the same in a second call", partial(check_images, name, keep=False)),
        ("it can be split, and has two or more classes in each split", partial(_split, name, root)),
    ):
        result = _result(None, words, partial(_explained, check))
        yield result
        if not result.passed:
            return


def _explained(check: Callable[[], object]) -> None:
    """Run a check. Messages of a ValueError are complete, so they are shown to the user unchanged."""
    try:
        check()
    except ValueError as error:
        raise CheckFailedError(str(error)) from None


def _split(name: str, root: Path | None) -> None:
    dataset = load_dataset(name, root)
    for part, split in (("train", dataset.train), ("validation", dataset.validation)):
        if len(split.labels.unique()) < 2:
            raise CheckFailedError(f"the {part} split has one class alone")


def _step(case: Case) -> None:
    try:
        check_method(case.config(), dataset_info(case.dataset), flag="method")
    except ShapeError as error:
        raise CheckFailedError(str(error).partition(": ")[2]) from error


def _result(case: Case | None, words: str, run: Callable[[], None]) -> CheckResult:
    variant = "with adapter" if case is not None and case.adapter else ""
    try:
        with _quiet():
            run()
    except (CheckFailedError, ShapeError) as error:
        return CheckResult(words, variant, f"{error}{_place(error)}")
    except Exception as error:  # user code raises any type
        return CheckResult(words, variant, describe_error(error))
    return CheckResult(words, variant, "")


def _place(error: Exception) -> str:
    """Return the last line of user code in an error's traceback, as a clause."""
    found = line_of(error)
    return "" if found is None else f" (in {found[0]}, {Path(found[1]).name}:{found[2]})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Use one thread, which is fastest for small networks, and redirect user code's stdout to stderr."""
    with one_thread(), redirect_stdout(sys.stderr):
        yield


def _bench(dataset: str, root: Path | None, folder: Path) -> Bench:
    data = _few(load_dataset(dataset, root))
    config = small_config(dataset=dataset)
    teacher = load_teacher(ensure_teacher(config, data, folder), config, data)
    return Bench(data, teacher, _unset, folder)


def _unset() -> TeacherOutputsStore:
    raise AssertionError("each check has stores of its own")


def _stores(bench: Bench, folder: Path) -> Callable[[], TeacherOutputsStore]:
    def make() -> TeacherOutputsStore:
        return TeacherOutputsStore(
            folder, bench.teacher, bench.data, architecture=_TEACHER, augmentation="views", dtype="float32"
        )

    return make


def _few(dataset: Dataset) -> Dataset:
    """Return a dataset with few samples. Batches of a quarter of them leave one sample over."""
    count = min(_TRAIN, len(dataset.train))
    train = _first(dataset.train, count - (count - 1) % 4)
    validation = _first(dataset.validation, min(_VALIDATION, len(dataset.validation)))
    return Dataset(
        dataset.info, train=train, validation=validation, read_test=lambda: validation, seed=dataset.seed,
        digest=dataset.digest,
    )  # fmt: skip


def _first(split: Split, count: int) -> Split:
    source = split.source[split.indices[:count]]
    return Split(source, split.labels[:count], torch.arange(count), image_size=split.image_size)
