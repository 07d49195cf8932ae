import io
import subprocess
import sys

import pytest

from trainables.standard_streams import ForgivingStream

REPORT = """
import os, sys
from trainables.standard_streams import prepare_standard_streams
prepare_standard_streams()
prepare_standard_streams()
opened = open("opened", "w")
print("to nobody")
print("to nobody", file=sys.stderr)
os.write(1, b"what a library prints")
sys.stderr.flush()
opened.write(f"{opened.fileno()} {type(sys.stderr).__name__} {sys.stdin.read()!r}")
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path, closed):
    script = tmp_path / "report.py"
    script.write_text(REPORT)
    command = f"'{sys.executable}' '{script}' {closed}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=60, check=False)
    number, kind, read = (tmp_path / "opened").read_text().split()
    assert int(number) > 2
    assert (kind, read) == ("ForgivingStream", "''")


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")])
def test_output_that_cannot_be_written_is_dropped(error):
    class Broken(io.StringIO):
        def write(self, text):
            raise error

        def flush(self):
            raise error

    stream = ForgivingStream(Broken())
    assert stream.write("some progress") == len("some progress")
    stream.flush()
    assert stream.isatty() is False


def test_output_that_can_be_written_is():
    kept = io.StringIO()
    print("some progress", file=ForgivingStream(kept), flush=True)
    assert kept.getvalue() == "some progress\n"
