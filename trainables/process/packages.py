"""Import this project's packages before user modules with the same names.

The packages have short names, such as `study`. Python first looks for a module in a script's folder, or in the working
directory with `python -m`, and then among the installed packages. A file `study.py` there would replace ours.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

OWN: Final = ("analysis", "pesfkd", "search_spaces", "study", "trainables")


class OwnPackages:
    """Finder for the packages in one folder.

    Args:
        root: folder with the packages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None  # noqa: ARG002
    ) -> ModuleSpec | None:  # fmt: skip
        """Return the spec of a package in the folder, or None for any other module."""
        start = self._root / name / "__init__.py"
        if path is not None or name not in OWN or not start.is_file():
            return None
        return spec_from_file_location(name, start, submodule_search_locations=[str(start.parent)])


def use_own_packages() -> None:
    """Import this project's packages from this package's folder, from now on.

    Code sent to a cluster has one folder per package. The packages are then found as usual.

    Raises:
        ImportError: the process has already imported another module under a package's name.
    """
    root = Path(__file__).parents[2]
    if any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        return
    for name in OWN:
        start, other = root / name / "__init__.py", sys.modules.get(name)
        if other is not None and start.is_file() and not _is_from(other, start):
            place = getattr(other, "__file__", None) or next(iter(getattr(other, "__path__", ["an unknown place"])))
            raise ImportError(
                f"pesfkd has a package {name!r}, and this process has already imported another one from {place}: "
                "import pesfkd before it, or rename it",
                name=name,
            )
    sys.meta_path.insert(0, OwnPackages(root))


def _is_from(module: ModuleType, start: Path) -> bool:
    try:
        return start.samefile(module.__file__ or "")
    except OSError:
        return False
