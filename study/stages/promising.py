"""Which configs of a search are promising: what is repeated on fresh seeds."""

from study.ledger.ledger import StudyLedger
from trainables.spec.trial import TrialConfig


def promising_configs(ledger: StudyLedger) -> list[TrialConfig]:
    """The configs of each search that finished best, best first, each once.

    Those whose repetition has begun stay chosen, whatever is found out later: a trial that failed may be run again.
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
