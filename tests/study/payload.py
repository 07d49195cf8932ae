"""What a hostile file would run."""

from pathlib import Path


class Payload:
    """Makes a file when it is unpickled: what a hostile journal would do worse."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)
