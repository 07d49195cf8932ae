"""Template process for workers, started before the slow imports in the study's own process."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from trainables.process.environment import WORKERS
from trainables.process.forks import Template
from trainables.spec.modality import is_text

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan

ENTRY: Final = "trainables.tune.serving:serve_requests"
# A backward pass with a given gradient imports the last one.
MODULES: Final = ("trainables.run.run", "torch.fx.experimental.symbolic_shapes")
_ahead: dict[str, Template] = {}


@contextmanager
def template_ahead(plan: "StudyPlan", *, shows_output: bool) -> Iterator[None]:
    """Start a new study's template at once. It imports PyTorch while the study's process imports the rest.

    Args:
        plan: the study.
        shows_output: see `start_template`.
    """
    from study.plan.executor import executor_of
    from study.plan.objectives import measures_students

    if executor_of(plan) != "processes" or measures_students(plan):  # nothing else may run during a measurement
        yield
        return
    _ahead[plan.study_id] = start_template(plan, shows_output=shows_output)
    try:
        yield
    finally:
        if (unused := _ahead.pop(plan.study_id, None)) is not None:
            unused.close()


def template_of(plan: "StudyPlan") -> Template:
    """Return the template started for this study, or a new one. The caller closes it."""
    return _ahead.pop(plan.study_id, None) or start_template(plan)


def start_template(plan: "StudyPlan", *, shows_output: bool = False) -> Template:
    """Start the template process for workers. The imports continue in the background.

    Args:
        plan: the study.
        shows_output: whether the workers' output goes to this process's streams. By default, it is discarded.
    """
    dataset = plan.example_config.dataset
    if is_text(dataset):
        data = "trainables.data.text.dataset"
    else:
        data = "trainables.data.digits" if dataset == "digits" else "trainables.data.from_files"
    output = None if shows_output else subprocess.DEVNULL
    return Template(ENTRY, [*MODULES, data], WORKERS | os.environ, output=output)
