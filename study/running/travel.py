"""Files of a study between the driver's machine and the nodes of a cluster without a shared folder."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.ledger.ledger import StudyLedger
from study.ledger.students import keeps_student, student_path
from study.plan.plan import StudyPlan
from trainables.storage.remote_folder import RemoteFolder
from trainables.storage.uris import joined

if TYPE_CHECKING:
    from trainables.tune.travel import Files, Travelling


def files_of_trials(plan: StudyPlan, prepared: Iterable[dict[str, Any]]) -> "Travelling":
    """Return everything that the nodes need to run a study's trials.

    Args:
        plan: the study, with a URI as the storage for checkpoints.
        prepared: the study's teachers; each item has the `paths` by method.
    """
    from trainables.tune.travel import Travelling, pack_teacher

    paths = {path for each in prepared for path in each["paths"].values()}
    assert plan.storage_path is not None
    return Travelling(plan.storage_path, plan.study_id, {path: pack_teacher(Path(path)) for path in sorted(paths)})


def files_of_given_teacher(plan: StudyPlan) -> "Files":
    """Return the content of a given teacher's files; empty if the study trains the teachers."""
    from trainables.teacher.files import stored_path
    from trainables.tune.travel import pack_teacher

    digest = plan.base.teacher_digest
    return pack_teacher(stored_path(plan.teachers_folder, digest)) if digest else {}


class StudentCollector:
    """Copies the students of finished confirmation trials from storage into the study's folder.

    Args:
        ledger: study ledger, of a plan with a URI as the storage for checkpoints.
    """

    def __init__(self, ledger: StudyLedger) -> None:
        assert ledger.plan.storage_path is not None
        self._ledger = ledger
        self._remote = RemoteFolder(joined(ledger.plan.storage_path, f"students/{ledger.plan.study_id}"))

    def collect(self, trial_id: str) -> None:
        """Fetch a trial's student, if the trial has finished and the student is not here yet.

        Raises:
            OSError: storage does not have the student or does not answer, or the disk refuses the file.
        """
        from trainables.tune.travel import fetch_student

        entry = self._ledger.entries[trial_id]
        path = student_path(self._ledger.plan, trial_id)
        if keeps_student(self._ledger, entry) and not path.exists():
            fetch_student(self._remote, path)

    def collect_missing(self) -> list[str]:
        """Fetch the students of all finished trials. Return a message for each student that is still missing."""
        problems = []
        for entry in self._ledger.in_stage("confirm"):
            if entry.status == "finished":
                try:
                    self.collect(entry.trial_id)
                except OSError as error:
                    problems.append(f"the student of {entry.trial_id} could not be fetched from storage ({error})")
        return problems
