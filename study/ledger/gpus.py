"""GPUs that the trials of a study used, from the journal or, without an entry there, from the plan."""

from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan


def gpus_used(plan: StudyPlan, ledger: StudyLedger) -> float:
    """Return the GPUs per trial of the latest run of a study; 0 for trials on CPUs.

    Args:
        plan: plan of the study, as recorded.
        ledger: study ledger.
    """
    if ledger.gpus is not None:
        return float(ledger.gpus["per_trial"])
    return plan.gpus_per_trial if not isinstance(plan.gpus_per_trial, str) else 0.0
