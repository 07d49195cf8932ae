"""Choice of the best temperature for the control `kd`. `study.plan.control_tuning` gives the reason for tuning."""

import numpy as np

from study.ledger.entry import by_config
from study.ledger.ledger import StudyLedger
from study.plan.control_tuning import tuned_configs
from trainables.spec.trial import TrialConfig


def best_of_tuned(ledger: StudyLedger, student: str) -> tuple[TrialConfig, float] | None:
    """Return a student's config with the highest mean score over seeds, and the mean. None if nothing was tuned.

    Configs that failed on a seed or did not run on all seeds are left out. The first config wins ties: the control at
    the original temperature.
    """
    entries, found = by_config((*ledger.in_stage("control"), *ledger.in_stage("tune"))), []
    for config in tuned_configs(ledger.plan, student):
        # Repetitions added because of results are left out: other temperatures have none.
        own = [each for each in entries.get(config.config_id, []) if each.replicate <= ledger.plan.sure_replicates]
        if len(own) >= ledger.plan.sure_replicates and all(entry.status == "finished" for entry in own):
            found.append((config, float(np.mean([entry.score for entry in own]))))
    if len(found) < 2:
        return None
    return max(found, key=lambda each: each[1])
