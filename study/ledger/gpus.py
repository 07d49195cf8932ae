"""GPUs used by a study's trials, from the journal or, without an entry there, from the plan."""

from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan


def gpus_used(plan: StudyPlan, ledger: StudyLedger, *, at: float | None = None) -> float:
    """Return the GPUs per trial in a study run; 0 for trials on CPUs.

    Args:
        plan: recorded study plan.
        ledger: study ledger.
        at: time within the run, in seconds since 1970. Default: the latest run.
    """
    for since, per_trial in reversed(ledger.gpus_by_time):
        if at is None or since <= at:
            return per_trial
    return plan.gpus_per_trial if not isinstance(plan.gpus_per_trial, str) else 0.0
