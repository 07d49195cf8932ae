"""Many trials: the plan, the search on Ray, what is recorded and tracked of it, and the command line."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pesfkd")
except PackageNotFoundError:  # run from a source tree that nobody installed
    __version__ = "0+unknown"
