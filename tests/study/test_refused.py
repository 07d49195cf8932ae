"""A study that is refused before any work leaves nothing behind, whatever refuses it."""

import errno
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from study.cli.request import keep_confirmation, withdraw_confirmation
from study.launch import main
from study.ledger.journal import Journal
from study.ledger.ledger import StudyLedger
from study.plan import places
from study.plan.confirmation import Factors, SeedsAsked, request_of
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


def _data_lost_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> str:
        raise FileNotFoundError("digits have vanished")

    monkeypatch.setattr("trainables.tune.tasks.dataset_digest", lost)


def _full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "keep_code", full)


def _journal_on_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)


def _no_ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, **_: object) -> None:
        raise StudyError(f"Ray could not be started or reached ({address})")

    monkeypatch.setattr("study.running.on_ray.start_ray", fail)


def _interrupt_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.running.in_process.InProcessExecutor.check_resources", interrupt)


def _interrupt_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# One makes a whole store, the other imports Ray.
SLOW = ("read-only store", "checkpoint storage")


@pytest.mark.parametrize(
    "refusal", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in REFUSALS]
)
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


@pytest.fixture
def refusing(monkeypatch):
    _data_lost_meanwhile(Path(), monkeypatch)


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("request_at_resume", [(), ("--confirm", "1", "--seeds", "2")])
def test_a_study_that_existed_before_is_kept_as_it_was_when_a_resume_is_refused(request_at_resume, tmp_path, command):
    plan = make_plan(tmp_path, name="new", executor="in-process")
    begin_study(plan, "go on")
    before, recorded = files_in(tmp_path / "new"), (plan.directory / "plan.json").read_bytes()
    done = command(main, "--resume", "new", "--output-dir", tmp_path, *request_at_resume)
    assert (done.code, "the dataset could not be read" in done.err) == (1, True), done.err
    assert files_in(tmp_path / "new") >= before
    assert (plan.directory / "plan.json").read_bytes() == recorded
    assert not (tmp_path / "mlflow.db").exists()


def test_a_confirmation_is_withdrawn_only_if_it_is_still_the_request(tmp_path):
    plan = make_plan(tmp_path, name="new")
    begin_study(plan, "go on")
    first, second = (
        plan.model_copy(update={"confirmation": request_of(configs, SeedsAsked(2), None, Factors())})
        for configs in (1, 2)
    )
    assert keep_confirmation(first).confirmation is None
    assert keep_confirmation(first) is None
    assert keep_confirmation(second).confirmation == first.confirmation  # by another process meanwhile
    withdraw_confirmation(first, plan)
    assert load_plan(plan.directory).confirmation == second.confirmation
    withdraw_confirmation(second, plan)
    assert load_plan(plan.directory).confirmation is None


def test_a_name_in_use_is_kept(tmp_path):
    plan = make_plan(tmp_path, name="new")
    begin_study(plan, "go on")
    other = plan.model_copy(update={"study_id": "another"})
    with pytest.raises(UsageError, match="already exists"), removed_if_refused(other, is_new=True):
        begin_study(other, "go on")
    assert load_plan(plan.directory).study_id == plan.study_id


def refuse(plan, meanwhile=lambda: None):
    """Start a study that is refused after the folder is reserved."""
    with pytest.raises(StudyError, match="refused"), removed_if_refused(plan, is_new=True):  # noqa: PT012
        begin_study(plan, "go on")
        meanwhile()
        raise StudyError("refused")


def fresh_plan(folder: Path):
    plan = make_plan(folder)
    plan.directory.rmdir()
    return plan


def test_nothing_recorded_is_lost(tmp_path):
    plan = fresh_plan(tmp_path / "trial")

    def record_trial():
        ledger = StudyLedger(plan)
        ledger.begin_writing()
        ledger.open_trial("control", plan.control_config("ce"), 1)
        ledger.close()

    refuse(plan, record_trial)
    assert len(StudyLedger(plan, read_only=True).entries) == 1
    noted = fresh_plan(tmp_path / "note")
    refuse(noted, lambda: (noted.directory / "notes.txt").write_text("mine"))
    assert {"notes.txt", "plan.json"} <= files_in(noted.directory)
    begun = fresh_plan(tmp_path / "begun")
    with pytest.raises(StudyError, match="lost"), removed_if_refused(begun, is_new=True) as start:  # noqa: PT012
        begin_study(begun, "go on")
        start.has_begun = True
        raise StudyError("lost")
    assert load_plan(begun.directory).study_id == begun.study_id


def test_a_study_that_another_process_resumes_meanwhile_is_kept(tmp_path):
    plan = fresh_plan(tmp_path)
    with closing_lock() as locks:
        refuse(plan, lambda: locks.append(StudyLock(plan.directory).__enter__()))
    assert load_plan(plan.directory).study_id == plan.study_id


@contextmanager
def closing_lock():
    locks: list[StudyLock] = []
    yield locks
    for lock in locks:
        lock.__exit__(None, None, None)


def test_starts_of_one_name_stay_safe_while_some_are_refused(tmp_path):
    """Half of the starts are refused. Any other start keeps its own plan, or learns that the name is in use."""
    model = make_plan(tmp_path / "model").model_dump()
    for turn in range(30):
        folder, kept, others = tmp_path / str(turn), [], []
        barrier = threading.Barrier(4)

        def start(number, folder=folder, kept=kept, others=others, barrier=barrier):
            plan = resolve_plan({**model, "output_dir": folder, "study_id": f"study-{number}"})
            barrier.wait()
            try:
                with removed_if_refused(plan, is_new=True):
                    begin_study(plan, "go on")
                    if number % 2:
                        raise StudyError("refused")
                    kept.append(number)
            except StudyError:
                pass
            except UsageError as error:
                if "already exists" not in str(error) and "being run by another process" not in str(error):
                    others.append(error)

        threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not others
        assert len(kept) <= 1
        if kept:
            assert load_plan(folder / "planned").study_id == f"study-{kept[0]}"
        else:  # an empty folder is free for the next start
            assert files_in(folder) <= {"planned", "planned/.lock"}


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_removed_while_it_is_created_is_created_again(tmp_path, monkeypatch, error):
    plan, make, failures = make_plan(tmp_path / "study"), Path.mkdir, iter([error(1, "lost the race")] * 3)

    def mkdir(path, *arguments, **options):
        if path == plan.directory and (failure := next(failures, None)) is not None:
            raise failure
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    begin_study(plan, "go on")
    assert load_plan(plan.directory).study_id == plan.study_id


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    plan = make_plan(tmp_path / "study", name="other")
    plan.directory.rmdir()
    plan.directory.symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(UsageError, match="cannot write to"):
        begin_study(plan, "go on")


def test_a_lock_whose_file_was_removed_is_not_taken_for_the_lock_of_the_study(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    with StudyLock(folder):
        (folder / ".lock").unlink()
        with StudyLock(folder):  # a new file, which the first process does not hold
            pass
    with pytest.raises(NoFolderError, match="is gone"), StudyLock(tmp_path / "none"):
        pass
