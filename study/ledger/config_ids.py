"""Config identifiers in studies from earlier versions, which computed them differently.

In the first digest version, the records contain identifiers, but the journal does not. Records, results and MLflow runs
derived again from an old journal keep the recorded identifiers.
"""

import json
from collections.abc import Mapping

from study.plan.plan import StudyPlan
from study.records import recorded_config_ids
from trainables.spec.digest import DIGEST_VERSION
from trainables.spec.trial import SEED_FIELDS, TrialConfig


class ConfigIds:
    """Config identifiers in a study: the recorded one, or a computed one if none was recorded.

    Args:
        plan: study plan.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self._is_current = plan.digest_version == DIGEST_VERSION
        self._of_trials: Mapping[str, str] = {} if self._is_current else recorded_config_ids(plan.directory)
        self._of_configs: dict[str, str] = {}

    def of_trial(self, trial_id: str, config: TrialConfig) -> str:
        """Return the identifier of a trial's config."""
        if self._is_current:
            return config.config_id
        recorded = self._of_trials.get(trial_id)
        if recorded is None:
            return self.of_config(config)
        return self._of_configs.setdefault(_without_seeds(config), recorded)

    def of_config(self, config: TrialConfig) -> str:
        """Return a config identifier. Trials with this config and other seeds have the same identifier."""
        if self._is_current:
            return config.config_id
        return self._of_configs.get(_without_seeds(config), config.config_id)


def _without_seeds(config: TrialConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude=set(SEED_FIELDS)), sort_keys=True)
