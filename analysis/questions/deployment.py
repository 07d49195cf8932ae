"""Student deployment costs: parameters, FLOPs, size and latency, by architecture.

The values do not depend on the weights. ONNX Runtime measures them once per architecture, before the trials, on the CPU
of the study machine (`trainables.students.deployment`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from trainables.display.markdown import markdown_rows
from trainables.display.numbers import counted, format_latency
from trainables.spec.measures import (
    DEPLOY_BATCHES,
    DEPLOY_FACTS,
    DEPLOY_FLOPS,
    DEPLOY_LATENCY,
    DEPLOY_PARAMETERS,
    DEPLOY_SIZE,
    DEPLOY_THREADS,
)
from trainables.spec.quantities import QUANTITIES


@dataclass(frozen=True)
class DeployedStudent:
    """Measured student architecture.

    Args:
        student: architecture name.
        facts: values by `DEPLOY_FACTS` names; size, latency and threads are absent if no program was measured.
    """

    student: str
    facts: dict[str, float]


def deployed_students(trials: pa.Table) -> list[DeployedStudent]:
    """Return the measured students in a study, smallest first. Empty if none was measured.

    Args:
        trials: trial records, also from earlier versions without these columns.
    """
    columns = [name for name in DEPLOY_FACTS if name in trials.column_names]
    found: dict[str, dict[str, float]] = {}
    for row in trials.select(["student", *columns]).to_pylist():
        facts = {name: row[name] for name in columns if row[name] is not None}
        if facts and row["student"] is not None:
            found.setdefault(row["student"], facts)
    students = [DeployedStudent(name, facts) for name, facts in found.items()]
    return sorted(students, key=lambda each: each.facts.get(DEPLOY_PARAMETERS, 0.0))


def deployment_cells(students: list[DeployedStudent]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of a student table; unknown columns are left out."""
    parts = [("parameters", DEPLOY_PARAMETERS), ("flops", DEPLOY_FLOPS), ("size", DEPLOY_SIZE)]
    known = [(name, column) for name, column in parts if any(column in each.facts for each in students)]
    batches = [batch for batch in DEPLOY_BATCHES if any(_median(batch) in each.facts for each in students)]
    heads = ["student", *(QUANTITIES[name].words for name, _ in known), *(f"latency, batch {each}" for each in batches)]
    rows = [
        (
            each.student,
            *(QUANTITIES[name].text(each.facts[column]) if column in each.facts else "" for name, column in known),
            *(_latency(each, batch) for batch in batches),
        )
        for each in students
    ]
    return tuple(heads), rows


def deployment_note(students: list[DeployedStudent]) -> str:
    """Return a sentence on each column in the table, with the numbers of runs and threads."""
    programs = [each.facts for each in students if DEPLOY_THREADS in each.facts]
    text = "FLOPs are of a forward pass of one image. Students are measured before the trials, once per architecture."
    if not programs:
        return text
    threads = int(programs[0][DEPLOY_THREADS])
    runs = min(int(facts[f"deploy/latency_{batch}_runs"]) for facts in programs for batch in DEPLOY_BATCHES)
    return (
        f"Size is that of the float32 ONNX program. Latency is the median of at least {runs} runs in ONNX Runtime on "
        f"{counted(threads, 'CPU thread')} of the machine that runs the study, with the 10th and 90th "
        f"percentile. {text}"
    )


def _median(batch: int) -> str:
    return f"deploy/latency_{batch}_seconds"


def _latency(student: DeployedStudent, batch: int) -> str:
    if _median(batch) not in student.facts:
        return ""
    return format_latency(student.facts[_median(batch)], *latency_range(student.facts, _median(batch)))


def latency_range(facts: Mapping[str, float], column: str = DEPLOY_LATENCY) -> tuple[float, float]:
    """Return the 10th and the 90th percentile over the runs behind a median latency; nan if not recorded.

    Args:
        facts: a student's values by `DEPLOY_FACTS` names.
        column: name of the median.
    """
    prefix = column.removesuffix("_seconds")
    return facts.get(f"{prefix}_low_seconds", math.nan), facts.get(f"{prefix}_high_seconds", math.nan)


def deployment_markdown(students: list[DeployedStudent]) -> str:
    """Return the table with the note in Markdown; empty without students."""
    if not students:
        return ""
    heads, rows = deployment_cells(students)
    return "\n".join(markdown_rows(heads, rows)) + f"\n\n{deployment_note(students)}"
