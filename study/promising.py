"""Which configs of a search are promising: what is repeated on fresh seeds."""

from typing import TYPE_CHECKING

from trainables.trial import TrialConfig

if TYPE_CHECKING:
    from study.ledger import StudyLedger


def promising_configs(ledger: "StudyLedger") -> list[TrialConfig]:
    """The configs of each search that finished best, best first, each once."""
    promising: list[TrialConfig] = []
    for search in ledger.plan.searches:
        own = [entry for entry in ledger.in_stage("search") if ledger.plan.search_of(entry.config) == search.name]
        finished = [entry for entry in own if entry.status == "finished"]
        best = sorted(finished, key=lambda entry: (-entry.score, entry.ordinal))
        distinct = {entry.config.config_id: entry.config for entry in reversed(best)}
        ranked = dict.fromkeys(entry.config.config_id for entry in best)
        promising += [distinct[config_id] for config_id in list(ranked)[: ledger.plan.promising]]
    return promising
