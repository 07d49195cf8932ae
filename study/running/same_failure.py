"""Early end of a study if every trial fails with the same error in user code.

More trials would fail too, so the study ends after the first ones, and the user sees the error once.
"""

from typing import Final

from study.cli.commands import resume_command
from study.ledger.ledger import StudyLedger
from trainables.display.failures import kind_of, one_line, traceback_of
from trainables.display.numbers import counted
from trainables.spec.methods import is_own

_ENOUGH: Final = 3


class SameFailure:
    """Detector for a study with the same failure in all trials.

    A resumed study with ended trials is not watched, because the user has decided to continue.

    Args:
        ledger: study ledger.
    """

    def __init__(self, ledger: StudyLedger) -> None:
        self._ledger = ledger
        self._watches = not ledger.ended

    def found(self) -> bool:
        """Return whether all ended trials failed with the same error."""
        return self._watches and all_fail_alike(self._ledger)


def all_fail_alike(ledger: StudyLedger) -> bool:
    """Return whether at least three trials have ended, all with the same error in code run by every trial.

    No other trial may have got further. On a cluster, the code may fail on one node only.

    In a comparison, not all trials run a user-defined method. In a search over students, not all trials run the same
    student. The error must then also occur with another method or another student.
    """
    ended = [entry for entry in ledger.entries.values() if entry.status is not None]
    if len(ended) < _ENOUGH or any(entry.status != "failed" or not entry.error for entry in ended):
        return False
    errors = [entry.error or "" for entry in ended]
    if len(set(map(kind_of, errors))) > 1 or not all(map(traceback_of, errors)):
        return False
    furthest = max(len(entry.epochs) for entry in ended)
    if any(len(entry.epochs) > furthest for entry in ledger.entries.values()):
        return False
    if ledger.plan.compared and all(is_own(entry.config.method) for entry in ended):
        return False
    searches_student = any(each.field == "student" for each in ledger.plan.search)
    return not searches_student or len({entry.config.student for entry in ended}) > 1


def ended_by_same_failure(ledger: StudyLedger, *, with_traceback: bool) -> str:
    """Return the message for a study ended because all trials failed with the same error.

    Args:
        ledger: study ledger.
        with_traceback: whether the message contains the traceback.
    """
    failed = [entry for entry in ledger.entries.values() if entry.status == "failed"]
    error = failed[0].error or ""
    names = ", ".join(entry.trial_id for entry in failed[:_ENOUGH]) + (", ..." if len(failed) > _ENOUGH else "")
    shown = f":\n{traceback_of(error)}\n" if with_traceback else f": {one_line(error)}\n"
    return (
        f"ended early, because all {counted(len(failed), 'trial')} failed by the same error in your code ({names})"
        f"{shown}This study keeps the code that it began with: mend your file and start a new study under another "
        f"--name. To go on all the same:\n  {resume_command(ledger.plan)}"
    )
