"""A study that is refused before any work leaves nothing behind, whatever refuses it."""

import errno
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import study.running.data_check
import study.running.in_process
from study.launch import main
from study.ledger.journal import Journal
from study.ledger.ledger import StudyLedger
from study.plan import places
from study.plan.lock import NoFolderError, StudyLock
from study.plan.places import begin_study
from study.plan.resolve import load_plan, resolve_plan
from study.running.start import removed_if_refused
from tests.study.factories import make_plan
from trainables.process.errors import StudyError, UsageError

pytestmark = pytest.mark.study

QUICK = ("--space", "adapter_width", "--smoke", "--executor", "in-process", "--name", "new")


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _read_only_store(folder: Path, **_: object) -> None:
    """Make a store in which MLflow's tables are complete, and no row can be written."""
    from trainables.storage.mlflow_store import open_client

    open_client(f"sqlite:///{folder}/kept.db")
    with closing(sqlite3.connect(folder / "kept.db")) as connection:
        for table in ("experiments", "runs"):
            connection.execute(
                f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'read-only'); END"
            )
        connection.commit()


def _file(folder: Path, **_: object) -> None:
    (folder / "file").write_text("no folder")


def _bad_network(folder: Path, **_: object) -> None:
    (folder / "net.py").write_text("def make(num_classes, in_channels):\n    raise RuntimeError('broken net')\n")


def _data_lost_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def lost(*_: object, **__: object) -> str:
        raise FileNotFoundError("digits have vanished")

    monkeypatch.setattr("trainables.tune.tasks.dataset_digest", lost)


def _full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "keep_code", full)


def _journal_on_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)


def _no_ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def fail(address: str, **_: object) -> None:
        raise StudyError(f"Ray could not be started or reached ({address})")

    monkeypatch.setattr("study.running.on_ray.start_ray", fail)


def _interrupt_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.running.in_process.InProcessExecutor.check_resources", interrupt)


def _interrupt_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setattr(
        "study.running.in_process.InProcessExecutor.check_resources", lambda _: os.kill(os.getpid(), signal.SIGINT)
    )


REFUSALS: dict[str, tuple[Callable[..., None] | None, tuple[str, ...], int, str]] = {
    "plan": (None, ("--trials", "0"), 2, "--trials"),
    "method": (None, ("--method", "kdd"), 2, "kdd"),
    "name": (None, ("--name", "teachers"), 2, "reserved"),
    "data root": (None, ("--dataset", "mnist", "--data-root", "{folder}/none"), 2, "is not a folder"),
    "checkpoint": (None, ("--teacher-checkpoint", "{folder}/none.pth"), 2, "--teacher-checkpoint"),
    "user code": (_bad_network, ("--student", "{folder}/net.py:make"), 2, "broken net"),
    "output folder": (_file, ("--output-dir", "{folder}/file/results"), 2, "--output-dir: cannot write"),
    "checkpoint storage": (_file, ("--storage-path", "{folder}/file/x"), 1, "--storage-path: cannot write"),
    "outputs": (_file, ("--teacher-outputs-path", "{folder}/file/x"), 1, "--teacher-outputs-path: cannot write"),
    "no server": (None, ("--tracking-uri", "http://127.0.0.1:9"), 1, "no MLflow tracking server answers"),
    "no store": (_file, ("--tracking-uri", "sqlite:///{folder}/file/x.db"), 1, "the MLflow store cannot be opened"),
    "read-only store": (_read_only_store, ("--tracking-uri", "sqlite:///{folder}/kept.db"), 1, "accepts nothing"),
    "no cluster": (None, ("--executor", "ray", "--address", "127.0.0.1:9"), 1, "no Ray cluster answers"),
    "no Ray": (_no_ray, ("--executor", "ray"), 1, "Ray could not be started"),
    "GPUs": (None, ("--gpus-per-trial", "64"), 1, "asks for 64 GPU"),
    "GPUs, mirrored": (
        None, ("--gpus-per-trial", "64", "--optuna-storage", "{folder}/new/mirror/m.journal"), 1, "asks for 64 GPU",
    ),
    "threads": (None, ("--latency", "1000"), 2, "--latency 1000: this process may use"),
    "limit": (None, ("--limit", "parameters=1"), 1, "no student has"),
    "data": (_data_lost_meanwhile, (), 1, "the dataset could not be read"),
    "full disk": (_full_disk, (), 1, "No space left"),
    "full disk for the journal": (_journal_on_a_full_disk, (), 1, "No space left"),
    "interrupt": (_interrupt_at_once, (), 130, "interrupted before any work: nothing was written"),
    "first Ctrl-C": (_interrupt_once, (), 130, "interrupted before any work: nothing was written"),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_study_leaves_nothing_behind(refusal, tmp_path, monkeypatch, command):
    prepare, options, code, reason = REFUSALS[refusal]
    if prepare is not None:
        prepare(tmp_path, monkeypatch=monkeypatch)
    before = files_in(tmp_path)
    options = [option.format(folder=tmp_path) for option in options]
    done = command(main, *QUICK, "--output-dir", tmp_path / "new" / "results", *options)
    assert (done.code, reason in done.err) == (code, True), done.err
    assert "--resume" not in done.err
    assert files_in(tmp_path) == before
