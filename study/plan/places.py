"""What a new study is begun in: its folder, MLflow's store and Optuna's mirror, kept apart from other files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from study.plan.folder import _PLAN, _SHARED, _STORE, check_is_free
from study.plan.lock import StudyLock
from study.plan.plan import StudyPlan
from trainables.process.errors import UsageError
from trainables.storage.sqlite_uri import lock_of, sqlite_file

# What a study writes into its folder; everything hidden as well.
_OWN_FILES: Final = frozenset({
    _PLAN, "journal.jsonl", "summary.json", "report.html", "records", "figures", "students", "tune", "set-aside",
    "teacher_progress.json",
})  # fmt: skip


def begin_study(plan: StudyPlan, go_on: str) -> None:
    """Make the folder of a new study and write its plan, unless another process has begun a study of that name.

    Args:
        plan: the study.
        go_on: the command that resumes a study of that name.

    Raises:
        UsageError: a study of that name exists or is being begun; nothing of it is changed.
    """
    check_is_free(plan.directory, go_on)
    try:
        plan.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output-dir: cannot write in {plan.output_dir} ({error.strerror}); name a folder that you may write"
        ) from None
    with StudyLock(plan.directory):
        check_is_free(plan.directory, go_on)
        plan.save()


def check_store_place(plan: StudyPlan, *, is_new: bool) -> None:
    """Check that MLflow's store lies in a folder that is there, and in no file that a study writes.

    Args:
        plan: the study.
        is_new: whether it is yet to begin; the store's folder is made then.

    Raises:
        UsageError: it does not.
    """
    store = sqlite_file(plan.tracking_uri)
    if store is None:
        return
    if not is_new and not store.parent.is_dir():
        raise UsageError(
            f"the study delivers to MLflow's store in {store.parent}, and that folder is not there any more: name the "
            "store with --tracking-uri"
        )
    own = plan.directory.resolve()
    for file in sorted(_files_of(store.resolve())):
        if _folded(file) == _folded(own):
            raise UsageError(
                f"--name {plan.name}: MLflow's store {store} keeps a file of that name, or may; choose another"
            )
        if is_new and file.is_relative_to(own):
            raise UsageError(f"--tracking-uri: {file} lies in the study's own folder; name a file outside of it")
        if (use := _use_in_a_study(file, own)) is not None:
            raise UsageError(f"--tracking-uri: {file} is {use}; name another file, such as {plan.output_dir / _STORE}")


def _files_of(store: Path) -> set[Path]:
    """The store itself, the files that SQLite keeps beside it, and its lock."""
    return {*(store.with_name(store.name + end) for end in ("", "-wal", "-shm", "-journal")), lock_of(store)}


def _folded(path: Path) -> str:
    """Equal for paths that are one on a file system which ignores case."""
    return str(path).casefold()


def check_mirror_place(plan: StudyPlan) -> None:
    """Check that the file of `--optuna-storage`, and its lock, are none that a study or MLflow writes.

    Raises:
        UsageError: one of them is.
    """
    path = plan.optuna_storage
    if path is None:
        return
    try:
        real = path.resolve()
        files = (real, real.with_name(f"{real.name}.lock"))
        use = next((use for file in files if (use := _use_of(file, plan)) is not None), None)
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a name that is too long
        raise UsageError(f"--optuna-storage {path}: {error}; name a file, such as studies.journal") from None
    if use is not None:
        raise UsageError(
            f"--optuna-storage {path}: that file, or its lock, is {use}; name another file, such as "
            f"{plan.output_dir / 'studies.journal'}"
        )


def _use_of(file: Path, plan: StudyPlan) -> str | None:
    """What else a file is for, in words."""
    own, output_dir = plan.directory.resolve(), plan.output_dir.resolve()
    if file == own:
        return "the study's folder"
    if file.is_relative_to(output_dir) and file != output_dir:
        first = file.relative_to(output_dir).parts[0].casefold()
        if first in _SHARED or first.startswith("mlflow."):
            return f"under {first}, which the output folder keeps for itself"
    store = sqlite_file(plan.tracking_uri)
    if store is not None and _folded(file) in map(_folded, _files_of(store.resolve())):
        return "MLflow's store"
    return _use_in_a_study(file, own)


def _use_in_a_study(file: Path, own: Path) -> str | None:
    """What a study uses a file for, in words; `own` is the folder of one that may be yet to begin."""
    for study in _studies_around(file, own):
        if file == study:
            return f"the folder of study {study.name!r}"
        inside = file.relative_to(study).parts[0]
        if inside.casefold() in _OWN_FILES or inside.startswith("."):
            return f"a file that study {study.name!r} writes"
    return None


def _studies_around(file: Path, own: Path) -> Iterator[Path]:
    for folder in (file, *file.parents):
        if folder == own or (folder / _PLAN).is_file():
            yield folder
