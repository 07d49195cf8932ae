"""Errors of failed trials as text: a summary in one line and, for an error in user code, the traceback.

The text is `TYPE: MESSAGE (in FUNCTION, FILE:LINE)`, followed by Python's traceback from the user's file on, if there
is one. Journals, records and MLflow hold the text as one value, so texts from earlier versions have the summary alone.
"""

from typing import Final

TRACEBACK_HEADER: Final = "Traceback (most recent call last):\n"
_PLACE: Final = " (in "


def failure_text(summary: str, traceback: str) -> str:
    """Join summary and traceback. The traceback may be empty."""
    return f"{summary}\n{traceback}" if traceback else summary


def traceback_of(text: str) -> str:
    """Return the traceback in a trial's error, or an empty text."""
    _, header, rest = text.partition(f"\n{TRACEBACK_HEADER}")
    return TRACEBACK_HEADER + rest if header else ""


def summary_of(text: str) -> str:
    """Return a trial's error without the traceback."""
    return text.partition(f"\n{TRACEBACK_HEADER}")[0]


def one_line(text: str) -> str:
    r"""Return a trial's error in one line: the first line of the message, and the place.

    Example:
        >>> one_line("KeyError: 'mine' (in losses, method.py:21)\nTraceback (most recent call last):\n  ...")
        "KeyError: 'mine' (in losses, method.py:21)"
    """
    first, *rest = summary_of(text).splitlines() or [""]
    return f"{first} ...{place_of(text)}" if rest else first


def message_of(text: str) -> str:
    """Return type and message of a trial's error, without the place."""
    summary = summary_of(text)
    return summary.rpartition(_PLACE)[0] or summary


def place_of(text: str) -> str:
    """Return the place of an error, such as ` (in losses, method.py:21)`, or an empty text."""
    _, found, place = summary_of(text).rpartition(_PLACE)
    return found + place


def kind_of(text: str) -> tuple[str, str]:
    """Return type and place of an error. Errors with equal type and place have one cause."""
    return message_of(text).partition(":")[0], place_of(text)
