"""Studies with many trials: plan, search on Ray, records and tracking, and the command line."""

from importlib.metadata import PackageNotFoundError, version

from trainables.process.packages import use_own_packages

use_own_packages()

try:
    __version__ = version("pesfkd")
except PackageNotFoundError:  # source tree without an installed package
    __version__ = "0+unknown"
