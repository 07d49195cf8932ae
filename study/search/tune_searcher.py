"""A study's search behind Ray Tune's interface."""

import json
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from study.search.searcher import FINISHED, StudySearch

assert FINISHED == Searcher.FINISHED


class TuneSearcher(Searcher):
    """Ray Tune search algorithm, forwarding to a `StudySearch`.

    Args:
        search: the search.
    """

    def __init__(self, search: StudySearch) -> None:
        super().__init__(metric=search.metric, mode="max")
        self._search = search

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """Return the next trial, None to wait, or `FINISHED`."""
        return self._search.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing. `StudyCallback` records results, and Optuna receives them when the trial ends."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record how a trial ended; see `StudySearch.on_trial_complete`."""
        self._search.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Write a placeholder file, because Tune requires one. The ledger holds the search state."""
        Path(checkpoint_path).write_text(json.dumps({"see": "journal.jsonl"}), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Raise an error, because a search is rebuilt from the ledger.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a study is resumed from its journal")

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher into a snapshot. The snapshot must not contain the journal and is never used.
        return {}
