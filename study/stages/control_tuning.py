"""The temperature of the control `kd`, tuned on the validation split before a confirmation compares with it.

A search that tunes an adapter and then beats distillation at a default temperature has shown what tuning does. So `kd`
has a small search of its own: a grid over the range in which the spaces search temperatures, on the seeds on which the
control ran anyway, so that temperatures are compared by seed.
"""

import numpy as np

from study.ledger.ledger import StudyLedger, by_config
from study.plan.control_tuning import tuned_configs
from trainables.spec.trial import TrialConfig


def best_of_tuned(ledger: StudyLedger) -> tuple[TrialConfig, float] | None:
    """The best config by its mean over the seeds, and that mean; None where nothing was tuned.

    One that failed on a seed is left out, and so is one that did not run on all of them; of equals the first is best,
    which is the control as it is.
    """
    entries, found = by_config((*ledger.in_stage("control"), *ledger.in_stage("tune"))), []
    for config in tuned_configs(ledger.plan):
        own = entries.get(config.config_id, [])
        if len(own) >= ledger.plan.replicates and all(entry.status == "finished" for entry in own):
            found.append((config, float(np.mean([entry.score for entry in own]))))
    if len(found) < 2:
        return None
    return max(found, key=lambda each: each[1])
