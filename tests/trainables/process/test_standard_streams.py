import io
import os
import subprocess
import sys

import pytest

from trainables.process.standard_streams import ForgivingStream

pytestmark = pytest.mark.launcher

REPORT = """
import os, sys
from trainables.process.standard_streams import prepare_standard_streams
prepare_standard_streams()
prepare_standard_streams()
opened = open("opened", "w")
print("to nobody")
print("to nobody", file=sys.stderr)
os.write(1, b"what a library prints")
sys.stderr.flush()
opened.write(f"{opened.fileno()} {type(sys.stderr).__name__} {sys.stdin.read()!r}")
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2> {full}"])
def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path, full_device, closed):
    script = tmp_path / "report.py"
    script.write_text(REPORT)
    command = f"'{sys.executable}' '{script}' {closed.format(full=full_device)}"
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


RESULT = """
import os, sys
from trainables.process.standard_streams import prepare_standard_streams, show_result
prepare_standard_streams()
with os.fdopen(os.dup(1), "w") as stdout:
    show_result("the result\\n" * 9999, stdout, elsewhere="it is in the file")
show_result("the result\\n", sys.stdout, elsewhere="it is in the file")
sys.exit(4)
"""


@pytest.mark.parametrize("reader", ["gone", "full"])
def test_work_that_is_done_ends_as_it_does_where_its_result_cannot_be_printed(full_device, reader):
    command = [sys.executable, "-c", RESULT]
    with full_device.open("wb") as full:
        work = subprocess.Popen(command, stdout=subprocess.PIPE if reader == "gone" else full, stderr=subprocess.PIPE)
    if work.stdout is not None:
        work.stdout.close()
    said = work.communicate(timeout=60)[1].decode()
    assert work.returncode == 4, said
    assert said.count("warning: cannot print the result (") == 2 == said.count("); it is in the file")
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_character_that_a_terminal_lacks_is_shown_by_its_number(encoding):
    program = "from trainables.process.standard_streams import *; prepare_standard_streams(); print('é−\\udcff')"
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout.decode(encoding).strip() in ("\\xe9\\u2212\\udcff", "é\\u2212\\udcff")
