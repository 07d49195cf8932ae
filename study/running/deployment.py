"""Measurement of all students before the search: parameters, FLOPs, size and latency.

The measurement is a separate step before the executor starts. No trial, other study process or MLflow delivery runs
meanwhile. Each architecture's result is written to the journal once, so a resumed study continues the same search with
the same values.
"""

import importlib
from typing import Final

from study.cli.progress import StudyProgress
from study.ledger.ledger import StudyLedger
from study.plan.objectives import measures_students, threads_of
from study.plan.plan import StudyPlan
from trainables.data.registry import dataset_info
from trainables.display.numbers import counted
from trainables.process.cores import check_threads
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import DEPLOY_LATENCY
from trainables.spec.quantities import QUANTITIES

PROGRAM_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")


def check_measurable(plan: StudyPlan) -> None:
    """Check, before any work, that this machine can measure the quantities in the plan.

    Raises:
        UsageError: a package is missing, or there are fewer cores than threads.
    """
    threads = threads_of(plan)
    if threads is None:
        return
    asked = "--latency" if plan.latency is not None else "latency or size as an objective or with a limit"
    for name in PROGRAM_PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"{asked} needs {name}, which cannot be imported ({error}). Install it: python -m pip install "
                "'pesfkd[export]'; or leave it out: flops and parameters need nothing else"
            ) from None
    check_threads("--latency", threads)


def measure_students(plan: StudyPlan, ledger: StudyLedger, progress: StudyProgress) -> None:
    """Measure all students without values in the journal.

    Raises:
        StudyError: a student cannot be exported, or no student is within the limits.
    """
    if not measures_students(plan):
        return
    threads, info = threads_of(plan), dataset_info(plan.base.dataset)
    for student in plan.students:
        if student in ledger.deployment:
            continue
        from trainables.students.deployment import measure_student
        from trainables.students.export import ExportError

        progress.say(
            f"measuring {student}" + ("" if threads is None else f" in ONNX Runtime ({counted(threads, 'thread')})")
        )
        shape = (info.channels, info.image_size, info.image_size)
        try:
            facts = measure_student(student, num_classes=info.num_classes, shape=shape, threads=threads)
        except ExportError as error:
            raise StudyError(f"{student} cannot be measured: {error}") from error
        ledger.record_deployment(student, dict(facts))
        if (latency := facts.get(DEPLOY_LATENCY)) is not None:
            progress.say(f"{student}: {QUANTITIES['latency'].text(latency)} for one image")
    _check_limits(plan, ledger)


def _check_limits(plan: StudyPlan, ledger: StudyLedger) -> None:
    """Check that at least one student is within all limits on quantities determined by the architecture."""
    limits = [each for each in plan.limits if each.quantity.is_of_architecture]
    known = {name: ledger.deployment[name] for name in plan.students}
    if not limits or any(
        all(each.quantity.value_in(facts) <= each.value for each in limits) for facts in known.values()
    ):
        return
    found = "; ".join(
        f"{name}: " + ", ".join(each.quantity.text(each.quantity.value_in(facts)) for each in limits)
        for name, facts in known.items()
    )
    raise StudyError(
        f"no student has {' and '.join(each.words for each in limits)} ({found}): start a study with other students or "
        "other limits"
    )
