"""Stand-in for hostile code in a pickle."""

from pathlib import Path


class Payload:
    """Object that creates a file when it is unpickled. A hostile journal could run any code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)
