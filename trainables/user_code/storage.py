"""Folder in a study with user code sources: `DIGEST/net.py`, one subfolder per digest.

`origins.json` has the folder from which each digest was read, for tracebacks. It may be absent.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from trainables.storage.files import replace_file
from trainables.user_code.loading import remember, remember_unusable
from trainables.user_code.sources import Sources

_DIGEST: Final = re.compile(r"[0-9a-f]{16}")
_ORIGINS: Final = "origins.json"


def save_sources(sources: Iterable[Sources], folder: Path) -> None:
    """Write sources below a folder, in subfolders named by digest. Changed files are replaced.

    Raises:
        OSError: a file cannot be written.
    """
    origins = _origins(folder)
    found = dict(origins)
    for each in sources:
        if each.shown and not Path(each.shown).is_relative_to(folder.absolute()):
            found[each.digest] = each.shown
        for name, text in each.files.items():
            path, content = folder / each.digest / name, text.encode()
            if not (path.is_file() and path.read_bytes() == content):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, content, durable=True)
    if found != origins:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / _ORIGINS, (json.dumps(found, indent=2) + "\n").encode(), durable=True)


def remember_saved(folder: Path) -> None:
    """Register all sources in a folder with this process.

    Changed sources are reported on first use, because a report needs no sources.
    """
    origins = _origins(folder)
    for place in sorted(folder.glob("*")) if folder.is_dir() else ():
        if not (_DIGEST.fullmatch(place.name) and place.is_dir()):
            continue
        try:
            found = _read(place, origins.get(place.name, str(place.absolute())))
        except (OSError, ValueError) as error:
            remember_unusable(place.name, f"{place} cannot be read ({error}): restore it from a copy")
            continue
        if found is None:
            remember_unusable(place.name, f"the files in {place} were changed: restore them from a copy")
        else:
            remember([found])


def _origins(folder: Path) -> dict[str, str]:
    """Return the user's original folder for each digest, as far as known."""
    try:
        found = json.loads((folder / _ORIGINS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(digest): str(place) for digest, place in found.items()} if isinstance(found, Mapping) else {}


def _read(place: Path, shown: str) -> Sources | None:
    """Return the sources in a folder named by digest, or None if no module has this digest.

    Args:
        place: the folder.
        shown: folder shown in tracebacks.
    """
    paths = (path for path in sorted(place.rglob("*.py")) if path.is_file())
    texts = {path.relative_to(place).as_posix(): path.read_bytes().decode() for path in paths}
    # The digest also depends on which file was named.
    candidates = (Sources(name, texts, shown) for name in texts)
    return next((each for each in candidates if each.digest == place.name), None)
