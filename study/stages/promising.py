"""Choice of the promising configs of a search, which are repeated on fresh seeds."""

from study.ledger.ledger import StudyLedger
from trainables.spec.trial import TrialConfig


def promising_configs(ledger: StudyLedger) -> list[TrialConfig]:
    """Return the best finished configs of each search, best first and without duplicates.

    Configs with a repetition already started stay in the list even if later results are better. Better results may
    appear because a failed trial can be retried.
    """
    repeated = {entry.config.config_id: entry.config for entry in ledger.in_stage("replicate")}
    promising: list[TrialConfig] = []
    for search in ledger.plan.searches:
        own = [entry for entry in ledger.in_stage("search") if ledger.plan.search_of(entry.config) == search.name]
        finished = [entry for entry in own if entry.status == "finished"]
        best = sorted(finished, key=lambda entry: (-entry.score, entry.ordinal))
        distinct = {entry.config.config_id: entry.config for entry in reversed(best)}
        chosen = {key: config for key, config in repeated.items() if ledger.plan.search_of(config) == search.name}
        chosen |= {entry.config.config_id: distinct[entry.config.config_id] for entry in best}
        promising += list(chosen.values())[: ledger.plan.promising]
    return promising
