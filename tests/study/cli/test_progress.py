import io
from types import SimpleNamespace

from study.cli.progress import StudyProgress
from study.ledger.entry import TrialEntry
from tests.study.factories import make_plan


def test_a_long_line_in_a_log_is_not_broken(tmp_path):
    stream = io.StringIO()
    text = " ".join(["replicate w31-T4.0-s1 finished"] * 20)
    StudyProgress(make_plan(tmp_path), stream=stream).say(text)
    assert stream.getvalue() == text + "\n"


def test_a_warning_is_given_once(tmp_path):
    stream = io.StringIO()
    progress = StudyProgress(make_plan(tmp_path), stream=stream)
    for _ in range(3):
        progress.warn("the file was damaged")
    assert stream.getvalue() == "warning: the file was damaged\n"


def test_a_quiet_study_says_nothing(tmp_path):
    stream = io.StringIO()
    StudyProgress(make_plan(tmp_path), quiet=True, stream=stream).say("something")
    assert not stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ended(plan, status, **changes):
    """Return a trial that has ended with two epochs."""
    measures = {"val/accuracy": 0.8861, "val/sharpness_gap": -1.436, "cost/seconds": 1.25}
    entry = TrialEntry("s-0001", 1, "search", 0, plan.base, 0.0, **changes)
    entry.epochs, entry.status = {1: measures, 2: measures}, status
    return entry


def shown(plan, entry, stream, *, quiet=False):
    """Return the output of a display that is told of the end of a trial."""
    ledger = SimpleNamespace(
        ended=3, planned=14, unfinished=[], entries={entry.trial_id: entry}, count=lambda status: status == entry.status
    )
    with StudyProgress(plan, quiet=quiet, stream=stream) as progress:
        progress.trial_changed(entry, ledger)
    return stream.getvalue()


def test_an_ended_trial_is_one_line_with_name_objective_gap_and_seconds(tmp_path):
    plan = make_plan(tmp_path)
    entry = ended(plan, "finished")
    line = f"[3/14] search {entry.name}, val/accuracy 0.886, gap −1.44, 2.5 s\n"
    assert shown(plan, entry, io.StringIO()) == line
    entry = ended(plan, "failed", error="ValueError: too\nlong")
    line = f"[3/14] search {entry.name} FAILED after 2 epochs, val/accuracy 0.886, gap −1.44, 2.5 s: ValueError: too"
    assert shown(plan, entry, io.StringIO()).startswith(line)
    without_gap = ended(plan, "pruned")
    without_gap.epochs = {1: {"val/accuracy": 0.5, "cost/seconds": 1.0}}
    line = f"search {entry.name} stopped early after 1 epoch, val/accuracy 0.500, 1.0 s\n"
    assert shown(plan, without_gap, io.StringIO()).endswith(line)


def test_a_terminal_has_the_same_line_above_the_bar_in_colour_and_a_pipe_has_no_colour(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plan = make_plan(tmp_path)
    colours = {"finished": "", "pruned": "\x1b[90m", "failed": "\x1b[31m"}
    for status, colour in colours.items():
        entry = ended(plan, status)
        piped, on_terminal = shown(plan, entry, io.StringIO()), shown(plan, entry, Terminal())
        assert "\x1b" not in piped
        assert f"{colour}{piped.rstrip()}" in on_terminal
        assert "3/14" in on_terminal.replace(piped.rstrip(), "")  # the bar
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in shown(plan, ended(plan, "failed"), Terminal())


def test_a_quiet_study_shows_no_trial(tmp_path):
    plan = make_plan(tmp_path)
    for stream in (io.StringIO(), Terminal()):
        assert shown(plan, ended(plan, "finished"), stream, quiet=True) == ""
