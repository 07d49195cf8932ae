import pytest

from trainables.data import image_progress
from trainables.data.image_progress import with_progress


@pytest.fixture(autouse=True)
def visible_progress(monkeypatch):
    """Show the progress bar as in a new process, even if other tests have hidden it."""
    monkeypatch.setattr(image_progress, "_hidden", False)


@pytest.fixture
def clock(monkeypatch):
    """Clock that advances by a second per call."""
    times = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: next(times))


def test_without_a_terminal_work_of_minutes_is_told_of_once(clock, capsys):
    assert list(with_progress(range(400), "checking images", 400)) == list(range(400))
    assert capsys.readouterr() == ("", "checking images: 21 of 400 done, about 6 min left\n")


@pytest.mark.parametrize("total", [30, 60])
def test_less_is_not_told_of(total, clock, capsys, monkeypatch):
    monkeypatch.setattr(image_progress, "_MANY", 50)
    assert list(with_progress(range(total), "checking images", total)) == list(range(total))
    assert capsys.readouterr() == ("", "")


def test_hidden_progress_is_not_shown(clock, capsys):
    image_progress.hide_progress()
    assert list(with_progress(range(400), "checking images", 400)) == list(range(400))
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_that_goes_away(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(with_progress(range(400), "checking images", 400)) == list(range(400))
    out, shown = capsys.readouterr()
    assert out == ""
    assert "checking images" in shown
