"""Checks for collisions of a study's folder, MLflow's store and Optuna's mirror with other files."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from study.plan.folder import PLAN_FILE, SHARED_FOLDERS, STORE_FILE, WARM_START_FILE, check_is_free
from study.plan.lock import NoFolderError, StudyLock
from study.plan.plan import StudyPlan
from study.plan.user_code import CODE_FOLDER, keep_code
from study.plan.warm_start import keep_earlier_trials
from trainables.process.errors import UsageError
from trainables.storage.sqlite_uri import lock_of, sqlite_file

_TRIES: Final = 100
# Files written by a study into the study folder. Hidden files are reserved as well.
_OWN_FILES: Final = frozenset({
    PLAN_FILE, "journal.jsonl", "summary.json", "report.html", "records", "figures", "students", "tune", "set-aside",
    "teacher_progress.json", CODE_FOLDER, WARM_START_FILE,
})  # fmt: skip


def begin_study(plan: StudyPlan, resume: str) -> None:
    """Create a new study's folder and write the plan, unless another process has started a study with the same name.

    Args:
        plan: study plan.
        resume: command to resume a study with this name.

    Raises:
        UsageError: a study with this name exists or is being created. Nothing is changed.
    """
    check_is_free(plan.directory, resume)
    with _locked_folder(plan):
        check_is_free(plan.directory, resume)
        keep_code(plan)  # before the plan: a study with a plan then has all user code and earlier trials
        keep_earlier_trials(plan.warm_start, plan.directory)
        plan.save()


@contextmanager
def _locked_folder(plan: StudyPlan) -> Iterator[None]:
    """Create a new study's folder, and hold the study's lock.

    A rejected start with the same name may remove the folder in the meantime. The folder is then created again.
    """
    with ExitStack() as stack:
        for tries_left in reversed(range(_TRIES)):
            try:
                plan.directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(StudyLock(plan.directory))
                break
            except NoFolderError:
                if not tries_left:
                    raise
            except OSError as error:
                if tries_left and isinstance(error, FileExistsError | FileNotFoundError):  # removed during mkdir
                    continue
                raise UsageError(
                    f"--output-dir: cannot write to {plan.output_dir} ({error.strerror}); give a writable folder"
                ) from None
        yield


def check_store_place(plan: StudyPlan, *, is_new: bool) -> None:
    """Check that MLflow's store is in an existing folder and is not a file written by a study.

    Args:
        plan: study plan.
        is_new: whether the study is new. A missing store folder is only an error for existing studies.

    Raises:
        UsageError: the store's folder is missing or the store collides with other files.
    """
    store = sqlite_file(plan.tracking_uri)
    if store is None:
        return
    if not is_new and not store.parent.is_dir():
        raise UsageError(
            f"the study uses the MLflow store in {store.parent}, but this folder no longer exists: give the store with "
            "--tracking-uri"
        )
    own = plan.directory.resolve()
    for file in sorted(_files_of(store.resolve())):
        if _folded(file) == _folded(own):
            raise UsageError(
                f"--name {plan.name}: the MLflow store {store} uses, or may use, a file of that name; choose another"
            )
        if is_new and file.is_relative_to(own):
            raise UsageError(f"--tracking-uri: {file} is inside the study's own folder; give a file outside of it")
        if (use := _use_in_a_study(file, own)) is not None:
            raise UsageError(
                f"--tracking-uri: {file} is {use}; give another file, such as {plan.output_dir / STORE_FILE}"
            )


def _files_of(store: Path) -> set[Path]:
    """Return the store file, SQLite's files next to it, and the lock file."""
    return {*(store.with_name(store.name + end) for end in ("", "-wal", "-shm", "-journal")), lock_of(store)}


def _folded(path: Path) -> str:
    """Return a key that is equal for paths differing only in case, for case-insensitive file systems."""
    return str(path).casefold()


def check_mirror_place(plan: StudyPlan) -> None:
    """Check that no study and no MLflow store writes the `--optuna-storage` file or the lock next to it.

    Raises:
        UsageError: one of the files collides.
    """
    path = plan.optuna_storage
    if path is None:
        return
    try:
        real = path.resolve()
        files = (real, real.with_name(f"{real.name}.lock"))
        use = next((use for file in files if (use := _use_of(file, plan)) is not None), None)
    except (OSError, RuntimeError, ValueError) as error:  # circular links or a too long name
        raise UsageError(f"--optuna-storage {path}: {error}; give a file path, such as studies.journal") from None
    if use is not None:
        raise UsageError(
            f"--optuna-storage {path}: this file, or its lock file, is {use}; give another file, such as "
            f"{plan.output_dir / 'studies.journal'}"
        )


def _use_of(file: Path, plan: StudyPlan) -> str | None:
    """Return another use of a file in words, or None."""
    own, output_dir = plan.directory.resolve(), plan.output_dir.resolve()
    if file == own:
        return "the study's folder"
    if file.is_relative_to(output_dir) and file != output_dir:
        first = file.relative_to(output_dir).parts[0].casefold()
        if first in SHARED_FOLDERS or first.startswith("mlflow."):
            return f"inside {first}, which is reserved in the output folder"
    store = sqlite_file(plan.tracking_uri)
    if store is not None and _folded(file) in map(_folded, _files_of(store.resolve())):
        return "the MLflow store"
    return _use_in_a_study(file, own)


def _use_in_a_study(file: Path, own: Path) -> str | None:
    """Return how a study uses a file, in words, or None. The study in folder `own` may not exist yet."""
    for study in _studies_around(file, own):
        if file == study:
            return f"the folder of study {study.name!r}"
        inside = file.relative_to(study).parts[0]
        if inside.casefold() in _OWN_FILES or inside.startswith("."):
            return f"a file written by study {study.name!r}"
    return None


def _studies_around(file: Path, own: Path) -> Iterator[Path]:
    for folder in (file, *file.parents):
        if folder == own or (folder / PLAN_FILE).is_file():
            yield folder
