"""Search algorithm for handing out all trials of a study, stage by stage, for every executor and without Ray.

A trial stopped early is reported to Optuna in a state used by the sampler (see `study.search.samplers`), and a failed
trial as FAIL. The search is rebuilt from the study's ledger. The search is only one stage of a study. Further stages
are the controls, fresh seeds for the best configs, tuning of the control `kd`, and the confirmation.

A comparison may search each method with a separate sampler, or have no search at all. The confirmation runs only if the
plan requests one. Configs are chosen after all other trials have ended, and only confirmation trials read the test
split.

Controls start while the last search trials are still running, so no core is idle.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from study.ledger.budget import search_targets, searched_in_all
from study.ledger.entry import PROCESS_DIED, Status, TrialEntry
from study.ledger.events import first_error_line
from study.ledger.ledger import StudyLedger
from study.ledger.promising import promising_configs
from study.ledger.students import keeps_student, student_path
from study.plan.control_tuning import tuning_trials
from study.plan.methods import Search
from study.plan.stages import PlannedTrial
from study.search.cma_state import UntrustedStateError, trusted_attributes
from study.search.objectives import OptunaOutcome, attributes_of, create_optuna_study, outcome_of
from study.search.packs import Upcoming, independent_proposals
from study.search.proposals import proposed_point
from study.search.samplers import make_sampler
from study.search.warm_start import optuna_trials
from trainables.process.errors import StudyError
from trainables.spec.trial import TrialConfig, derive_seed

# Optuna's line per config would hide the study's own progress.
optuna.logging.set_verbosity(optuna.logging.WARNING)

WORKER_RESTARTS: Final = 3
# Return value of `StudySearch.suggest` if no trial is left. Equal to the value expected by Ray Tune.
FINISHED: Final = "FINISHED"


class StudySearch:
    """Search algorithm: hand trials to an executor, and report results of search trials to Optuna.

    Args:
        ledger: study ledger. Unfinished trials are handed out first.
        trial_settings: further values needed by every trial, passed to the trainable unchanged.
        checkpoints: returns an unfinished trial's checkpoints for resuming, newest first.
        slots: returns the number of trials that fit at once. For a trial handed out too early, Tune would start a new
            process and end the free process with everything loaded. This costs a second per trial.
        cluster_is_lost: returns whether the whole cluster is gone, not just the process of one trial.
        blames_node: returns whether a process may just have died because of an unusable node. Such a death does not
            count.

    Attributes:
        metric: name of the measure to maximise.
    """

    def __init__(
        self,
        ledger: StudyLedger,
        trial_settings: dict[str, Any],
        checkpoints: Callable[[TrialEntry], Sequence[Any]] = lambda _: [],
        slots: Callable[[], int] = lambda: 1_000_000,
        cluster_is_lost: Callable[[], bool] = lambda: False,
        blames_node: Callable[[], bool] = lambda: False,
    ) -> None:
        plan = ledger.plan
        self.metric = plan.objective
        self._plan = plan
        self._ledger = ledger
        self._trial_settings = trial_settings
        self._checkpoints = checkpoints
        self._slots = slots
        self._cluster_is_lost = cluster_is_lost
        self._blames_node = blames_node
        self._trial_ids: dict[str, str] = {}  # by the executor's identifier
        self._running: set[str] = set()
        self._optuna_trials: dict[str, optuna.trial.Trial] = {}
        self._to_resume = ledger.unfinished
        self._controls = _not_begun(plan.control_trials(), ledger.in_stage("control"))
        self._to_repeat: deque[PlannedTrial] | None = None
        self._deaths: Counter[str] = Counter()
        self._lives: Counter[str] = Counter()  # processes that ended, including those that do not count as deaths
        self._given_up: dict[str, str] = {}
        self._returned: set[str] = set()
        self._to_tune: deque[PlannedTrial] | None = None
        self._to_confirm: deque[PlannedTrial] | None = None
        self._searches = plan.searches
        self._studies: dict[str, optuna.Study] = {search.name: create_optuna_study(plan) for search in self._searches}
        # Some samplers keep state in study attributes. Changed attributes are recorded with the next trial.
        self._study_attrs: dict[str, dict[str, Any]] = {search.name: {} for search in self._searches}
        self._earlier: list[FrozenTrial] = []
        if plan.warm_start:
            (search,) = self._searches
            self._earlier = optuna_trials(plan, search, ledger.deployment)
            self._studies[search.name].add_trials(self._earlier)
        self._proposed = Counter(entry.config.config_id for entry in ledger.in_stage("search"))
        for entry in ledger.in_stage("search"):
            try:
                self._restore_optuna_trial(entry)
            except UntrustedStateError as error:
                raise StudyError(
                    f"{plan.directory / 'journal.jsonl'}: the sampler state of trial {entry.trial_id} is not a valid "
                    f"CMA-ES state: {error}. None of it was executed, and nothing was changed. Resume the study from "
                    "an intact copy of its journal, or start a new study under another name"
                ) from None
            except Exception as error:  # errors by Optuna, or by Python for an invalid distribution
                raise StudyError(
                    f"{plan.directory / 'journal.jsonl'}: the sampler's proposal for trial {entry.trial_id} cannot be "
                    f"read ({type(error).__name__}: {first_error_line(error)}): restore the file from a copy"
                ) from error

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna study for the search, if there is only one search."""
        (study,) = self._studies.values()
        return study

    @property
    def has_more(self) -> bool:
        """Whether trials remain to be handed out, now or later."""
        return bool(self._to_resume) or self._next_search() is not None or self._next_planned() != FINISHED

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the settings of the next trial, None to wait for a slot or for other trials, or `FINISHED`.

        The search is not finished while a trial runs, because the trial may need a restart. A failed write to the
        journal ends the study, and `StudyLedger.failure` holds the error.

        Args:
            trial_id: the executor's identifier of the trial.
        """
        if self._ledger.failure is not None:
            return FINISHED
        if len(self._running) >= self._slots():
            return None
        try:
            following = self._following(trial_id)
        except OSError:
            if self._ledger.failure is None:
                raise
            return FINISHED
        return None if following == FINISHED and self._running else following

    def upcoming(self) -> Upcoming | None:
        """Return which trials `suggest` hands out next, whatever other trials report meanwhile; None if none now."""
        if self._to_resume:
            first = self._to_resume[0]
            together = [each for each in self._to_resume if each is first or (first.pack and each.pack == first.pack)]
            self._to_resume = [*together, *(each for each in self._to_resume if each not in together)]
            return Upcoming("resumed", 0, len(together), first.pack)
        search = self._next_search()
        if search is not None:
            searched = self._ledger.in_stage("search")
            left = searched_in_all(self._plan, searched) - len(searched)
            free = max(1, min(left, independent_proposals(self._plan) - len(searched)))
            return Upcoming("search", len(searched), free, left=left)
        planned = self._next_planned()
        if not isinstance(planned, PlannedTrial):
            return None
        queues = (self._controls, self._to_repeat, self._to_tune, self._to_confirm)
        queue = next(each for each in queues if each and each[0] is planned)
        waiting = [each for each in queue if each.stage == planned.stage]
        methods = len({each.config.method for each in waiting})
        return Upcoming(planned.stage, len(self._ledger.in_stage(planned.stage)), len(waiting), kinds=methods)

    def _following(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._to_resume:
            entry = self._to_resume.pop(0)
            # If the journal has lost epochs of the trial, resuming from a checkpoint would skip the lost epochs.
            checkpoints = [] if entry.gaps else self._checkpoints(entry)
            again = {"checkpoints": checkpoints, "life": self._lives[entry.trial_id]}
            return {**self._start_trial(trial_id, entry), **again}
        search = self._next_search()
        if search is not None:
            return self._start_trial(trial_id, self._open_search_trial(*search))
        planned = self._next_planned()
        if isinstance(planned, PlannedTrial):
            entry = self._ledger.open_trial(planned.stage, planned.config, planned.replicate)
            return self._start_trial(trial_id, entry)
        return planned

    def _start_trial(self, executor_id: str, entry: TrialEntry) -> dict[str, Any]:
        self._trial_ids[executor_id] = entry.trial_id
        self._running.add(executor_id)
        return self.settings_of(entry)

    def settings_of(self, entry: TrialEntry) -> dict[str, Any]:
        """Return the settings of a trial that starts from the beginning."""
        return {
            "trial_id": entry.trial_id,
            "stage": entry.stage,
            "reads_test": entry.stage == "confirm",
            "student_path": self._student_path(entry),
            "checkpoints": [],
            "life": 0,
            "config": entry.config.model_dump(mode="json"),
            **self._trial_settings,
        }

    def _student_path(self, entry: TrialEntry) -> str | None:
        """Return the path for saving a trial's student, or None.

        Only students with a chosen config are saved, in a confirmation.
        """
        if not keeps_student(self._ledger, entry):
            return None
        return str(student_path(self._plan, entry.trial_id).absolute())

    def _next_search(self) -> tuple[Search, int] | None:
        """Return the search for the next proposal, and the search's number of proposals so far, or None.

        None means: no search may propose now. Searches take turns, so an interrupted study has tuned all methods
        equally.
        """
        searched = self._ledger.in_stage("search")
        if self._plan.budget == "trials":
            number, turn = divmod(len(searched), max(1, len(self._searches)))
            return (self._searches[turn], number) if len(searched) < searched_in_all(self._plan, searched) else None
        targets = search_targets(self._plan, searched)
        begun = Counter(self._plan.search_of(entry.config, entry.search) for entry in searched)
        able = [each for each in self._searches if begun[each.name] < (targets[each.name] or 0)]
        least = min(able, key=lambda each: begun[each.name], default=None)
        return None if least is None else (least, begun[least.name])

    def _open_search_trial(self, search: Search, number: int) -> TrialEntry:
        study, known_attrs = self._studies[search.name], self._study_attrs[search.name]
        seed = derive_seed(self._plan.seed, "search", search.number) if search.number else self._plan.seed
        study.sampler = make_sampler(self._plan.sampler, study_seed=seed, number=number, earlier=self._earlier)
        point = proposed_point(self._plan, search, number, seed)
        if point:
            study.enqueue_trial(point)
        trial = study.ask()
        config = self._plan.configure(search.suggest(trial))
        replicate = self._replicate_for(config, search.number)
        frozen = study._storage.get_trial(trial._trial_id)
        study_attrs = study._storage.get_study_system_attrs(study._study_id)
        entry = self._ledger.open_trial(
            "search",
            config.with_seeds(self._plan.seed, replicate, paired=False),
            replicate,
            optuna={
                "params": frozen.params,
                "distributions": {k: distribution_to_json(d) for k, d in frozen.distributions.items()},
                "system_attrs": frozen.system_attrs,
                "study_attrs": {k: v for k, v in study_attrs.items() if known_attrs.get(k) != v},
                **({"search": search.name} if self._plan.searches_per_method > 1 else {}),
            },
        )
        self._study_attrs[search.name] = dict(study_attrs)
        self._optuna_trials[entry.trial_id] = trial
        self._proposed[entry.config.config_id] += 1
        return entry

    def _replicate_for(self, config: TrialConfig, search: int) -> int:
        """Return a proposal's replicate number.

        The first search has replicate number 0. Each further search of a method has a different number, and thus other
        batches. A repeated proposal has the next free number, because new seeds add information.
        """
        earlier = self._proposed[config.config_id]
        if search:
            return self._plan.replicates + (1 + search) * self._plan.trials * self._plan.searches_per_method + earlier
        return self._plan.replicates + earlier if earlier else 0

    def _next_planned(self) -> PlannedTrial | str | None:
        planned = _first_not_begun(self._controls, self._ledger.in_stage("control"))
        if planned is not None:
            return planned
        if self._plan.replicates_detect is not None:
            following = self._next_repetition()
            return self._next_confirmed() if following == FINISHED else following
        if self._to_repeat is None:
            if any(entry.status is None for entry in self._ledger.in_stage("search")):
                return None
            promising = promising_configs(self._ledger)
            self._to_repeat = _not_begun(
                (
                    PlannedTrial("replicate", config.with_seeds(self._plan.seed, replicate), replicate)
                    for replicate in range(1, self._plan.replicates + 1)
                    for config in promising
                ),
                self._ledger.in_stage("replicate"),
            )
        return _first_not_begun(self._to_repeat, self._ledger.in_stage("replicate")) or self._next_confirmed()

    def _next_repetition(self) -> PlannedTrial | str | None:
        """Return the next due repetition in a study that adds repetitions.

        All trials up to an interim look must end before this look.
        """
        begun = [*self._ledger.in_stage("control"), *self._ledger.in_stage("replicate")]
        self._to_repeat = _not_begun(self._to_repeat or (), begun)
        if self._to_repeat:
            return self._to_repeat[0]
        progress = self._ledger.repetition_progress
        if progress is None:  # the search still runs
            return None
        self._to_repeat = _not_begun(progress.due, begun)
        return self._to_repeat[0] if self._to_repeat else FINISHED if progress.complete else None

    def _next_confirmed(self) -> PlannedTrial | str | None:
        if self._ledger.confirmation is None and self._plan.confirmation is not None:
            tuned = self._ledger.in_stage("tune")
            if self._to_tune is None:
                self._to_tune = _not_begun(tuning_trials(self._plan), tuned)
            following = _first_not_begun(self._to_tune, tuned)
            if following is not None:
                return following
            if self._ledger.unfinished:  # the choice needs the results of all trials
                return None
            from study.stages.choosing import choose  # SciPy takes a second to import

            chosen = choose(self._ledger)
            if chosen is not None:
                self._ledger.record_confirmation(chosen)
        if self._ledger.confirmation is None:
            return FINISHED
        begun = self._ledger.in_stage("confirm")
        if self._ledger.confirmation.request.detect is not None:
            return self._next_of_sequential(begun)
        if self._to_confirm is None:
            self._to_confirm = _not_begun(self._ledger.confirmation.trials(self._plan.seed), begun)
        return _first_not_begun(self._to_confirm, begun) or FINISHED

    def _next_of_sequential(self, begun: list[TrialEntry]) -> PlannedTrial | str | None:
        """Return the next due trial. All trials up to an interim look must end before this look."""
        planned = _first_not_begun(self._to_confirm, begun) if self._to_confirm else None
        if planned is not None:
            return planned
        progress = self._ledger.confirm_progress
        assert progress is not None
        self._to_confirm = _not_begun(progress.due, begun)
        return self._to_confirm[0] if self._to_confirm else FINISHED if progress.complete else None

    def give_up(self, trial_id: str, reason: str) -> None:
        """Mark a trial as terminated from outside, with a reason. The trial then fails and is not restarted."""
        self._given_up[trial_id] = reason

    def was_returned(self, trial_id: str) -> None:
        """Note that a node returns a trial with a checkpoint, because the node is being taken away.

        The end of the process then does not count as a death.
        """
        self._returned.add(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record how a trial ended, and report search trials to Optuna.

        If a trial's process died, the trial restarts from the newest complete checkpoint, as in a resumed study. A
        trial restarts at most `WORKER_RESTARTS` times. Tune's own restart is not used: Tune loses a trial when the
        process dies between two trials, and unpickles files next to a checkpoint.
        """
        self._running.discard(trial_id)
        entry = self._ledger.entries[self._trial_ids[trial_id]]
        status, message = _status_of(result)
        if error and entry.status is None:
            if self._cluster_is_lost():  # not a trial failure: the trial continues at the next resume
                return
            message = self._given_up.pop(entry.trial_id, None)
            self._lives[entry.trial_id] += 1
            was_returned = entry.trial_id in self._returned
            self._returned.discard(entry.trial_id)
            if message is not None or not (was_returned or self._blames_node()):
                self._deaths[entry.trial_id] += 1
            if message is None and self._deaths[entry.trial_id] <= WORKER_RESTARTS:
                self._to_resume.append(entry)
                return
            status, message = "failed", message or PROCESS_DIED
        if status is None:
            return
        try:
            self._ledger.end_trial(entry.trial_id, status, message)
        except OSError:
            if self._ledger.failure is None:
                raise
            return
        trial = self._optuna_trials.pop(entry.trial_id, None)
        if trial is not None:
            outcome = outcome_of(self._plan, entry)
            for epoch, score in outcome.reported.items():
                trial.report(score, epoch)
            for name, excess in outcome.constraints.items():
                trial.set_constraint(name, excess)
            # Optuna accepts no value for a pruned trial, and uses the last reported one.
            trial.study.tell(
                trial, outcome.values if outcome.state == TrialState.COMPLETE else None, state=outcome.state
            )

    def _restore_optuna_trial(self, entry: TrialEntry) -> None:
        assert entry.optuna is not None
        name, saved = self._plan.search_of(entry.config, entry.search), entry.optuna
        study = self._studies[name]
        outcome = (
            OptunaOutcome(TrialState.RUNNING, None, {}, {}) if entry.status is None else outcome_of(self._plan, entry)
        )
        ended = outcome.state.is_finished()
        frozen: FrozenTrial = optuna.trial.create_trial(
            state=outcome.state,
            values=outcome.values,
            params=saved["params"],
            distributions={k: json_to_distribution(d) for k, d in saved["distributions"].items()},
            # Optuna unpickles one of the saved attributes.
            system_attrs={**trusted_attributes(saved["system_attrs"]), **attributes_of(outcome.constraints)},
            intermediate_values=dict(outcome.reported),
        )
        study.add_trial(frozen)
        for key, attribute in saved["study_attrs"].items():
            study._storage.set_study_system_attr(study._study_id, key, attribute)
        self._study_attrs[name].update(saved["study_attrs"])
        if not ended:
            number = len(study.get_trials(deepcopy=False)) - 1
            trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
            self._optuna_trials[entry.trial_id] = optuna.trial.Trial(study, trial_id)


def _not_begun(planned: Iterable[PlannedTrial], begun: list[TrialEntry]) -> deque[PlannedTrial]:
    """Return a stage's planned trials that have not started.

    Trials are matched by config and replicate, not counted, because the journal may have lost some.
    """
    known = {_identity(entry) for entry in begun}
    return deque(each for each in planned if (each.config.config_id, each.replicate) not in known)


def _first_not_begun(waiting: deque[PlannedTrial], begun: list[TrialEntry]) -> PlannedTrial | None:
    """Return a stage's next planned trial, after removing the last started trial."""
    if waiting and begun and (waiting[0].config.config_id, waiting[0].replicate) == _identity(begun[-1]):
        waiting.popleft()
    return waiting[0] if waiting else None


def _identity(entry: TrialEntry) -> tuple[str, int]:
    return entry.config.config_id, entry.replicate


def _status_of(result: dict[str, Any] | None) -> tuple[Status | None, str | None]:
    if not result or "finished" not in result:
        return None, None
    if result.get("failed"):
        return "failed", str(result["failed"])
    return ("finished" if result["finished"] else "pruned"), None
