"""Mirror of the search in an Optuna journal file, written while the study runs, for optuna-dashboard.

The study never reads the mirror. Proposals come from memory, and a study is resumed from the study's own journal. The
mirror may therefore fail or lag by a second. The study does not wait for the mirror, and does not end if it fails.
Trials are matched by `trial_id`, so a resumed study continues in the same file. One file may hold many studies. A
single thread writes the mirror.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.tracking.delivery import first_line, gather

Put = Callable[[TrialEntry], None]

_SECONDS_TO_GATHER: Final = 1.0
# Longer than Optuna waits for a lock left by a killed process.
PATIENCE: Final = 45.0
_STATES: Final = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@contextmanager
def mirrored(plan: StudyPlan, warn: Callable[[str], None]) -> Iterator[Put]:
    """Yield a function for adding a trial's current state to the study's mirror. A no-op without a mirror.

    Args:
        plan: study plan.
        warn: called with the reason if the mirror fails.
    """
    if plan.optuna_storage is None:
        yield lambda _: None
        return
    mirror = StudyMirror(plan, plan.optuna_storage, warn=warn)
    try:
        yield mirror.put
    finally:
        mirror.close()


class StudyMirror:
    """Writer for a study's search trials to an Optuna journal file.

    Args:
        plan: study plan.
        path: journal file, created if missing. The file may hold other studies.
        warn: called once with a message if the file cannot be written.
        patience: maximum seconds to wait in `close` for a slow disk.
    """

    def __init__(self, plan: StudyPlan, path: Path, *, warn: Callable[[str], None], patience: float = PATIENCE) -> None:
        self._plan = plan
        self._path = path
        self._warn = warn
        self._patience = patience
        self._queue: queue.SimpleQueue[TrialEntry | None] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._write_all, name="optuna-mirror", daemon=True)
        self._thread.start()

    def put(self, entry: TrialEntry) -> None:
        """Queue a started, reported or ended trial without blocking. Only search trials are mirrored."""
        if entry.stage == "search" and not self._failed:
            self._queue.put(entry)

    def close(self) -> None:
        """Write the queued trials and stop the thread."""
        self._queue.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._report(f"writing takes longer than {self._patience:g} s")

    def _write_all(self) -> None:
        try:
            studies: dict[str, _MirroredSearch] = {}
            closing = False
            while not closing:
                entries, closing = gather(self._queue, _SECONDS_TO_GATHER)
                if entries and not studies:  # a study refused before the first trial leaves no file
                    studies = self._open()
                for entry in entries:
                    studies[self._plan.search_of(entry.config, entry.search)].write(entry)
        except Exception as error:  # no error in the mirror may end the study
            self._failed = True
            self._report(first_line(error))

    def _open(self) -> "dict[str, _MirroredSearch]":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(self._path)))
        return {search.name: _MirroredSearch(storage, self._plan, search.name) for search in self._plan.searches}

    def _report(self, why: str) -> None:
        self._warn(
            f"the mirror for optuna-dashboard cannot be written to {self._path} ({why}). The study continues without "
            "it; a resumed study writes the whole mirror to the file given by --optuna-storage"
        )


class _MirroredSearch:
    """One search in the mirror file.

    Args:
        storage: Optuna storage for the file.
        plan: study plan.
        search: search name, empty if the study has only one search.
    """

    def __init__(self, storage: JournalStorage, plan: StudyPlan, search: str) -> None:
        self._storage = storage
        self._study_id = _open_study(storage, plan, search)
        trials = storage.get_all_trials(self._study_id, deepcopy=False)
        self._known = {each.user_attrs["trial_id"]: each._trial_id for each in trials if "trial_id" in each.user_attrs}

    def write(self, entry: TrialEntry) -> None:
        """Update the file to a trial's current state. Existing values are kept."""
        status, scores = entry.status, entry.scores
        if entry.trial_id not in self._known:
            frozen = _frozen(entry, status, scores)
            self._known[entry.trial_id] = self._storage.create_new_trial(self._study_id, frozen)
            return
        number = self._known[entry.trial_id]
        there = self._storage.get_trial(number)
        if there.state.is_finished():
            return
        for epoch, accuracy in scores.items():
            if epoch not in there.intermediate_values:
                self._storage.set_trial_intermediate_value(number, epoch, accuracy)
        if status == "failed" and entry.error:
            self._storage.set_trial_user_attr(number, "error", entry.error)
        if status is not None:
            self._storage.set_trial_state_values(number, _STATES[status], _values(status, scores))


def _open_study(storage: JournalStorage, plan: StudyPlan, search: str) -> int:
    """Return the identifier of a search's study in the file, creating the study if missing."""
    wanted = f"{plan.name} {search}".strip()
    taken = {study.study_name: study for study in storage.get_all_studies()}
    if wanted in taken and taken[wanted].user_attrs.get("study_id") != plan.study_id:
        wanted = f"{wanted} {plan.study_id[:8]}"  # another study already has this name
    if wanted in taken:
        return taken[wanted]._study_id
    number = storage.create_new_study([StudyDirection.MAXIMIZE], wanted)
    facts = {
        "study_id": plan.study_id,
        "question": plan.search_space.question,
        "space": plan.space,
        "sampler": plan.sampler,
        "scheduler": plan.scheduler,
        "plan_digest": plan.digest,
    }
    for name, value in facts.items():
        storage.set_study_user_attr(number, name, value)
    # `Study.set_metric_names` would print an experimental warning.
    storage.set_study_system_attr(number, "study:metric_names", [plan.objective])
    return number


def _values(status: str, scores: dict[int, float]) -> list[float] | None:
    """Return an ended trial's final values for Optuna. A pruned trial gets the last value, as in `Study.tell`."""
    return [scores[max(scores)]] if status != "failed" and scores else None


def _frozen(entry: TrialEntry, status: str | None, scores: dict[int, float]) -> FrozenTrial:
    """Return a trial's current state without the sampler's own attributes."""
    assert entry.optuna is not None
    values: dict[str, Any] = {} if status is None else {"values": _values(status, scores)}
    frozen = optuna.trial.create_trial(
        state=TrialState.RUNNING if status is None else _STATES[status],
        params=entry.optuna["params"],
        distributions={name: json_to_distribution(each) for name, each in entry.optuna["distributions"].items()},
        user_attrs={
            "trial_id": entry.trial_id,
            "name": entry.name,
            "config_id": entry.config_id,
            "replicate": entry.replicate,
            **({"error": entry.error} if status == "failed" and entry.error else {}),
        },
        intermediate_values=scores,
        **values,
    )
    frozen.datetime_start = datetime.fromtimestamp(entry.started, UTC)
    if status is not None and entry.ended is not None:
        frozen.datetime_complete = datetime.fromtimestamp(entry.ended, UTC)
    return frozen
