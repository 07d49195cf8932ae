"""In-memory state of a study's trials, backed by the journal. Every change is written to the journal first.

A resumed study starts from the ledger, not from Ray's snapshot. When a driver is killed, Ray's snapshot can be ten
seconds old, and later trials come back under new names. The journal is always current, and each trial keeps one
identifier.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from study.ledger.budget import searched_in_all
from study.ledger.config_ids import ConfigIds
from study.ledger.confirmation import Confirmation
from study.ledger.damage import describe_damage, describe_unreadable
from study.ledger.entry import Status, TrialEntry, trial_name, with_shared_names
from study.ledger.events import fault_of, first_error_line, ordinal_in
from study.ledger.journal import Journal, read_lines
from study.ledger.repetitions import find_repetition_progress
from study.ledger.sequential import Progress, find_progress
from study.plan.folder import recorded_name
from study.plan.plan import StudyPlan
from study.plan.size import confirm_trials
from study.plan.stages import Stage
from trainables.process.errors import StudyError
from trainables.spec.trial import TrialConfig

_TICK: Final = 1e-6  # seconds; representable in a float64 timestamp
_STAGES: Final[tuple[Stage, ...]] = ("search", "control", "replicate", "tune", "confirm")


class StudyLedger:
    """All trials of one study, oldest first.

    Args:
        plan: study plan.
        on_end: called with each ended trial.
        read_only: whether to open the journal only for reading. A read-only ledger cannot record events.
        sets_aside: whether to accept a journal without any readable line, which is then moved away. Otherwise, this is
            an error.

    Raises:
        StudyError: the journal cannot be read, belongs to another study, or has lost the confirmation's choice.

    Attributes:
        confirmation: the confirmation, once chosen.
        dataset: data digest and number of samples per split, once reported by a trial.
        deployment: `DEPLOY_FACTS` of each measured student, by architecture.
        gpus: `per_trial` is the number of GPUs per trial in the latest run. `gpus` is the number of GPUs on the nodes,
            `idle` the number left unused by the trials. `words` is text for the user. None if nothing is recorded, as
            for a study without GPUs.
        gpus_by_time: time and GPUs per trial of each run with another number than before, oldest first.
        damage: reason for each skipped journal line, by line number from 1.
        is_unreadable: whether no journal line can be read, so the journal must be moved away.
        incomplete: identifiers of ended trials to run again, because the journal has lost some epochs.
        first_unreserved: lowest trial number not reserved by set-aside records. Trials with lower numbers may exist
            only in those records or in MLflow.
        failure: error from a failed journal write. A study ends after a write error.
    """

    def __init__(
        self,
        plan: StudyPlan,
        on_end: Callable[[TrialEntry], None] | None = None,
        *,
        read_only: bool = False,
        sets_aside: bool = False,
    ) -> None:
        self.plan = plan
        self.confirmation: Confirmation | None = None
        self.entries: dict[str, TrialEntry] = {}
        self.ended = 0
        self.teacher_forwards_ahead = 0
        self.dataset: dict[str, Any] | None = None
        self.deployment: dict[str, dict[str, float]] = {}
        self.gpus: dict[str, Any] | None = None
        self.gpus_by_time: list[tuple[float, float]] = []
        self._stages: dict[Stage, list[TrialEntry]] = {stage: [] for stage in _STAGES}
        self._config_ids = ConfigIds(plan)
        self._config_ids_by_name: dict[str, dict[str, int]] = {}  # readable name -> config identifier -> position
        self._several_students = len(plan.students) > 1
        self._next_ordinal = 0
        self.first_unreserved = 0
        self._now = 0.0
        self._prefix: str | None = None  # trial identifiers begin with the study's original name
        self._is_signed = False
        self.damage: dict[int, str] = {}
        self.is_unreadable = False
        self.incomplete: list[str] = []
        self.failure: OSError | None = None
        self._repetition_progress: tuple[tuple[Status | None, ...], Progress | None] | None = None
        self._confirm_progress: tuple[tuple[Status | None, ...], Progress] | None = None
        self._on_end = on_end
        self._path = plan.directory / "journal.jsonl"
        if self._path.exists():
            self._load()
            if self.is_unreadable and not sets_aside:
                raise StudyError(describe_unreadable(self.plan, self.damage))
            check_journal(self)
        self._journal = None if read_only else Journal(self._path)

    @property
    def damaged_lines(self) -> list[int]:
        """Numbers of skipped journal lines, from 1."""
        return sorted(self.damage)

    def describe_damage(self) -> str | None:
        """Return a description of the journal's damage for the user, or None for an intact journal."""
        return describe_damage(self.damage, self.entries.values())

    def begin_writing(self) -> None:
        """Open the journal for writing. If the study identifier is missing, record it.

        Raises:
            StudyError: the journal cannot be written.
        """
        if self._journal is None:
            try:
                self._journal = Journal(self._path)
            except OSError as error:
                raise StudyError(f"{self._path} cannot be written ({error.strerror}): fix this first") from error
        if not self._is_signed:
            self._append({"event": "study", "study_id": self.plan.study_id, "name": self.plan.name}, durable=True)
            self._is_signed = True

    def _load(self) -> None:
        events = 0
        try:
            for number, event in read_lines(self._path):
                fault = "wrong checksum" if event is None else fault_of(event) or self._enter_event(event)
                events += fault is None
                if fault is not None:
                    self.damage[number] = fault
        except OSError as error:
            raise StudyError(f"{self._path} cannot be read ({error.strerror}): restore it from a copy") from error
        self.is_unreadable = bool(self.damage) and not events
        if self.confirmation is not None:
            self.confirmation = self.confirmation.with_ids(self._config_ids.of_config)
        for entry in self.entries.values():
            if entry.status in ("finished", "pruned") and entry.gaps:
                self.ended -= 1
                entry.status = entry.error = entry.ended = None  # the attempt number stays: the trial did not fail
                self.incomplete.append(entry.trial_id)

    def _enter_event(self, event: dict[str, Any]) -> str | None:
        """Apply an event that passed `fault_of`. Return why it contradicts earlier events, or None."""
        kind, trial_id = event["event"], event.get("trial_id")
        if kind == "study":
            self._check_owner(event)
        elif kind == "fill":
            self.teacher_forwards_ahead += event["forwards"]
        elif kind == "pack":
            return self._enter_pack(event["trials"])
        elif kind == "dataset":
            self.dataset = event["dataset"]
        elif kind == "deployment":
            self._enter_deployment(event["student"], event["facts"])
        elif kind == "gpus":
            self._enter_gpus(event["gpus"], event["time"])
        elif kind == "confirmation":
            return self._enter_confirmation(event["confirmation"])
        elif kind == "set_aside":
            self._enter_set_aside(event)
        else:
            assert isinstance(trial_id, str)
            if (fault := self._check_prefix(trial_id)) is not None:
                return fault
            self._next_ordinal = max(self._next_ordinal, ordinal_in(trial_id) + 1)  # even if the first line is lost
            fault = self._enter_trial(event) if kind == "trial" else self._enter_event_of(trial_id, event)
            if fault is not None:
                return fault
        self._now = max(self._now, *(event.get(name) or 0.0 for name in ("time", "started")))
        return None

    def _check_owner(self, event: dict[str, Any]) -> None:
        if event["study_id"] != self.plan.study_id:
            raise StudyError(
                f"{self._path} is the journal of another study ({event['name']!r}, id {event['study_id'][:8]}; this "
                f"study has id {self.plan.study_id[:8]}): restore this study's journal from a copy"
            )
        self._is_signed = True

    def _check_prefix(self, trial_id: str) -> str | None:
        """Check that a trial identifier starts with this study's name. Return the fault, or None.

        Journals from earlier versions have no study identifier, so the name is the only sign of ownership.

        Raises:
            StudyError: the journal belongs to another study.
        """
        prefix = trial_id.rpartition("-")[0]
        if self._prefix is None:
            if not self._is_signed and prefix not in (self.plan.name, recorded_name(self.plan.directory)):
                raise StudyError(
                    f"{self._path} is the journal of another study: it contains trial {trial_id}, but this study is "
                    f"{self.plan.name!r}. Restore this study's journal from a copy"
                )
            self._prefix = prefix
        return None if prefix == self._prefix else f"{trial_id} belongs to another study"

    def _enter_confirmation(self, content: dict[str, Any]) -> str | None:
        try:
            confirmation = Confirmation(**content)
        except (TypeError, ValueError) as error:
            return f"confirmation: {first_error_line(error)}"
        if self.confirmation is not None and confirmation != self.confirmation:
            return "confirmation: differs from the one chosen before"
        if confirmation.first_replicate < 1 or not confirmation.choices:
            return "confirmation: no seed or no config"
        self.confirmation = confirmation
        return None

    def _enter_trial(self, event: dict[str, Any]) -> str | None:
        fields = {k: v for k, v in event.items() if k not in ("event", "config")}
        try:
            config = TrialConfig(**event["config"])
            fields.setdefault("config_id", self._config_ids.of_trial(event["trial_id"], config))
            entry = TrialEntry(config=config, **fields)
        except (TypeError, ValueError) as error:
            return f"trial: {first_error_line(error)}"
        if entry.trial_id in self.entries:
            return f"trial {entry.trial_id} was started before"
        if ordinal_in(entry.trial_id) != entry.ordinal:
            return f"trial {entry.trial_id} has the wrong number {entry.ordinal}"
        if (entry.stage == "search") != (entry.optuna is not None):
            return f"trial {entry.trial_id} of stage {entry.stage} has {'a' if entry.optuna else 'no'} sampler proposal"
        self._enter(entry)
        return None

    def _enter_event_of(self, trial_id: str, event: dict[str, Any]) -> str | None:
        kind, entry = event["event"], self.entries.get(trial_id)
        if entry is None:
            return f"no earlier line starts trial {trial_id}"
        if kind == "epoch":
            return _enter_epoch(entry, event)
        if kind == "facts":
            entry.facts = {**event["facts"], **entry.facts}
        elif kind == "calibration":
            entry.calibration = event["calibration"]
        elif kind == "answers":
            entry.answers = event["answers"]
        elif kind == "end":
            self.ended += entry.status is None
            entry.status, entry.error, entry.ended = event["status"], event.get("error"), event["time"]
        elif kind == "retry":
            if entry.status in ("finished", "pruned"):
                return f"trial {trial_id} has not failed, so it cannot be retried"
            self._reopen(entry)
            entry.attempt = max(entry.attempt, event.get("attempt", 1))
        return None

    def _enter_pack(self, trial_ids: list[str]) -> str | None:
        unknown = next((trial_id for trial_id in trial_ids if trial_id not in self.entries), None)
        for trial_id in self.entries.keys() & set(trial_ids):
            self.entries[trial_id].pack = tuple(trial_ids)
        return None if unknown is None else f"pack: no earlier line starts trial {unknown}"

    def record_pack(self, trial_ids: Sequence[str]) -> None:
        """Record that trials train as one pack from beginning to end, before they begin."""
        self._append({"event": "pack", "trials": [*trial_ids]}, durable=True)
        self._enter_pack([*trial_ids])

    def _enter_set_aside(self, event: dict[str, Any]) -> None:
        self.first_unreserved = max(self.first_unreserved, event["next_ordinal"])
        self._next_ordinal = max(self._next_ordinal, event["next_ordinal"])
        for trial_id, attempt in event["again"].items():
            if trial_id in self.entries:
                self._reopen(self.entries[trial_id])
                self.entries[trial_id].attempt = max(self.entries[trial_id].attempt, attempt)

    def forget_unreadable(self) -> None:
        """Clear the recorded damage after an unreadable journal was moved away."""
        self.is_unreadable = False
        self.damage.clear()

    def set_aside(self, folder: str | None, next_ordinal: int, again: dict[str, int]) -> None:
        """Record that the records were moved away because the journal lacked some of them.

        Args:
            folder: current folder of the records, or None if there were none.
            next_ordinal: ordinal above all trials in the records, in MLflow and in the journal, so no name is reused.
            again: attempt number of each journal trial to run again, by trial identifier.
        """
        event = {"event": "set_aside", "time": self._time(), "next_ordinal": next_ordinal, "again": again}
        self._append(event if folder is None else {**event, "folder": folder}, durable=True)
        self._enter_set_aside(event)

    def open_trial(
        self, stage: Stage, config: TrialConfig, replicate: int, optuna: dict[str, Any] | None = None
    ) -> TrialEntry:
        """Record a new trial. The trial is on disk when this method returns."""
        ordinal = self._next_ordinal
        entry = TrialEntry(
            trial_id=f"{self._prefix or self.plan.name}-{ordinal:04d}",
            ordinal=ordinal,
            stage=stage,
            replicate=replicate,
            config=config,
            started=self._time(),
            optuna=optuna,
        )
        self._append(
            {
                "event": "trial",
                "trial_id": entry.trial_id,
                "ordinal": ordinal,
                "stage": stage,
                "replicate": replicate,
                "config": config.model_dump(mode="json"),
                "config_id": entry.config_id,
                "started": entry.started,
                "optuna": optuna,
            },
            durable=True,
        )
        self._enter(entry)
        return entry

    def _enter(self, entry: TrialEntry) -> None:
        self.entries[entry.trial_id] = entry
        entry.facts = {**entry.facts, **self.deployment.get(entry.config.student, {})}
        entry.names_epochs = entry.stage == "confirm" and entry.config.epochs != self.plan.base.epochs
        entry.names_student = self._several_students
        name = trial_name(entry.config, 0, names_epochs=entry.names_epochs, names_student=entry.names_student)
        config_ids = self._config_ids_by_name.setdefault(name, {})
        entry.namesakes = config_ids.setdefault(entry.config_id, len(config_ids))
        self._stages[entry.stage].append(entry)
        self._next_ordinal = max(self._next_ordinal, entry.ordinal + 1)

    def _time(self) -> float:
        """Return seconds since 1970, strictly increasing even if the clock is set back.

        Increasing times keep events in order and distinct. Identical journal lines would count once.
        """
        self._now = max(self._now + _TICK, time.time())
        return self._now

    def record_epoch(self, trial_id: str, epoch: int, measures: dict[str, float]) -> bool:
        """Record the measures at an epoch.

        Returns:
            False if the epoch is known, as after a restart from an older checkpoint, or if the trial has ended.
        """
        entry = self.entries[trial_id]
        if epoch in entry.epochs or entry.status is not None:
            return False
        now = self._time()
        self._append({"event": "epoch", "trial_id": trial_id, "epoch": epoch, "time": now, "measures": measures})
        entry.epochs[epoch] = with_shared_names(measures)
        entry.epoch_times[epoch] = now
        return True

    def record_facts(self, trial_id: str, facts: dict[str, float]) -> None:
        """Record cost facts and data facts of a trial, each once."""
        entry = self.entries[trial_id]
        new = {name: value for name, value in facts.items() if name not in entry.facts}
        if new and entry.status is None:
            self._append({"event": "facts", "trial_id": trial_id, "facts": new})
            entry.facts = {**entry.facts, **new}

    def record_dataset(self, dataset: dict[str, Any]) -> bool:
        """Record the study's dataset. Return False if there is nothing to record or the dataset is known."""
        if not dataset or self.dataset is not None:
            return False
        self._append({"event": "dataset", "dataset": dataset})
        self.dataset = dataset
        return True

    def record_deployment(self, student: str, facts: dict[str, float]) -> None:
        """Record `DEPLOY_FACTS` of a student architecture. They hold for all trials with this student."""
        event = {"event": "deployment", "student": student, "facts": facts, "time": self._time()}
        self._append(event, durable=True)
        self._enter_deployment(student, facts)

    def record_gpus(self, gpus: dict[str, Any]) -> None:
        """Record the GPUs used by trials in this run; see `study.running.gpus`."""
        now = self._time()
        self._append({"event": "gpus", "gpus": gpus, "time": now}, durable=True)
        self._enter_gpus(gpus, now)

    def _enter_gpus(self, gpus: dict[str, Any], now: float) -> None:
        self.gpus = gpus
        self.gpus_by_time.append((now, float(gpus["per_trial"])))

    def _enter_deployment(self, student: str, facts: dict[str, float]) -> None:
        self.deployment[student] = facts
        for entry in self.entries.values():
            if entry.config.student == student:
                entry.facts = {**entry.facts, **facts}

    def record_calibration(self, trial_id: str, calibration: dict[str, dict[str, list[float]]]) -> None:
        """Record the calibration bins of a trial's models, once."""
        entry = self.entries[trial_id]
        if calibration and not entry.calibration and entry.status is None:
            self._append({"event": "calibration", "trial_id": trial_id, "calibration": calibration})
            entry.calibration = calibration

    def record_answers(self, trial_id: str, answers: dict[str, Any]) -> None:
        """Record which test samples a confirmed trial classified correctly, and the sums per class, once."""
        entry = self.entries[trial_id]
        if answers and not entry.answers and entry.status is None:
            self._append({"event": "answers", "trial_id": trial_id, "answers": answers})
            entry.answers = answers

    def record_confirmation(self, confirmation: Confirmation) -> None:
        """Record the confirmation, once per study and before the first confirmation trial."""
        assert self.confirmation is None, "a confirmation is chosen once"
        confirmation = confirmation.with_ids(self._config_ids.of_config)
        content = confirmation.model_dump(mode="json")
        self._append({"event": "confirmation", "confirmation": content}, durable=True)
        self.confirmation = confirmation

    def _append(self, event: dict[str, Any], *, durable: bool = False) -> None:
        assert self._journal is not None, "this ledger is read-only"
        try:
            self._journal.append(event, durable=durable)
        except OSError as error:
            self.failure = error
            raise

    def record_fill(self, forwards: int, files: int, seconds: float) -> None:
        """Record that a task computed teacher outputs before the trials needed them.

        Args:
            forwards: number of samples passed through the teacher.
            files: number of files filled.
            seconds: duration of the task in seconds.
        """
        if files:
            event = {"event": "fill", "time": self._time(), "forwards": forwards, "files": files, "seconds": seconds}
            self._append(event)
            self.teacher_forwards_ahead += forwards

    def end_trial(self, trial_id: str, status: Status, error: str | None = None) -> None:
        """Record the final status of a trial, once."""
        entry = self.entries[trial_id]
        if entry.status is not None:
            return
        now = self._time()
        self._append(
            {"event": "end", "trial_id": trial_id, "status": status, "error": error, "time": now}
            | ({"attempt": entry.attempt} if entry.attempt > 1 else {}),
            durable=True,
        )
        entry.status, entry.error, entry.ended = status, error, now
        self.ended += 1
        if self._on_end is not None:
            self._on_end(entry)

    def retry_failed(self) -> list[TrialEntry]:
        """Reopen every failed trial. The failure stays in the journal and reported epochs are kept."""
        failed = [entry for entry in self.entries.values() if entry.status == "failed"]
        for entry in failed:
            event = {"event": "retry", "trial_id": entry.trial_id, "time": self._time(), "attempt": entry.attempt + 1}
            self._append(event, durable=True)
            self._reopen(entry)
        return failed

    def _reopen(self, entry: TrialEntry) -> None:
        self.ended -= entry.status is not None
        entry.status = entry.error = entry.ended = None
        entry.attempt += 1

    @property
    def is_confirmed(self) -> bool:
        """Whether all confirmation trials have ended."""
        ended = sum(entry.status is not None for entry in self.in_stage("confirm"))
        return self.confirmation is not None and ended >= self.confirm_planned

    @property
    def confirm_progress(self) -> Progress | None:
        """State of a confirmation with seeds added until all comparisons are decided; None for other studies."""
        if self.confirmation is None or self.confirmation.request.detect is None:
            return None
        entries = self.in_stage("confirm")
        ended = tuple(entry.status for entry in entries)
        if self._confirm_progress is None or self._confirm_progress[0] != ended:  # asked for at every free slot
            found = find_progress(
                self.confirmation, entries, study_seed=self.plan.seed, compares_methods=bool(self.plan.compared)
            )
            self._confirm_progress = (ended, found)
        return self._confirm_progress[1]

    @property
    def searching(self) -> bool:
        """Whether search trials still have to start or end."""
        searched = self.in_stage("search")
        begun_all = len(searched) >= searched_in_all(self.plan, searched)
        return not begun_all or any(entry.status is None for entry in searched)

    @property
    def repetition_progress(self) -> Progress | None:
        """State of repetitions with seeds added until all comparisons are decided; None for a fixed number.

        Also None while the search runs, because the promising configs are unknown.
        """
        if self.plan.replicates_detect is None:
            return None
        stages: tuple[Stage, ...] = ("search", "control", "replicate")
        ended = tuple(entry.status for stage in stages for entry in self.in_stage(stage))
        if self._repetition_progress is None or self._repetition_progress[0] != ended:
            self._repetition_progress = (ended, find_repetition_progress(self))
        return self._repetition_progress[1]

    @property
    def confirm_planned(self) -> int:
        """Number of trials in the chosen confirmation. An upper bound until no further trial is due."""
        assert self.confirmation is not None
        progress = self.confirm_progress
        return len(self.in_stage("confirm")) if progress is not None and progress.complete else self.confirmation.size

    def in_stage(self, stage: Stage) -> list[TrialEntry]:
        """Return the trials of a stage, oldest first."""
        return self._stages[stage]

    @property
    def unfinished(self) -> list[TrialEntry]:
        """Trials that have started but not ended."""
        return [entry for entry in self.entries.values() if entry.status is None]

    def count(self, status: Status) -> int:
        """Return the number of trials with a status."""
        return sum(entry.status == status for entry in self.entries.values())

    @property
    def planned(self) -> int:
        """Number of trials in the whole study, including the confirmation. An upper bound until configs are chosen."""
        chosen = self.confirmation
        tuned = len(self.in_stage("tune"))
        unspent = self.plan.searched - searched_in_all(self.plan, self.in_stage("search"))
        progress = self.repetition_progress
        if progress is not None and progress.complete:
            unspent += self.plan.repeated - len(self.in_stage("control")) - len(self.in_stage("replicate"))
        return (
            self.plan.total_trials
            - unspent
            + (confirm_trials(self.plan) if chosen is None else tuned + self.confirm_planned)
        )

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


def _enter_epoch(entry: TrialEntry, event: dict[str, Any]) -> str | None:
    epoch, measures = event["epoch"], event["measures"]
    if epoch > entry.config.epochs:
        return f"epoch {epoch}: trial {entry.trial_id} has only {entry.config.epochs} epochs"
    if epoch in entry.epochs:
        return f"epoch {epoch} of trial {entry.trial_id} is already recorded"
    entry.epochs[epoch] = with_shared_names({name: float(value) for name, value in measures.items()})
    entry.epoch_times[epoch] = event["time"]
    return None


def check_journal(ledger: StudyLedger) -> None:
    """Check that a journal with confirmation trials still has the confirmation's choice.

    Raises:
        StudyError: the line with the choice is damaged.
    """
    if ledger.confirmation is None and ledger.in_stage("confirm"):
        raise StudyError(
            f"the line of {ledger.plan.directory / 'journal.jsonl'} with the configs to confirm is damaged, and the "
            "test split has already been read for them: restore the file from a copy"
        )
