"""The folder of a study: its name, its plan's file, and the folder after a move or a copy.

The folder is the study: its name is the study's name, and what lies in the output folder is found there, wherever that
is now. `plan.json` keeps under `home` where the folder was. If a study of the same identifier is still there, this
folder is a copy of it: it may be read, and nothing of the original is touched.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from trainables.process.errors import UsageError
from trainables.storage.files import replace_file
from trainables.storage.sqlite_uri import PLAIN, SQLitePathError, sqlite_uri
from trainables.storage.uris import is_uri

_PLAN: Final = "plan.json"


_STORE: Final = "mlflow.db"


# Folders of an output folder that are no studies.
_SHARED: Final = frozenset({"teachers", "teacher_outputs", "mlartifacts"})


# Windows, and so a share of it, opens a device by these names.
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


# What a start leaves behind that was killed before it had written the plan.
_LEFTOVER: Final = re.compile(r"\.lock|\.writable-[0-9]+|\..*\.partial")


_PATHS: Final = ("teacher_checkpoint", "optuna_storage", "data_root", "storage_path", "teacher_outputs_path")


def own_store(output_dir: Path) -> str:
    """The tracking URI of the store that an output folder has of its own.

    Raises:
        UsageError: the folder's path has a character that no such URI can have.
    """
    try:
        return sqlite_uri(output_dir / _STORE)
    except SQLitePathError as error:
        raise UsageError(f"--output-dir: {error}") from None


def check_study_name(name: str) -> None:
    """Check that a new study's folder does not collide with other files, on file systems of any kind.

    Raises:
        UsageError: it does.
    """
    folded = name.casefold()
    if folded in _SHARED or folded.startswith("mlflow."):
        raise UsageError(f"--name {name}: the output folder keeps something else under that name; choose another")
    if name.endswith("."):
        raise UsageError(f"--name {name}: some file systems drop a dot at the end; leave it out")
    if _DEVICE.fullmatch(name):
        raise UsageError(f"--name {name}: on Windows that is a device, not a folder; choose another")


def check_is_free(directory: Path, go_on: str) -> None:
    """Check that a new study can have a folder; what a start left that was killed before its plan is no obstacle.

    Args:
        directory: the folder.
        go_on: the command that resumes a study of that name.

    Raises:
        UsageError: a study or something else is there.
    """
    name, parent = directory.name, directory.parent
    # Listed once: between two looks, another start may write its plan.
    found = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if _PLAN in found:
        raise UsageError(
            f"a study named {name!r} exists under {parent}. Go on with it: {go_on}; or give another --name."
        )
    if not _are_leftovers(found) or (directory.exists() and not directory.is_dir()):
        raise UsageError(
            f"--name {name}: {directory} is there, and is no study's folder ({_PLAN} is missing): give another --name, "
            "or restore the file from a copy"
        )


def _are_leftovers(names: Iterable[str]) -> bool:
    return all(_LEFTOVER.fullmatch(name) for name in names)


def missing_plan(directory: Path) -> str:
    """Why a folder has no plan, and what to do, for a person; or that there is no such folder."""
    parent, name = directory.parent, directory.name
    if directory.is_dir() and _are_leftovers(path.name for path in directory.iterdir()):
        return f"the start of study {name!r} was interrupted before its plan was written: start it again as before"
    if directory.is_dir() and (directory / "journal.jsonl").exists():
        return f"{directory} has a journal and no {_PLAN}: restore that file from a copy"
    known = sorted(entry.parent.name for entry in parent.glob(f"*/{_PLAN}"))
    listed = f"studies there: {', '.join(known)}" if known else "there is no study there"
    return f"no study {name!r} under {parent}; {listed}"


def with_home(content: dict[str, Any], directory: Path, tracking_uri: str) -> dict[str, Any]:
    """The content of a plan as its file has it: with its place, and without that of a store that moves with it.

    Args:
        content: of the plan.
        directory: the study's folder.
        tracking_uri: of MLflow's store.
    """
    is_own = tracking_uri == own_store(directory.parent)
    return {**content, "home": str(directory.absolute()), **({"tracking_uri": None} if is_own else {})}


def settled(content: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The values of a plan, of which a file was read, where its folder is now.

    Args:
        content: of the file.
        directory: the study's folder.
    """
    home, output_dir = _home(content), directory.parent
    values = {key: value for key, value in content.items() if key != "home"}
    if _has_own_store(content):
        values["tracking_uri"] = own_store(output_dir)
    for name in _PATHS if home is not None else ():
        if isinstance(values.get(name), str):
            values[name] = _followed(values[name], home, directory)  # type: ignore[arg-type]  # not None
    values["output_dir"] = str(output_dir)
    if not _is_same(output_dir / str(content.get("name")), directory):  # renamed; a link to it is not
        values["name"] = directory.name
    return values


def _followed(place: str, home: Path, directory: Path) -> str:
    """A path inside a folder that was moved, where it is now; any other as it is."""
    if is_uri(place):
        return place
    path = Path(place)
    for old, new in ((home, directory.absolute()), (home.parent, directory.parent.absolute())):
        if path.is_relative_to(old) and old != new:
            moved = new / path.relative_to(old)
            return str(moved) if not path.exists() and (moved.exists() or not old.exists()) else place
    return place


def recorded_name(directory: Path) -> str | None:
    """The name that a study's plan has, which a folder that was renamed does not have; None if it cannot be read."""
    name = _read(directory).get("name")
    return name if isinstance(name, str) else None


def original_of(directory: Path) -> Path | None:
    """The folder that this one is a copy of, if that is still there; None for an original, or one that was moved.

    Two copies of a study without its original stand in each other's way: one is the other's original then.
    """
    content = _read(directory)
    home, name = _home(content), content.get("name")
    if home is not None and _is_same(home, directory):
        return None
    if home is not None and _holds(home, content):
        return home
    if directory.name == name:
        return None
    others = (path.parent for path in sorted(directory.parent.glob(f"*/{_PLAN}")))
    return next((other for other in others if not _is_same(other, directory) and _holds(other, content)), None)


def refuse_copies(directory: Path) -> None:
    """Check that acting on a study does not act on the one that its folder was copied from.

    Raises:
        UsageError: it would.
    """
    original = original_of(directory)
    if original is not None:
        command = shlex.join(
            ["python", "-m", "study.launch", "--resume", original.name, "--output-dir", str(original.parent)]
        )
        raise UsageError(
            f"{directory} is a copy of {original}, and both are one study to MLflow: to resume, confirm or deliver the "
            f"copy would change the original's runs and checkpoints. Go on with the original:\n  {command}\n"
            "or remove the original, or move it away, to go on with the copy. Reports, exports and reruns work for "
            "both."
        )


def settle_in(directory: Path) -> None:
    """Write down where a study's folder is, if it was moved or renamed; for who holds its lock.

    Raises:
        UsageError: it is a copy.
    """
    refuse_copies(directory)
    content = _read(directory)
    home = content.get("home")
    if not content or (isinstance(home, str) and _is_same(Path(home), directory)):
        return
    changed = settled(content, directory) | {"home": str(directory.absolute())}
    if _has_own_store(content):
        changed["tracking_uri"] = None
    replace_file(directory / _PLAN, (json.dumps(changed, indent=2) + "\n").encode(), durable=True)


def _read(directory: Path) -> Mapping[str, Any]:
    """The content of a plan's file; nothing where it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads((directory / _PLAN).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _home(content: Mapping[str, Any]) -> Path | None:
    """Where the study's folder was when its plan was written; earlier versions wrote it into the store's URI alone."""
    home, name = content.get("home"), content.get("name")
    if isinstance(home, str) and home:
        return Path(home)
    folder = _folder_of_store(content)
    return folder / name if folder is not None and folder.is_absolute() and isinstance(name, str) else None


def _has_own_store(content: Mapping[str, Any]) -> bool:
    return content.get("tracking_uri") is None or _folder_of_store(content) is not None


def _folder_of_store(content: Mapping[str, Any]) -> Path | None:
    """The output folder, if a plan of an earlier version has the store that this folder has of its own."""
    uri, output_dir = content.get("tracking_uri"), content.get("output_dir")
    if not (isinstance(uri, str) and isinstance(output_dir, str) and uri.startswith(PLAIN)):
        return None
    named = tuple(part for part in Path(output_dir).parts if part != "..")
    path = uri.removeprefix(PLAIN)
    for store in (Path(path), Path(unquote(path))):
        if store.name == _STORE and named and store.parent.parts[-len(named) :] == named:
            return store.parent
    return None


def _holds(directory: Path, content: Mapping[str, Any]) -> bool:
    """Whether a folder holds the study of a plan."""
    study_id = content.get("study_id")
    return study_id is not None and _read(directory).get("study_id") == study_id


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return first.absolute() == second.absolute()
