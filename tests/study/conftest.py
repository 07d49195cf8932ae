"""What tests of command lines share."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Said(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs the `main` of a command line in this process."""

    def run(main: Callable[[], None], *arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
        return Said(int(code or 0), *capsys.readouterr())

    return run
