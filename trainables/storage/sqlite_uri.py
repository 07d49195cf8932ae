"""Files of SQLite as URIs, so that SQLAlchemy and MLflow open the very file, whatever characters its path has."""

from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

PLAIN: Final = "sqlite:///"
# MLflow makes the folder that stands behind `sqlite:///` before it decodes the path, so it would make a second one.
_ENCODED: Final = "sqlite+pysqlite:///"
_READ_OTHERWISE: Final = frozenset("?%")
_URI_OF_SQLITE: Final = "file:"  # SQLite's own notation, for which `uri=true` is needed


class SQLitePathError(ValueError):
    """A path that no URI can name."""


def sqlite_uri(path: Path) -> str:
    """The URI of a file of SQLite; only characters that would be read as something else are encoded.

    Args:
        path: of the file; made absolute.

    Raises:
        SQLitePathError: the path has a character that cannot be part of such a URI.
    """
    text = str(path.absolute())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SQLitePathError(
            f"{text!r} has the character {text[error.start]!r}, which is no text in UTF-8, and SQLite takes no other "
            "names: choose another folder"
        ) from None
    found = _READ_OTHERWISE.intersection(text)
    if not found:
        return f"{PLAIN}{text}"
    encoded = f"{_ENCODED}{quote(text, safe=_kept(text))}"
    if sqlite_file(encoded) != Path(text):  # SQLAlchemy before 2.1 does not decode
        plain = f"{PLAIN}{text}"
        if sqlite_file(plain) == Path(text):
            return plain
        raise SQLitePathError(
            f"{text} has a {min(found)!r}, which this version of SQLAlchemy cannot have in the path of a database: "
            "choose another folder, or install sqlalchemy>=2.1"
        )
    return encoded


def absolute_uri(uri: str) -> str:
    """A URI of a file of SQLite that holds in every working folder; any other as it is."""
    path = sqlite_file(uri)
    if path is None or path.is_absolute():
        return uri
    before, question, query = uri.partition("?")
    absolute = sqlite_uri(path)
    if question and f"///{_URI_OF_SQLITE}" in before:
        absolute = absolute.replace("///", f"///{_URI_OF_SQLITE}", 1)
    return f"{absolute}{question}{query}"


def lock_of(store: Path) -> Path:
    """The lock file of a store: never the store itself, whatever it is called."""
    return store.with_suffix(".lock") if store.suffix != ".lock" else store.with_name(f"{store.name}.lock")


def _kept(text: str) -> str:
    """The characters of a path that stay as they are."""
    return "".join(set(text) - _READ_OTHERWISE)


def sqlite_file(uri: str) -> Path | None:
    """The file of a URI of SQLite as SQLAlchemy reads it; None if it is no such URI, or one of a database in memory."""
    if not uri.lower().startswith("sqlite"):
        return None
    if uri.startswith(PLAIN) and not _READ_OTHERWISE.intersection(uri):
        database = uri.removeprefix(PLAIN)
    else:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(uri)
            has_host = any((url.host, url.port, url.username, url.password))  # two slashes where three are needed
            database = (url.database or "") if url.get_backend_name() == "sqlite" and not has_host else ""
            if database.startswith(_URI_OF_SQLITE):
                database = unquote(urlsplit(database).path)
            elif "uri" in url.query:  # the rest of the query would be part of the name
                return None
        except (ArgumentError, ValueError):
            return None
    return None if database in ("", ":memory:") else Path(database)
