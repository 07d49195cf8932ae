"""Study folder: the name, the plan file, and handling of moved or copied folders.

The folder name is the study name. Paths inside the output folder are resolved relative to the folder's current place.
`plan.json` stores the folder's original path under `home`. If a study with the same identifier still exists there, the
current folder is a copy. A copy may be read, and the original is never changed.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from study.plan.checkpoints import checkpoints_of
from trainables.process.errors import UsageError
from trainables.storage.files import replace_file
from trainables.storage.sqlite_uri import PLAIN, SQLitePathError, sqlite_uri
from trainables.storage.uris import is_uri

PLAN_FILE: Final = "plan.json"
# Trials from earlier studies for the start of the search.
WARM_START_FILE: Final = "warm_start.json"
STORE_FILE: Final = "mlflow.db"
# Subfolders of an output folder that are not studies.
SHARED_FOLDERS: Final = frozenset({"teachers", "teacher_outputs", "mlartifacts"})
# Windows, and shared folders on Windows, treat these names as devices.
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# Files left by a start killed before writing the plan.
_LEFTOVER: Final = re.compile(r"code|warm_start\.json|\.lock|\.writable-[0-9]+|\..*\.partial")
_PATHS: Final = ("teacher_checkpoint", "optuna_storage", "data_root", "storage_path", "teacher_outputs_path")


def own_store(output_dir: Path) -> str:
    """Return the tracking URI of the MLflow store inside an output folder.

    Raises:
        UsageError: the folder's path contains a character not allowed in the URI.
    """
    try:
        return sqlite_uri(output_dir / STORE_FILE)
    except SQLitePathError as error:
        raise UsageError(f"--output-dir: {error}") from None


def check_study_name(name: str) -> None:
    """Check that a new study's folder does not collide with other files on any file system.

    Raises:
        UsageError: the name collides.
    """
    folded = name.casefold()
    if folded in SHARED_FOLDERS or folded.startswith("mlflow."):
        raise UsageError(f"--name {name}: this name is reserved in the output folder; choose another")
    if name.endswith("."):
        raise UsageError(f"--name {name}: some file systems drop a dot at the end of a name; leave it out")
    if _DEVICE.fullmatch(name):
        raise UsageError(f"--name {name}: this name is a device on Windows, not a folder; choose another")


def check_is_free(directory: Path, resume: str) -> None:
    """Check that a folder is available for a new study.

    Files left by a start killed before writing the plan are allowed.

    Args:
        directory: folder of the new study.
        resume: command to resume a study with this name.

    Raises:
        UsageError: the folder contains a study or other files.
    """
    name, parent = directory.name, directory.parent
    # List the folder only once, because another start may create it or write a plan between two calls.
    try:
        found = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        if not directory.exists():  # a parent is a file, which is reported when the folder is created
            return
        found = {name}  # the path is a file, but not a leftover file
    if PLAN_FILE in found:
        raise UsageError(
            f"a study named {name!r} already exists in {parent}. Resume it with: {resume}; or give another --name."
        )
    if not _are_leftovers(found):
        raise UsageError(
            f"--name {name}: {directory} exists but is not a study folder ({PLAN_FILE} is missing): give another "
            "--name, or restore the file from a copy"
        )


def _are_leftovers(names: Iterable[str]) -> bool:
    return all(map(is_leftover, names))


def is_leftover(name: str) -> bool:
    """Return whether a start killed before writing the plan may leave a file with this name in a study's folder."""
    return _LEFTOVER.fullmatch(name) is not None


def missing_plan(directory: Path) -> str:
    """Return a message for the user: why a folder has no plan and how to continue, or that the folder is missing."""
    parent, name = directory.parent, directory.name
    if directory.is_dir() and _are_leftovers(path.name for path in directory.iterdir()):
        return f"the start of study {name!r} was interrupted before the plan was written: start it again as before"
    if directory.is_dir() and (directory / "journal.jsonl").exists():
        return f"{directory} has a journal but no {PLAN_FILE}: restore that file from a copy"
    known = sorted(entry.parent.name for entry in parent.glob(f"*/{PLAN_FILE}"))
    listed = f"existing studies: {', '.join(known)}" if known else "the folder contains no study"
    return f"no study {name!r} in {parent}; {listed}"


def with_home(content: dict[str, Any], directory: Path, tracking_uri: str) -> dict[str, Any]:
    """Return plan content for the plan file, with `home` added and without the URI of the output folder's own store.

    A store inside the output folder moves with the folder, so the plan file must not contain the store's path.

    Args:
        content: plan content.
        directory: study folder.
        tracking_uri: the study's tracking URI.
    """
    is_own = tracking_uri == own_store(directory.parent)
    return {**content, "home": str(directory.absolute()), **({"tracking_uri": None} if is_own else {})}


def adapted(content: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return plan values from a plan file, adapted to the folder's current place.

    Args:
        content: content of the plan file.
        directory: study folder.
    """
    home, output_dir = _home(content), directory.parent
    values = {key: value for key, value in content.items() if key != "home"}
    values.setdefault("digest_version", 1)  # plans from before digests had a version
    if _has_own_store(content):
        values["tracking_uri"] = own_store(output_dir)
    for name in _PATHS if home is not None else ():
        if isinstance(values.get(name), str):
            places = [values[name]] if name != "teacher_checkpoint" else map(str, checkpoints_of(Path(values[name])))
            values[name] = ",".join(_moved_path(each, home, directory) for each in places)  # type: ignore[arg-type]
    values["output_dir"] = str(output_dir)
    if not _is_same(output_dir / str(content.get("name")), directory):  # renamed; a symbolic link is not a rename
        values["name"] = directory.name
    return values


def _moved_path(place: str, home: Path, directory: Path) -> str:
    """Return the current location of a path inside a moved folder, or any other path unchanged."""
    if is_uri(place):
        return place
    path = Path(place)
    for old, new in ((home, directory.absolute()), (home.parent, directory.parent.absolute())):
        if path.is_relative_to(old) and old != new:
            moved = new / path.relative_to(old)
            return str(moved) if not path.exists() and (moved.exists() or not old.exists()) else place
    return place


def recorded_name(directory: Path) -> str | None:
    """Return the study name in the plan file, or None if unreadable. A renamed folder has another name."""
    name = _read(directory).get("name")
    return name if isinstance(name, str) else None


def recorded_id(directory: Path) -> str | None:
    """Return the study identifier in the plan file, or None if unreadable."""
    study_id = _read(directory).get("study_id")
    return study_id if isinstance(study_id, str) else None


def recorded_digest(directory: Path) -> str | None:
    """Return the plan digest in the study's summary, or None if the summary or the digest is missing."""
    digest = _read(directory, "summary.json").get("plan_digest")
    return digest if isinstance(digest, str) else None


def original_of(directory: Path) -> Path | None:
    """Return the existing original of a copied folder, or None for an original or a moved folder.

    If the original is gone, two copies block each other, because each counts as the original of the other.
    """
    content = _read(directory)
    home, name = _home(content), content.get("name")
    if home is not None and _is_same(home, directory):
        return None
    if home is not None and _contains_study(home, content):
        return home
    if directory.name == name:
        return None
    others = (path.parent for path in sorted(directory.parent.glob(f"*/{PLAN_FILE}")))
    return next((other for other in others if not _is_same(other, directory) and _contains_study(other, content)), None)


def refuse_copies(directory: Path) -> None:
    """Check that a study's folder is not a copy, because acting on a copy would change the original study.

    Raises:
        UsageError: the folder is a copy.
    """
    original = original_of(directory)
    if original is not None:
        command = shlex.join(
            ["python", "-m", "study.launch", "--resume", original.name, "--output-dir", str(original.parent)]
        )
        raise UsageError(
            f"{directory} is a copy of {original}, and MLflow treats both as one study: resuming, confirming or "
            "syncing the copy would change the runs and checkpoints of the original. Resume the original:\n"
            f"  {command}\nor remove or move the original to continue with the copy. Reports, exports and reruns "
            "work for both."
        )


def adopt_folder(directory: Path) -> None:
    """Update the plan file of a moved or renamed study. The caller must hold the study's lock.

    Raises:
        UsageError: the folder is a copy.
    """
    refuse_copies(directory)
    content = _read(directory)
    home = content.get("home")
    if not content or (isinstance(home, str) and _is_same(Path(home), directory)):
        return
    changed = adapted(content, directory) | {"home": str(directory.absolute())}
    if _has_own_store(content):
        changed["tracking_uri"] = None
    replace_file(directory / PLAN_FILE, (json.dumps(changed, indent=2) + "\n").encode(), durable=True)


def _read(directory: Path, name: str = PLAN_FILE) -> Mapping[str, Any]:
    """Return the JSON object in a study's file, or an empty dict if it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads((directory / name).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _home(content: Mapping[str, Any]) -> Path | None:
    """Return the folder's path when the plan was written. Earlier versions stored the path only in the store's URI."""
    home, name = content.get("home"), content.get("name")
    if isinstance(home, str) and home:
        return Path(home)
    folder = _folder_of_store(content)
    return folder / name if folder is not None and folder.is_absolute() and isinstance(name, str) else None


def _has_own_store(content: Mapping[str, Any]) -> bool:
    return content.get("tracking_uri") is None or _folder_of_store(content) is not None


def _folder_of_store(content: Mapping[str, Any]) -> Path | None:
    """Return the output folder if a plan, written by an earlier version, uses the output folder's own store."""
    uri, output_dir = content.get("tracking_uri"), content.get("output_dir")
    if not (isinstance(uri, str) and isinstance(output_dir, str) and uri.startswith(PLAIN)):
        return None
    named = tuple(part for part in Path(output_dir).parts if part != "..")
    path = uri.removeprefix(PLAIN)
    for store in (Path(path), Path(unquote(path))):
        if store.name == STORE_FILE and named and store.parent.parts[-len(named) :] == named:
            return store.parent
    return None


def _contains_study(directory: Path, content: Mapping[str, Any]) -> bool:
    """Return whether a folder contains the same study as a plan."""
    study_id = content.get("study_id")
    return study_id is not None and _read(directory).get("study_id") == study_id


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return first.absolute() == second.absolute()
