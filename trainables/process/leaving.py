"""End of a command's process without the teardown of all imported modules, which takes a second of processor time."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress


def run_and_leave(main: Callable[[], None]) -> None:
    """Run a command, then end the process with the command's exit code.

    Threads end and exit handlers run as usual. Only Python's teardown of modules and remaining objects is left out. An
    unexpected error is raised as usual.

    Args:
        main: the command. It may raise SystemExit.
    """
    code: object = None
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)
