"""What a study knows of its trials: every change goes to the journal first, then into memory.

The ledger, not Ray's snapshot, is what a resumed study starts from. Ray's snapshot is up to ten seconds old when a
driver is killed, and trials begun since come back under new names; the journal is never behind, and a trial keeps
its identifier for good.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from study.ledger.confirmation import Confirmation
from study.ledger.events import fault_of, ordinal_in
from study.ledger.journal import Journal, read_lines
from study.plan.folder import recorded_name
from study.plan.plan import StudyPlan
from study.plan.size import confirm_trials
from study.plan.stages import Stage
from study.records import recorded_trials
from trainables.process.errors import StudyError
from trainables.spec.measures import CALIBRATION, COST_FACTS, DATA_FACTS, MEASURES, objective_of
from trainables.spec.trial import TrialConfig

Status = Literal["finished", "pruned", "failed"]

# Moves records, and a journal that cannot be read, away; nothing of them is deleted.
SET_ASIDE_FLAG: Final = "--set-aside-records"
# The error of a trial that failed without a word of its own.
PROCESS_DIED: Final = "the trial's process died more often than is allowed"
# How the error of one begins whose process was ended because it hung.
TIMED_OUT: Final = "timed out after"
_TICK: Final = 1e-6  # seconds, which a float of these days can hold
_MOST_SHOWN: Final = 5  # of damaged lines
_STAGES: Final[tuple[Stage, ...]] = ("search", "control", "replicate", "tune", "confirm")


@dataclass
class TrialEntry:
    """One trial: what it is, what it has reported, how it ended (`status` is None while it has not).

    One that failed may be begun again (`attempt` counts from 1); what it had reported stays.

    `facts` are the `COST_FACTS` and `DATA_FACTS` that it reported; a trial that has ended without an epoch has none.
    `calibration`, by the names of `CALIBRATION`, is what one that finished told of its networks.
    """

    trial_id: str
    ordinal: int
    stage: Stage
    replicate: int
    config: TrialConfig
    started: float
    optuna: dict[str, Any] | None = None
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    epoch_times: dict[int, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    status: Status | None = None
    error: str | None = None
    ended: float | None = None
    attempt: int = 1
    namesakes: int = 0

    @property
    def name(self) -> str:
        """What a person reads: `w16-T4.0-s0`; `w16-T4.0#2-s0` of the study's second config of that name."""
        return trial_name(self.config, self.replicate, namesakes=self.namesakes)

    @property
    def told_its_error(self) -> bool:
        """Whether it failed by an error of its own, and not because its process died or was ended."""
        return self.status == "failed" and self.error != PROCESS_DIED and not str(self.error).startswith(TIMED_OUT)

    @property
    def last(self) -> dict[str, float]:
        """Measures of the last epoch reported, or nothing."""
        return self.epochs[max(self.epochs)] if self.epochs else {}

    @property
    def gaps(self) -> list[int]:
        """Epochs that the journal has lost: those before the last one and, of a finished trial, up to its last."""
        last = self.config.epochs if self.status == "finished" else max(self.epochs, default=0)
        return [] if last == len(self.epochs) else [each for each in range(1, last + 1) if each not in self.epochs]

    @property
    def objective(self) -> str:
        """The measure that decides."""
        return objective_of(self.config.dataset)

    @property
    def score(self) -> float:
        """The objective at the last epoch; NaN before the first."""
        return self.last.get(self.objective, float("nan"))

    @property
    def scores(self) -> dict[int, float]:
        """The objective by epoch, where it is a number."""
        # The trial may go on meanwhile.
        told = {epoch: self.epochs[epoch].get(self.objective, math.nan) for epoch in sorted(self.epochs)}
        return {epoch: score for epoch, score in told.items() if math.isfinite(score)}

    @property
    def seconds(self) -> float:
        """The trial's own computing time."""
        return sum(measures.get("cost/seconds", 0.0) for measures in self.epochs.values())


def by_config(entries: Iterable[TrialEntry]) -> dict[str, list[TrialEntry]]:
    """The trials of each config, by its identifier, both in the order in which they are given."""
    groups: dict[str, list[TrialEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.config.config_id, []).append(entry)
    return groups


def trial_name(config: TrialConfig, replicate: int, *, namesakes: int = 0) -> str:
    """Adapter width, temperature and seed of a trial, or its method where it has no adapter.

    Args:
        config: the trial's.
        replicate: its number.
        namesakes: how many other configs of its study were called so before.
    """
    entry = config.method_spec
    parts = [] if config.method == "pesf_kd" else [config.method]
    if entry.has_adapter:
        parts.append(f"w{config.adapter_width}")
    if "temperature" in entry.fields:
        parts.append(f"T{config.temperature:.1f}")
    return "-".join(parts) + (f"#{namesakes + 1}" if namesakes else "") + f"-s{replicate}"


class StudyLedger:
    """All trials of one study, oldest first.

    Args:
        plan: the study.
        on_end: called with each trial once it has ended.
        read_only: whether to leave the journal as it is; nothing can be entered then.
        sets_aside: whether a journal of which no line can be read is to be moved away; it is refused else.

    Raises:
        StudyError: the journal cannot be read, is another study's, or has lost what is confirmed.

    Attributes:
        confirmation: what is confirmed, once that was chosen.
        dataset: digest of the data of all trials, and the number of samples in each split, once a trial has told.
        damage: why a line of the journal is left out, by its number, counted from 1.
        is_unreadable: whether no line of the journal can be read, and it is to be moved away.
        incomplete: identifiers of trials that had ended and run again, as the journal has lost epochs of theirs.
        first_unreserved: trials with a lower number may be known elsewhere alone, since records were set aside.
        failure: why the journal could not be written, once that happened; nothing is entered any more then.
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
        self._stages: dict[Stage, list[TrialEntry]] = {stage: [] for stage in _STAGES}
        self._called: dict[str, dict[str, int]] = {}  # by what a person reads, the configs in order
        self._next_ordinal = 0
        self.first_unreserved = 0
        self._now = 0.0
        self._prefix: str | None = None  # of the trials' identifiers: the name that the study began with
        self._is_signed = False
        self.damage: dict[int, str] = {}
        self.is_unreadable = False
        self.incomplete: list[str] = []
        self.failure: OSError | None = None
        self._on_end = on_end
        self._path = plan.directory / "journal.jsonl"
        if self._path.exists():
            self._load()
            if self.is_unreadable and not sets_aside:
                raise StudyError(self._why_unreadable())
            check_journal(self)
        self._journal = None if read_only else Journal(self._path)

    @property
    def damaged_lines(self) -> list[int]:
        """Lines of the journal that are left out, counted from 1."""
        return sorted(self.damage)

    def begin_writing(self) -> None:
        """Let a ledger that was read write from now on; the journal then says which study it is of.

        Raises:
            StudyError: the journal cannot be written.
        """
        if self._journal is None:
            try:
                self._journal = Journal(self._path)
            except OSError as error:
                raise StudyError(f"{self._path} cannot be written ({error.strerror}): mend that first") from error
        if not self._is_signed:
            self._append({"event": "study", "study_id": self.plan.study_id, "name": self.plan.name}, durable=True)
            self._is_signed = True

    def _load(self) -> None:
        events = 0
        try:
            for number, event in read_lines(self._path):
                fault = "its checksum is another" if event is None else fault_of(event) or self._enter_event(event)
                events += fault is None
                if fault is not None:
                    self.damage[number] = fault
        except OSError as error:
            raise StudyError(f"{self._path} cannot be read ({error.strerror}): restore it from a copy") from error
        self.is_unreadable = bool(self.damage) and not events
        for entry in self.entries.values():
            if entry.status in ("finished", "pruned") and entry.gaps:
                self.ended -= 1
                entry.status = entry.error = entry.ended = None  # the same attempt, as it did not fail
                self.incomplete.append(entry.trial_id)

    def _why_unreadable(self) -> str:
        directory, (number, why) = self.plan.directory, next(iter(self.damage.items()))
        return (
            f"study {self.plan.name!r}: the records hold {len(recorded_trials(directory))} ended trials, its journal "
            f"accounts for 0 of them: none of its lines is one that this version writes (line {number}: {why}). Was "
            "another version at work, or another hand? Nothing has been changed.\n"
            f"Restore {self._path} from a copy; or give {SET_ASIDE_FLAG} to begin again: the journal, the records, and "
            f"the result made of them, are then moved to {directory / 'set-aside'} and kept."
        )

    def _enter_event(self, event: dict[str, Any]) -> str | None:
        """Take an event that is sound by itself; why it does not go with those before, if it does not."""
        kind, trial_id = event["event"], event.get("trial_id")
        if kind == "study":
            self._check_owner(event)
        elif kind == "fill":
            self.teacher_forwards_ahead += event["forwards"]
        elif kind == "dataset":
            self.dataset = event["dataset"]
        elif kind == "confirmation":
            return self._enter_confirmation(event["confirmation"])
        elif kind == "set_aside":
            self._enter_set_aside(event)
        else:
            assert isinstance(trial_id, str)
            if (fault := self._check_prefix(trial_id)) is not None:
                return fault
            self._next_ordinal = max(self._next_ordinal, ordinal_in(trial_id) + 1)  # even if its first line is lost
            fault = self._enter_trial(event) if kind == "trial" else self._enter_event_of(trial_id, event)
            if fault is not None:
                return fault
        self._now = max(self._now, *(event.get(name) or 0.0 for name in ("time", "started")))
        return None

    def _check_owner(self, event: dict[str, Any]) -> None:
        if event["study_id"] != self.plan.study_id:
            raise StudyError(
                f"{self._path} is the journal of another study ({event['name']!r}, id {event['study_id'][:8]}; this "
                f"one's id is {self.plan.study_id[:8]}): restore the study's own from a copy"
            )
        self._is_signed = True

    def _check_prefix(self, trial_id: str) -> str | None:
        """Earlier versions did not write which study a journal is of: their trials have its name."""
        prefix = trial_id.rpartition("-")[0]
        if self._prefix is None:
            if not self._is_signed and prefix not in (self.plan.name, recorded_name(self.plan.directory)):
                raise StudyError(
                    f"{self._path} is the journal of another study: its trials are called {trial_id}, this study is "
                    f"{self.plan.name!r}. Restore the study's own from a copy"
                )
            self._prefix = prefix
        return None if prefix == self._prefix else f"{trial_id} is a trial of another study"

    def _enter_confirmation(self, content: dict[str, Any]) -> str | None:
        try:
            confirmation = Confirmation(**content)
        except (TypeError, ValueError) as error:
            return f"confirmation: {first_words(error)}"
        if self.confirmation is not None and confirmation != self.confirmation:
            return "confirmation: another one was chosen before"
        if confirmation.first_replicate < 1 or not confirmation.choices:
            return "confirmation: it has no seed or no config"
        self.confirmation = confirmation
        return None

    def _enter_trial(self, event: dict[str, Any]) -> str | None:
        fields = {k: v for k, v in event.items() if k not in ("event", "config")}
        try:
            entry = TrialEntry(config=TrialConfig(**event["config"]), **fields)
        except (TypeError, ValueError) as error:
            return f"trial: {first_words(error)}"
        if entry.trial_id in self.entries:
            return f"trial {entry.trial_id} was begun before"
        if ordinal_in(entry.trial_id) != entry.ordinal:
            return f"trial {entry.trial_id} has number {entry.ordinal}"
        if (entry.stage == "search") != (entry.optuna is not None):
            return f"trial {entry.trial_id} of stage {entry.stage} has {'a' if entry.optuna else 'no'} search"
        self._enter(entry)
        return None

    def _enter_event_of(self, trial_id: str, event: dict[str, Any]) -> str | None:
        kind, entry = event["event"], self.entries.get(trial_id)
        if entry is None:
            return f"the line that begins trial {trial_id} is not before it"
        if kind == "epoch":
            return _enter_epoch(entry, event)
        if kind == "facts":
            entry.facts = {**event["facts"], **entry.facts}
        elif kind == "calibration":
            entry.calibration = event["calibration"]
        elif kind == "end":
            self.ended += entry.status is None
            entry.status, entry.error, entry.ended = event["status"], event.get("error"), event["time"]
        elif kind == "retry":
            if entry.status in ("finished", "pruned"):
                return f"trial {trial_id} has not failed: it is not begun again"
            self._reopen(entry)
            entry.attempt = max(entry.attempt, event.get("attempt", 1))
        return None

    def _enter_set_aside(self, event: dict[str, Any]) -> None:
        self.first_unreserved = max(self.first_unreserved, event["next_ordinal"])
        self._next_ordinal = max(self._next_ordinal, event["next_ordinal"])
        for trial_id, attempt in event["again"].items():
            if trial_id in self.entries:
                self._reopen(self.entries[trial_id])
                self.entries[trial_id].attempt = max(self.entries[trial_id].attempt, attempt)

    def forget_unreadable(self) -> None:
        """Begin a new journal, as the one that could not be read was moved away."""
        self.is_unreadable = False
        self.damage.clear()

    def set_aside(self, folder: str | None, next_ordinal: int, again: dict[str, int]) -> None:
        """Enter that records which the journal could not account for were moved away.

        Args:
            folder: where they are now; None where there were none.
            next_ordinal: above the number of every trial that they, or MLflow, know: no other trial gets its name.
            again: trials of the journal that run again, and which attempt that is.
        """
        event = {"event": "set_aside", "time": self._time(), "next_ordinal": next_ordinal, "again": again}
        self._append(event if folder is None else {**event, "folder": folder}, durable=True)
        self._enter_set_aside(event)

    def open_trial(
        self, stage: Stage, config: TrialConfig, replicate: int, optuna: dict[str, Any] | None = None
    ) -> TrialEntry:
        """Enter a new trial; from here on it is never lost."""
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
                "started": entry.started,
                "optuna": optuna,
            },
            durable=True,
        )
        self._enter(entry)
        return entry

    def _enter(self, entry: TrialEntry) -> None:
        self.entries[entry.trial_id] = entry
        called_so = self._called.setdefault(trial_name(entry.config, 0), {})
        entry.namesakes = called_so.setdefault(entry.config.config_id, len(called_so))
        self._stages[entry.stage].append(entry)
        self._next_ordinal = max(self._next_ordinal, entry.ordinal + 1)

    def _time(self) -> float:
        """Seconds since 1970, more than any before: a clock that is set back must not reorder a study.

        Nor must two events be the same line, which would count once.
        """
        self._now = max(self._now + _TICK, time.time())
        return self._now

    def record_epoch(self, trial_id: str, epoch: int, measures: dict[str, float]) -> bool:
        """Enter an epoch's measures; False if they are known, as after going on from an older checkpoint."""
        entry = self.entries[trial_id]
        if epoch in entry.epochs or entry.status is not None:
            return False
        now = self._time()
        self._append({"event": "epoch", "trial_id": trial_id, "epoch": epoch, "time": now, "measures": measures})
        entry.epochs[epoch] = measures
        entry.epoch_times[epoch] = now
        return True

    def record_facts(self, trial_id: str, facts: dict[str, float]) -> None:
        """Enter what a trial costs by what it is, and what its splits are, each fact once."""
        entry = self.entries[trial_id]
        new = {name: value for name, value in facts.items() if name not in entry.facts}
        if new and entry.status is None:
            self._append({"event": "facts", "trial_id": trial_id, "facts": new})
            entry.facts = {**entry.facts, **new}

    def record_dataset(self, dataset: dict[str, Any]) -> bool:
        """Enter what the trials learn from and are measured on; False if it is known."""
        if not dataset or self.dataset is not None:
            return False
        self._append({"event": "dataset", "dataset": dataset})
        self.dataset = dataset
        return True

    def record_calibration(self, trial_id: str, calibration: dict[str, dict[str, list[float]]]) -> None:
        """Enter how well calibrated the networks of a trial are, once."""
        entry = self.entries[trial_id]
        if calibration and not entry.calibration and entry.status is None:
            self._append({"event": "calibration", "trial_id": trial_id, "calibration": calibration})
            entry.calibration = calibration

    def record_confirmation(self, confirmation: Confirmation) -> None:
        """Enter what is confirmed, once and for all, before the first of its trials begins."""
        assert self.confirmation is None, "a confirmation is chosen once"
        content = confirmation.model_dump(mode="json")
        self._append({"event": "confirmation", "confirmation": content}, durable=True)
        self.confirmation = confirmation

    def _append(self, event: dict[str, Any], *, durable: bool = False) -> None:
        assert self._journal is not None, "this ledger only reads"
        try:
            self._journal.append(event, durable=durable)
        except OSError as error:
            self.failure = error
            raise

    def record_fill(self, forwards: int, files: int, seconds: float) -> None:
        """Enter that a task filled teacher outputs ahead of the trials.

        Args:
            forwards: samples that went through the teacher.
            files: that it filled.
            seconds: that it took.
        """
        if files:
            event = {"event": "fill", "time": self._time(), "forwards": forwards, "files": files, "seconds": seconds}
            self._append(event)
            self.teacher_forwards_ahead += forwards

    def end_trial(self, trial_id: str, status: Status, error: str | None = None) -> None:
        """Enter how a trial ended, once."""
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
        """Begin every trial that failed again: its failure stays in the journal, its epochs stay as they are."""
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
        """Whether all trials of the confirmation have ended."""
        ended = sum(entry.status is not None for entry in self.in_stage("confirm"))
        return self.confirmation is not None and ended >= self.confirmation.size

    def in_stage(self, stage: Stage) -> list[TrialEntry]:
        """Trials of a stage, oldest first."""
        return self._stages[stage]

    @property
    def unfinished(self) -> list[TrialEntry]:
        """Trials that were started and have not ended."""
        return [entry for entry in self.entries.values() if entry.status is None]

    def count(self, status: Status) -> int:
        """How many trials ended so."""
        return sum(entry.status == status for entry in self.entries.values())

    @property
    def planned(self) -> int:
        """Trials of the whole study with its confirmation; at most so many, until that is chosen."""
        chosen = self.confirmation
        tuned = len(self.in_stage("tune"))
        return self.plan.total_trials + (confirm_trials(self.plan) if chosen is None else tuned + chosen.size)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


def _enter_epoch(entry: TrialEntry, event: dict[str, Any]) -> str | None:
    epoch, measures = event["epoch"], event["measures"]
    if epoch > entry.config.epochs:
        return f"epoch {epoch}: trial {entry.trial_id} has {entry.config.epochs}"
    if epoch in entry.epochs:
        return f"epoch {epoch} of trial {entry.trial_id} is there already"
    entry.epochs[epoch] = {name: float(value) for name, value in measures.items()}
    entry.epoch_times[epoch] = event["time"]
    return None


def first_words(error: Exception) -> str:
    """The first line of an error, cut to fit into a message."""
    return (str(error).splitlines() or [""])[0][:200]


def describe_damage(ledger: StudyLedger) -> str | None:
    """What of a study's journal is damaged, for a person; None where nothing is."""
    parts = []
    if ledger.damage:
        lines = ledger.damaged_lines
        shown = "; ".join(f"line {number}: {ledger.damage[number]}" for number in lines[:_MOST_SHOWN])
        more = "; ..." * (len(lines) > _MOST_SHOWN)
        parts.append(f"{len(lines)} lines are left out ({_ranges(lines)}): {shown}{more}")
    incomplete = [entry.trial_id for entry in ledger.entries.values() if entry.gaps]
    if incomplete:
        names = ", ".join(incomplete[:_MOST_SHOWN]) + ", ..." * (len(incomplete) > _MOST_SHOWN)
        parts.append(f"epochs are missing of {names}")
    return f"journal.jsonl is damaged: {'; and '.join(parts)}" if parts else None


def _ranges(numbers: list[int]) -> str:
    """`1-3, 7`; the first few."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_MOST_SHOWN]]
    return ", ".join(shown) + ", ..." * (len(runs) > _MOST_SHOWN)


def trial_row(plan: StudyPlan, entry: TrialEntry) -> dict[str, Any]:
    """A trial as a row of `records.TRIALS_SCHEMA`."""
    config = entry.config.model_dump(mode="json")
    config["epochs_planned"] = config.pop("epochs")
    return {
        **config,
        "trial_id": entry.trial_id,
        "study": entry.trial_id.rpartition("-")[0],  # one name for all, also of a study whose folder was renamed
        "space": plan.space,
        "stage": entry.stage,
        "name": entry.name,
        "config_id": entry.config.config_id,
        "replicate": entry.replicate,
        "status": entry.status,
        "error": entry.error,
        "epochs": len(entry.epochs),
        "started": int(entry.started * 1e6),
        "seconds": entry.seconds,
        **{name: entry.last.get(name) for name in MEASURES},
        **{name: entry.facts.get(name) for name in (*COST_FACTS, *DATA_FACTS)},
        **{name: _bins(entry.calibration.get(name)) for name in CALIBRATION},
    }


def _bins(sums: dict[str, list[float]] | None) -> list[dict[str, float]] | None:
    """A row's list of bins; from sums by what they are of."""
    if sums is None:
        return None
    return [dict(zip(sums, each, strict=True)) for each in zip(*sums.values(), strict=True)]


def epoch_rows(entry: TrialEntry) -> list[dict[str, Any]]:
    """A trial's epochs as rows of `records.EPOCHS_SCHEMA`."""
    return [
        {"trial_id": entry.trial_id, "epoch": epoch, "time": int(entry.epoch_times[epoch] * 1e6), **measures}
        for epoch, measures in sorted(entry.epochs.items())
    ]


def check_journal(ledger: StudyLedger) -> None:
    """Check that the choice is known if any of its trials is.

    Raises:
        StudyError: the line with the choice is damaged.
    """
    if ledger.confirmation is None and ledger.in_stage("confirm"):
        raise StudyError(
            f"the line of {ledger.plan.directory / 'journal.jsonl'} that says what is confirmed is damaged, and the "
            "test split has been read for it: restore the file from a copy"
        )
