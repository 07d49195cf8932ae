"""Worker for tests: returns each message, with the names of the imported modules and the process id."""

import os
import sys
from typing import Any


def serve(connection: Any) -> None:
    while True:
        connection.send((connection.recv(), set(sys.modules), os.getpid()))
