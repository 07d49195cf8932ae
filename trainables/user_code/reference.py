"""References to user code: as typed, `FILE.py:NAME` or `package.module:NAME`, and as stored, with a digest.

The stored form is the canonical name, such as `net.py:make@0123456789abcdef`. The name contains the digest of the
sources and no folder, so the name is the same on every machine.
"""

import re
from typing import Final, NamedTuple

from trainables.user_code.errors import UserCodeError

_SUFFIX: Final = ".py"
_FILE: Final = r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py"
_MODULE: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_DIGEST: Final = re.compile(r"[0-9a-f]{16}")
_FILE_NAME: Final = re.compile(_FILE, re.ASCII)
_MODULE_NAME: Final = re.compile(_MODULE, re.ASCII)
_MODULE_FORM: Final = re.compile(rf"{_MODULE}:[A-Za-z_]\w*(@[0-9a-f]*)?", re.ASCII)
CANONICAL: Final = re.compile(rf"({_FILE}|{_MODULE}):([A-Za-z_]\w*)@([0-9a-f]{{16}})", re.ASCII)
FORMS: Final = "FILE.py:NAME or package.module:NAME"


class Reference(NamedTuple):
    """Reference to user code, as typed.

    Args:
        place: path of a .py file, or dotted module name.
        name: name that the module defines.
        digest: required digest of the sources; empty for any.
    """

    place: str
    name: str
    digest: str = ""

    @property
    def is_file(self) -> bool:
        """Whether the place is a file, rather than a module."""
        return self.place.endswith(_SUFFIX)


class CanonicalName(NamedTuple):
    """Parts of a canonical name.

    Args:
        title: file name without folders, or dotted module name.
        name: name that the module defines.
        digest: digest of the sources.
    """

    title: str
    name: str
    digest: str

    def __str__(self) -> str:
        """Return the canonical name."""
        return f"{self.title}:{self.name}@{self.digest}"


def is_canonical(text: str) -> bool:
    """Return whether a text is a canonical name, such as `net.py:make@0123456789abcdef`."""
    return CANONICAL.fullmatch(text) is not None


def canonical(text: str) -> CanonicalName:
    """Split a canonical name."""
    match = CANONICAL.fullmatch(text)
    assert match is not None, text
    return CanonicalName(*match.groups())


def looks_like_reference(text: str) -> bool:
    """Return whether a text is meant as a reference to code, even if it is not a valid one.

    The caller must exclude other names with a colon, such as `timm:resnet18`.
    """
    return text.endswith(_SUFFIX) or f"{_SUFFIX}:" in text or _MODULE_FORM.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    r"""Split `FILE.py:NAME` or `package.module:NAME`, with or without `@DIGEST`, at the last colon.

    The path may have colons: drives of Windows (`C:\nets\net.py:make`) and folders.

    Raises:
        UserCodeError: the name is missing or no Python name, or the file name has characters not allowed in names.
    """
    # An @ may also be part of a folder's name, so only one after the last colon begins a digest.
    place, colon, rest = text.rpartition(":")
    name, at, digest = rest.partition("@")
    if not colon or "/" in rest or "\\" in rest or not place:
        where = text if text.endswith(_SUFFIX) else f"{text}.py"
        raise UserCodeError(f"{text!r} names no object: add the name of what the file defines, such as {where}:make")
    if not name.isidentifier():
        raise UserCodeError(f"{text!r}: {name!r} is no Python name; give {FORMS}, such as net.py:make")
    if at and not _DIGEST.fullmatch(digest):
        raise UserCodeError(
            f"{text!r}: after the @ come the 16 hexadecimal digits of the sources' digest, or leave it out"
        )
    reference = Reference(place, name, digest)
    if reference.is_file:
        file = re.split(r"[/\\]", place)[-1]
        if not _FILE_NAME.fullmatch(file) or not name.isascii():
            raise UserCodeError(
                f"{text!r}: the file and the object become part of names, so give them names of the letters a to z, "
                "digits, '_' and '-'"
            )
    elif not _MODULE_NAME.fullmatch(place):
        raise UserCodeError(f"{text!r}: give {FORMS}; {place!r} neither ends in .py nor is the dotted name of a module")
    return reference
