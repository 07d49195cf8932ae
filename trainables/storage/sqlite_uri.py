"""Conversion between paths and SQLite URIs. SQLAlchemy and MLflow open the right file for any characters."""

from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

PLAIN: Final = "sqlite:///"
# For `sqlite:///`, MLflow creates the parent folder before decoding the path, and would create a second folder.
_ENCODED: Final = "sqlite+pysqlite:///"
_READ_OTHERWISE: Final = frozenset("?%")
_URI_OF_SQLITE: Final = "file:"  # SQLite's own notation, which needs `uri=true`


class SQLitePathError(ValueError):
    """No URI can name the path."""


def sqlite_uri(path: Path) -> str:
    """Return an SQLite file's URI. Only characters with a special meaning are percent-encoded.

    Args:
        path: SQLite file, made absolute.

    Raises:
        SQLitePathError: the path contains a character that is impossible in an SQLite URI.
    """
    text = str(path.absolute())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SQLitePathError(
            f"{text!r} contains the character {text[error.start]!r}, which is not valid UTF-8, but SQLite accepts "
            "only UTF-8 names: choose another folder"
        ) from None
    found = _READ_OTHERWISE.intersection(text)
    if not found:
        return f"{PLAIN}{text}"
    encoded = f"{_ENCODED}{quote(text, safe=_kept(text))}"
    if sqlite_file(encoded) != Path(text):  # SQLAlchemy before 2.1 does not decode the path
        plain = f"{PLAIN}{text}"
        if sqlite_file(plain) == Path(text):
            return plain
        raise SQLitePathError(
            f"{text} contains {min(found)!r}, which this version of SQLAlchemy does not support in a database "
            "path: choose another folder, or install sqlalchemy>=2.1"
        )
    return encoded


def absolute_uri(uri: str) -> str:
    """Make the path in an SQLite URI absolute, and thus valid in every working folder. Keep any other URI."""
    path = sqlite_file(uri)
    if path is None or path.is_absolute():
        return uri
    before, question, query = uri.partition("?")
    absolute = sqlite_uri(path)
    if question and f"///{_URI_OF_SQLITE}" in before:
        absolute = absolute.replace("///", f"///{_URI_OF_SQLITE}", 1)
    return f"{absolute}{question}{query}"


def lock_of(store: Path) -> Path:
    """Return a store's lock file, which is never the store itself."""
    return store.with_suffix(".lock") if store.suffix != ".lock" else store.with_name(f"{store.name}.lock")


def _kept(text: str) -> str:
    """Return the path characters that need no encoding."""
    return "".join(set(text) - _READ_OTHERWISE)


def sqlite_file(uri: str) -> Path | None:
    """Return an SQLite URI's file, as read by SQLAlchemy.

    Returns:
        File path. None for any other URI, and for a database in memory.
    """
    if not uri.lower().startswith("sqlite"):
        return None
    if uri.startswith(PLAIN) and not _READ_OTHERWISE.intersection(uri):
        database = uri.removeprefix(PLAIN)
    else:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(uri)
            has_host = any((url.host, url.port, url.username, url.password))  # two slashes instead of three
            database = (url.database or "") if url.get_backend_name() == "sqlite" and not has_host else ""
            if database.startswith(_URI_OF_SQLITE):
                database = unquote(urlsplit(database).path)
            elif "uri" in url.query:  # the query's rest would become part of the file name
                return None
        except (ArgumentError, ValueError):
            return None
    return None if database in ("", ":memory:") else Path(database)
