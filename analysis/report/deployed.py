"""Report tables on the students' deployment costs, and on the front for several objectives."""

from analysis.questions.deployment import deployed_students, deployment_cells, deployment_note
from analysis.questions.pareto import Front, front_cells, front_notes, front_title
from analysis.report.folder import StudyFolder
from analysis.report.tables import Table


def deployment_table(study: StudyFolder) -> Table | None:
    """Return the table with the measured students, or None if the study measured none."""
    students = deployed_students(study.records.trials)
    if not students:
        return None
    heads, rows = deployment_cells(students)
    return Table("Students where they run", heads, tuple(rows), (deployment_note(students),))


def front_table(front: Front) -> Table:
    """Return the table with the configs on a front."""
    heads, rows = front_cells(front)
    return Table(front_title(front), heads, tuple(rows), tuple(front_notes(front)))
