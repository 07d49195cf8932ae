"""Warnings of a command, each as one line."""

import warnings
from pathlib import Path

import pytest

from trainables.data.text import samples
from trainables.process.command_errors import warnings_in_one_line

pytestmark = pytest.mark.unit


def shown(message: str, kind: type[Warning], path: str) -> str:
    """Return what a command prints for a warning."""
    with warnings_in_one_line():
        return warnings.formatwarning(message, kind, path, 113, None)


def test_a_warning_of_ours_is_its_message_alone() -> None:
    text = shown("skipped 2 rows\nwith tabs", UserWarning, str(Path(samples.__file__)))
    assert text == "warning: skipped 2 rows with tabs\n"


def test_a_warning_of_other_code_also_has_kind_and_place() -> None:
    for path in ("/there/net.py", str(Path(pytest.__file__)), "<string>"):
        assert shown("old", FutureWarning, path) == f"warning: old (FutureWarning, {path}:113)\n"


def test_the_format_ends_with_the_command() -> None:
    before = warnings.formatwarning
    with warnings_in_one_line():
        assert warnings.formatwarning is not before
    assert warnings.formatwarning is before
