"""Places given as a URI or a path, and the redaction of secrets in URIs.

Secrets are neither stored nor shown. Each URI is read by the opening libraries' parsers: urllib's, and for all schemes
except web protocols also SQLAlchemy's. If one parser takes a part for a secret, that part is replaced. If a parser
cannot read a URI, everything after the scheme is replaced. Query parameters keep their values only if they are on a
list of harmless parameters.
"""

import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

REDACTED: Final = "***"

_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]+://"
_URI: Final = re.compile(_SCHEME)
_URI_IN_TEXT: Final = re.compile(rf"(?<![A-Za-z0-9+.-]){_SCHEME}\S*")
# Start of a further URI in one word, as in a list or in Python's notation.
_NEXT_URI: Final = re.compile(rf"(?<=[,;|'\"`()\[\]{{}}<>]){_SCHEME}")
_AFTER_A_URI: Final = ")]}>.,;:'\"`"
_LONGEST_PASSWORD: Final = 200  # characters searched for the end of a password with blanks
# In these schemes, digits after a colon are a port. In others, `name:123/abc@host` has a password, as in SQLAlchemy.
_WITH_PORTS: Final = frozenset({"http", "https", "hdfs", "viewfs", "webhdfs", "ray", "grpc", "tcp", "ftp", "ws", "wss"})
# Azure writes the container in the user's place.
_CONTAINER_FIRST: Final = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_HOSTS: Final = re.compile(r"(?:[\w.*~%-]|\[[\w:.%]*\]|[,:])*")
_HARMLESS: Final = frozenset({
    # pyarrow.fs
    "scheme", "region", "endpoint_override", "allow_bucket_creation", "allow_bucket_deletion",
    "force_virtual_addressing", "retry_limit_seconds", "project_id", "enable_tls", "blob_storage_authority",
    "blob_storage_scheme", "dfs_storage_authority", "dfs_storage_scheme", "client_id", "tenant_id", "sv", "replication",
    "buffer_size", "default_block_size",
    # Databases
    "host", "port", "dbname", "sslmode", "charset", "driver", "timeout", "connect_timeout", "application_name",
    "target_session_attrs", "mode", "cache", "uri", "encrypt", "trustservercertificate",
})  # fmt: skip
_HARMLESS_VALUE: Final = re.compile(r"[A-Za-z0-9._:/\[\]+,~-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAMED_SO: Final = (
    r"[A-Za-z0-9_.-]*(?:passw(?:or)?d|pwd|passphrase|secret|token|credentials?|signature|\bsig|"
    r"(?:api|access|account|secret|private)[_-]?key(?:[_-]?id)?)"
)
# `password=...` in database connection strings (libpq, ODBC), and in Python's and JSON's notation.
_SETTING: Final = re.compile(
    rf"(?P<name>\b{_NAMED_SO}['\"]?\s?(?:=|%3D|(?<=['\"])\s?:|(?<=['\"]\s):)\s?)"
    r"(?P<value>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\{(?:[^}]|\}\})*\}|[^\s;&]+)",
    re.IGNORECASE,
)
_SHORTEST_KNOWN: Final = 4  # shortest secret to search for anywhere in a text


def is_uri(place: str) -> bool:
    """Return whether a place is a URI such as `s3://bucket/folder`, and not a plain path."""
    return _URI.match(place) is not None


def joined(uri: str, name: str) -> str:
    """Return the URI of a file or folder below a URI. The query stays at the end."""
    place, separator, query = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{separator}{query}"


def redact(text: str, *uris: str | None) -> str:
    """Replace the secrets in all URIs and connection strings in a text.

    Args:
        text: text such as an error message.
        uris: URIs with secrets to replace anywhere in the text. An error may repeat a password without the URI.
    """
    for secret in sorted(_secrets_of(uris), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return _without_settings("".join(_without_secrets(text)))


def redact_place(place: str) -> str:
    """Remove the secrets in a URI or a path. Unlike `redact`, treat the whole string as one place."""
    return redact_uri(place) if is_uri(place) else redact(place)


def redact_command(words: Iterable[str]) -> str:
    """Return a command line's words as typed in a shell, without the secrets in URIs."""
    shown = []
    for word in words:
        flag, separator, value = word.partition("=") if word.startswith("-") else ("", "", word)
        shown.append(f"{flag}{separator}{redact_place(value)}" if separator or not flag else redact_place(word))
    return shlex.join(shown)


def redact_uri(uri: str) -> str:
    """Replace the secrets in a URI: the user part, and query parameters not known to be harmless.

    If a parser cannot read the URI, only the scheme is kept.
    """
    scheme, separator, rest = uri.partition("://")
    start, hidden = f"{scheme}{separator}", f"{scheme}{separator}{REDACTED}"
    if scheme.lower().startswith("sqlite") and rest.startswith("/"):  # a file: only the query can contain a secret
        file, question, parameters = rest.partition("?")
        return f"{start}{file}{question}{_without_values(parameters)}"
    rest = _without_user(scheme.lower(), rest)
    place, query, fragment = _split(rest)
    host, slash, path = place.partition("/")
    shown = f"{start}{host}{slash}{_without_settings(path) if host else path}"
    shown += f"?{_without_values(query)}" if query is not None else ""
    if fragment is not None:
        shown += f"#{REDACTED if any(sign in fragment for sign in '=@?') else fragment}"
    return shown if _is_clean(shown) else hidden


def redact_tracebacks() -> None:
    """Remove the secrets in URIs from an uncaught exception's traceback, for example with `--verbose`."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show


def _without_user(scheme: str, rest: str) -> str:
    """Replace everything up to the last @ after a scheme, if a parser finds a user part.

    A slash, an @ or a question mark in a password should be percent-encoded. A password without encoding must stay
    hidden too.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if at and scheme in _CONTAINER_FIRST and ":" not in user and "@" not in rest[len(authority) :]:
        return rest
    if not at:
        _, colon, port = authority.rpartition(":")
        is_port = scheme in _WITH_PORTS and port.isdigit()
        at = "@" if colon and not authority.endswith("]") and not is_port and "@" in rest else ""
    return f"{REDACTED}@{rest.rpartition('@')[2]}" if at else rest


def _split(rest: str) -> tuple[str, str | None, str | None]:
    """Split into host and path, query, and fragment. A missing query or fragment is None."""
    rest, hash_sign, fragment = rest.partition("#")
    rest, question, query = rest.partition("?")
    return rest, query if question else None, fragment if hash_sign else None


def _without_values(query: str) -> str:
    """Replace the values of all query parameters except known harmless ones."""
    parts = re.split(r"([&;])", query)
    return "".join(part if index % 2 else _without_value(part) for index, part in enumerate(parts))


def _without_value(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not parameter or (equals and _is_harmless(name, value)):
        return parameter
    return f"{name}={REDACTED}" if equals and _NAME.fullmatch(name) else REDACTED


def _is_harmless(name: str, value: str) -> bool:
    return name.lower() in _HARMLESS and (value == REDACTED or _HARMLESS_VALUE.fullmatch(value) is not None)


def _is_clean(shown: str) -> bool:
    """Return whether the parsers find no secret in a URI."""
    try:
        parts = urlsplit(shown)
        host = parts.netloc.rpartition("@")[2]
        if "," not in host:  # PostgreSQL accepts several hosts, each with a port
            _ = parts.port
    except ValueError:
        return False
    scheme = parts.scheme.lower()
    users = [parts.username, parts.password]
    if scheme in _CONTAINER_FIRST:
        users[0] = None
    if parts.netloc and scheme not in _WITH_PORTS:
        url = _sqlalchemy_url(shown)
        users += [url.username, url.password] if url is not None and scheme not in _CONTAINER_FIRST else []
    return _HOSTS.fullmatch(host) is not None and all(user in (None, REDACTED) for user in users)


def _sqlalchemy_url(uri: str) -> Any:
    """Parse a URI with SQLAlchemy.

    Returns:
        The URL. None if SQLAlchemy cannot parse the URI or is not installed, as on a cluster node.
    """
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        return None
    try:
        return make_url(uri)
    except (ArgumentError, ValueError):
        return None


def _without_secrets(text: str) -> Iterator[str]:
    """Yield a text in pieces, with the secrets in URIs replaced."""
    position = 0
    while (found := _URI_IN_TEXT.search(text, position)) is not None:
        yield text[position : found.start()]
        following = _NEXT_URI.search(text, found.start() + 1, found.end())
        end = following.start() if following is not None else _end_of_uri(text, found)
        uri = text[found.start() : end]
        kept = len(uri.rstrip(_AFTER_A_URI))
        yield redact_uri(uri[:kept]) if _URI.fullmatch(uri[:kept]) is None else uri[:kept]
        yield uri[kept:]
        position = end
    yield text[position:]


def _end_of_uri(text: str, found: re.Match[str]) -> int:
    """Return a URI's end position: the end of the word, or later if the password contains blanks."""
    authority = re.split(r"[/?#]", found.group().partition("://")[2], maxsplit=1)[0]
    _, colon, port = authority.rpartition(":")
    if not colon or "@" in found.group() or authority.endswith("]") or port.rstrip(_AFTER_A_URI).isdigit():
        return found.end()
    rest = re.compile(r"[^\n@]*@\S*").match(text, found.end(), found.end() + _LONGEST_PASSWORD)
    return rest.end() if rest is not None and "://" not in rest.group() else found.end()


def _without_settings(text: str) -> str:
    def hide(found: re.Match[str]) -> str:
        value = found["value"]
        quotes = value[0] if value[0] in "'\"" and value[0] == value[-1] else ""
        return f"{found['name']}{quotes}{REDACTED}{quotes}"

    return _SETTING.sub(hide, text)


def _secrets_of(uris: Iterable[str | None]) -> set[str]:
    """Return the URIs' secrets in all possible forms in a text: unchanged, decoded and encoded."""
    found = {secret for uri in uris if uri is not None and is_uri(uri) for secret in _secrets(uri)}
    plain = found | {unquote(each) for each in found} | {unquote_plus(each) for each in found}
    forms = plain | {quote(each, safe="") for each in plain} | {quote_plus(each) for each in plain}
    return {each for each in forms if len(each) >= _SHORTEST_KNOWN and each != REDACTED}


def _secrets(uri: str) -> Iterator[str]:
    """Yield passwords, user names without a password, and query values not known to be harmless."""
    scheme, _, rest = uri.partition("://")
    if (url := _sqlalchemy_url(uri)) is not None:
        # A user name with a password is no secret, and error messages need the name.
        yield from filter(None, [url.password or (None if scheme.lower() in _CONTAINER_FIRST else url.username)])
    if (hidden := _without_user(scheme.lower(), rest)) != rest:
        user = rest[: len(rest) - len(hidden.partition("@")[2]) - 1]
        name, _, password = user.partition(":")
        yield password or name
    for name, value in parse_qsl((_split(rest)[1] or "").replace(";", "&")):
        if not _is_harmless(name, value):
            yield value
            yield from (_without_quotes(setting["value"]) for setting in _SETTING.finditer(value))


def _without_quotes(value: str) -> str:
    """Return a setting's value in a connection string, without quotes."""
    return value[1:-1].replace("}}", "}") if value[0] == "{" and value[-1] == "}" else value.strip("'\"")
