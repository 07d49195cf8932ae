"""Progress bar of a counted task."""

import io
import re

import pytest
from rich.console import Console

from trainables.display.progress import CountedBar, time_left


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_bar_shows_the_count_and_the_text() -> None:
    console = terminal()
    with CountedBar(console, "epochs", 8) as bar:
        bar.update(3, "best 0.9 [name]")
    for part in ("epochs", "3/8", "best 0.9 [name]"):
        assert part in written(console)


def test_a_bar_can_get_a_new_total() -> None:
    console = terminal()
    with CountedBar(console, "trials", 8) as bar:
        bar.update(3, total=12)
    assert "3/12" in written(console)


def test_without_a_terminal_or_where_it_is_quiet_there_is_no_bar() -> None:
    assert CountedBar.on_terminal(Console(file=io.StringIO()), "epochs", 8) is None
    assert CountedBar.on_terminal(Console(file=io.StringIO(), force_terminal=True, quiet=True), "epochs", 8) is None
    assert isinstance(CountedBar.on_terminal(terminal(), "epochs", 8), CountedBar)


@pytest.mark.parametrize(
    ("done", "left", "text"),
    [(3, 12, "about 2 min left"), (30, 12, "about 12 s left"), (0, 12, ""), (3, 0, ""), (-1, 3, "")],
)
def test_the_time_left_follows_from_the_pace_so_far(
    done: int, left: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 130.0)
    assert time_left(100.0, done, left) == text


@pytest.mark.parametrize("width", [60, 80, 119, 120, 200])
def test_a_long_text_is_cut_and_count_and_time_are_not(width):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=width, _environ={"TERM": "xterm"})
    bar = CountedBar(console, "trials", 1000)
    state = "12 running, 3 stopped early, best 0.886 (w16-T4.0-s0), about 12 min left"
    with bar:
        bar.update(987, state * 2)
    written = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "\n", stream.getvalue())
    lines = [line for line in written.splitlines() if "987" in line]
    assert " 987/1000 " in lines[-1]
    assert re.search(r"0:00:0\d", lines[-1])
    assert "…" in lines[-1]
    assert len(lines[-1].rstrip()) <= width
