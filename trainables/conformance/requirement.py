"""Requirements of a check, with the reason for a failure in words."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class CheckFailedError(AssertionError):
    """A method lacks a property required of every method. The message gives the reason."""


def require(condition: bool, reason: str) -> None:
    """Check a condition.

    Raises:
        CheckFailedError: the condition is false.
    """
    if not condition:
        raise CheckFailedError(reason)


def require_same(found: Collection[str], expected: Collection[str], what: str) -> None:
    """Compare two collections of names as sets.

    Args:
        found: actual names.
        expected: expected names.
        what: the names in words, at the beginning of the reason.

    Raises:
        CheckFailedError: they differ. The message lists the missing and the surplus names.
    """
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        parts = [f"without {', '.join(missing)}"] * bool(missing) + [f"with {', '.join(extra)} too many"] * bool(extra)
        raise CheckFailedError(f"{what}: {' and '.join(parts)}")


@contextmanager
def expect_error(kind: type[Exception], pattern: str, what: str) -> Iterator[None]:
    """Check that a block raises an error with a matching message.

    Args:
        kind: error type.
        pattern: regular expression, found anywhere in the message.
        what: action of the block, for the reason.

    Raises:
        CheckFailedError: no error is raised, or the message differs.
    """
    try:
        yield
    except kind as error:
        if re.search(pattern, str(error)) is None:
            raise CheckFailedError(f"{what} raises {kind.__name__} with another message: {error}") from error
        return
    raise CheckFailedError(f"{what} raises no {kind.__name__}")
