"""Knowledge-distillation studies in Python and in notebooks; the command line does the same."""

import sys as _sys
from importlib.util import module_from_spec as _module_from_spec
from importlib.util import spec_from_file_location as _spec_from_file_location
from pathlib import Path as _Path


def _import_neighbour(name: str) -> None:
    """Import a package from this package's folder, even if a module with the same name comes first on the path."""
    start = _Path(__file__).parents[1] / name / "__init__.py"
    if name in _sys.modules or not start.is_file():
        return
    spec = _spec_from_file_location(name, start, submodule_search_locations=[str(start.parent)])
    assert spec is not None
    assert spec.loader is not None
    _sys.modules[name] = module = _module_from_spec(spec)
    spec.loader.exec_module(module)


_import_neighbour("trainables")
from trainables.process.packages import use_own_packages as _use_own_packages  # noqa: E402

_use_own_packages()

from pesfkd.handle import Report, Study  # noqa: E402
from pesfkd.interface import PlannedStudy, cluster_file, plan, resume, run, spaces, studies  # noqa: E402
from pesfkd.interface import open_study as open  # noqa: E402, A004
from pesfkd.running import StudyInterrupted  # noqa: E402
from pesfkd.teachers import Teacher, plan_teacher, train_teacher  # noqa: E402
from study import __version__  # noqa: E402
from trainables.process.errors import ClusterLostError, StudyError, UsageError  # noqa: E402

__all__ = [
    "ClusterLostError",
    "PlannedStudy",
    "Report",
    "Study",
    "StudyError",
    "StudyInterrupted",
    "Teacher",
    "UsageError",
    "__version__",
    "cluster_file",
    "open",
    "plan",
    "plan_teacher",
    "resume",
    "run",
    "spaces",
    "studies",
    "train_teacher",
]
