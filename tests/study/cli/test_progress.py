import io

from study.cli.progress import StudyProgress
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
