"""Choice of promising searched configs, to be repeated on fresh seeds."""

from collections.abc import Sequence
from typing import Protocol

from study.ledger.front import Measured, eligible
from study.plan.plan import StudyPlan
from study.plan.stages import Stage
from trainables.spec.trial import TrialConfig


class Trial(Measured, Protocol):
    """Study trial with the attributes needed here; implemented by `study.ledger.entry.TrialEntry`."""

    replicate: int
    ordinal: int

    @property
    def search(self) -> str | None:
        """Search name, if recorded."""

    @property
    def score(self) -> float:
        """Objective value at the last epoch."""


class Trials(Protocol):
    """Trials of a study; implemented by `study.ledger.ledger.StudyLedger`."""

    plan: StudyPlan

    def in_stage(self, stage: Stage, /) -> Sequence[Trial]:
        """Return the trials of a stage, oldest first."""


def promising_configs(ledger: Trials) -> list[TrialConfig]:
    """Return the best finished configs of each search, best first and without duplicates.

    With several objectives or limits, they are the best configs on the front (`study.ledger.front`) by the dataset's
    objective.

    If a config's repetition has started, the config stays in the list even if later results are better. Better results
    may appear because a failed trial can be retried.
    """
    plan, searched, on_front = ledger.plan, ledger.in_stage("search"), eligible(ledger)
    repeated = {entry.config.config_id: entry.config for entry in ledger.in_stage("replicate")}
    promising: dict[str, TrialConfig] = {}
    for search in plan.searches:
        own = [entry for entry in searched if plan.search_of(entry.config, entry.search) == search.name]
        finished = [
            entry
            for entry in own
            if entry.status == "finished" and (on_front is None or entry.config.config_id in on_front)
        ]
        best = sorted(finished, key=lambda entry: (-entry.score, entry.ordinal))
        distinct = {entry.config.config_id: entry.config for entry in reversed(best)}
        # Only the trials distinguish several searches of one method.
        alone = plan.searches_per_method == 1
        known = {key for key, config in repeated.items() if alone and plan.search_of(config) == search.name}
        chosen = {key: config for key, config in repeated.items() if key in known or key in distinct}
        chosen |= {entry.config.config_id: distinct[entry.config.config_id] for entry in best}
        promising |= dict(list(chosen.items())[: plan.promising])
    return list(promising.values())
