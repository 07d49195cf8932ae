"""Names of user datasets: `arrays:PATH`, `hf:NAME`, and code as in `data.py:make@DIGEST`.

Options follow the first two after commas, as in `arrays:scans.npz,views=crop`. Imports no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from trainables.spec.naming import unknown_name
from trainables.user_code.reference import canonical, is_canonical

ARRAYS_PREFIX: Final = "arrays:"
HUB_PREFIX: Final = "hf:"
FORMS: Final = (f"{ARRAYS_PREFIX}PATH", f"{HUB_PREFIX}NAME", "FILE.py:make")
VIEWS: Final = ("crop_flip", "crop", "none")
DEFAULT_VIEWS: Final = "crop_flip"
Kind = Literal["arrays", "hf", "code"]

_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    ARRAYS_PREFIX: ("image", "label", "views"),
    HUB_PREFIX: ("config", "image", "label", "views"),
}
_OPTION: Final = re.compile(r"(\w+)=([^,]*)")
_HUB_NAME: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[0-9a-f]{7,40})?", re.ASCII)


@dataclass(frozen=True)
class OwnName:
    """Parts of a user dataset's name.

    Args:
        kind: files (`arrays`), the Hugging Face hub (`hf`) or code.
        place: path, name on the hub (with `@COMMIT`), or canonical code name.
        options: options by name.
    """

    kind: Kind
    place: str
    options: Mapping[str, str] = field(default_factory=dict)


def is_own_data(name: str) -> bool:
    """Return whether a name means a user dataset, even if the rest of the name is not valid."""
    return name.startswith((ARRAYS_PREFIX, HUB_PREFIX)) or is_canonical(name)


def parse_own_name(name: str) -> OwnName:
    """Split a user dataset's name.

    Raises:
        ValueError: the place is missing or not valid, or an option is unknown.
    """
    if is_canonical(name):
        return OwnName("code", name)
    prefix = ARRAYS_PREFIX if name.startswith(ARRAYS_PREFIX) else HUB_PREFIX
    place, *settings = _split(name.removeprefix(prefix))
    options: dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in _OPTIONS[prefix]:
            raise ValueError(f"dataset {name!r}: {unknown_name('option', key, _OPTIONS[prefix])}")
        if key in options or not value:
            raise ValueError(f"dataset {name!r}: give {key}=VALUE once, with a value")
        options[key] = value
    if (views := options.get("views")) is not None and views not in VIEWS:
        raise ValueError(f"dataset {name!r}: {unknown_name('views', views, VIEWS)}")
    if prefix == HUB_PREFIX and not _HUB_NAME.fullmatch(place):
        raise ValueError(
            f"dataset {name!r}: give hf:NAME or hf:OWNER/NAME, with @ and 7 to 40 hexadecimal digits of a commit if "
            "needed, such as hf:ylecun/mnist; "
            f"files have the form {ARRAYS_PREFIX}PATH"
        )
    if not place:
        raise ValueError(f"dataset {name!r}: give {ARRAYS_PREFIX}PATH, such as {ARRAYS_PREFIX}scans.npz")
    return OwnName("arrays" if prefix == ARRAYS_PREFIX else "hf", place, options)


def _split(text: str) -> list[str]:
    """Split a place from the options. A path may have commas."""
    settings: list[str] = []
    while True:
        rest, comma, last = text.rpartition(",")
        if not (comma and _OPTION.fullmatch(last)):
            return [text, *settings]
        text, settings = rest, [last, *settings]


def absolute_files(name: str) -> str:
    """Return a file dataset's name with an absolute path; `~` is expanded. Other names stay.

    Raises:
        ValueError: the user's home in `~NAME` is unknown.
    """
    if not name.startswith(ARRAYS_PREFIX) or name == ARRAYS_PREFIX:
        return name
    path, *settings = _split(name.removeprefix(ARRAYS_PREFIX))
    if not path:
        return name
    try:
        place = Path(path).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{name}: there is no such home; give the whole path") from None
    return ",".join([f"{ARRAYS_PREFIX}{place}", *settings])


def short_name(name: str) -> str:
    """Return a dataset's name without folders, for titles: `arrays:scans.npz`."""
    if not name.startswith(ARRAYS_PREFIX):
        return name
    path, *settings = _split(name.removeprefix(ARRAYS_PREFIX))
    return ",".join([f"{ARRAYS_PREFIX}{Path(path).name}", *settings])


def source_of(name: str) -> str:
    """Return the origin of a user dataset in words."""
    place = parse_own_name(name)
    if place.kind == "code":
        own = canonical(place.place)
        return f"{own.title}:{own.name}"
    return place.place if place.kind == "arrays" else f"Hugging Face datasets, {place.place}"
