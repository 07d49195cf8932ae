"""State of one study trial, and a readable trial name."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from study.plan.stages import Stage
from trainables.spec.measures import objective_of
from trainables.spec.methods import AdapterSettings
from trainables.spec.methods.row_names import NAMING_FIELDS, method_name, short_name
from trainables.spec.trial import TrialConfig

Status = Literal["finished", "pruned", "failed"]

# Error for a trial that failed without reporting one.
PROCESS_DIED: Final = "the trial's process died more often than is allowed"
# Start of the error for a trial terminated because it hung.
TIMED_OUT: Final = "timed out after"


@dataclass
class TrialEntry:
    """State of one trial: config, reported epochs and final status. `status` is None until the trial ends.

    A failed trial may be retried. `attempt` counts from 1, and reported epochs are kept.

    `config_id` is the identifier for records and tracking. In a study from an earlier version it differs from
    `config.config_id`, which identifies configs within this process.

    `facts` holds the reported `COST_FACTS` and `DATA_FACTS`. It is empty if the trial ended before the first epoch.
    `calibration` holds the calibration bins for a finished trial's models, by the names in `CALIBRATION`. `answers`
    holds the content of `trainables.run.evaluation.Answers`, for a confirmed trial. `names_epochs` is set for a
    confirmed trial if the number of epochs differs from the study's; the trial name then contains it. `names_student`
    is set in a study with several students. `pack` holds the identifiers of all trials of a fixed pack, this one
    included, in order; the rounding depends on them.
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
    answers: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None
    error: str | None = None
    ended: float | None = None
    attempt: int = 1
    namesakes: int = 0
    config_id: str = ""
    names_epochs: bool = False
    names_student: bool = False
    pack: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.config_id = self.config_id or self.config.config_id

    @property
    def name(self) -> str:
        """Readable name, for example `w16-T4.0-s0`. A second config with the same name becomes `w16-T4.0#2-s0`.

        Records and runs from earlier versions may have another name for the same trial.
        """
        return trial_name(
            self.config,
            self.replicate,
            namesakes=self.namesakes,
            names_epochs=self.names_epochs,
            names_student=self.names_student,
        )

    @property
    def search(self) -> str | None:
        """Search name, as recorded by a study with several searches per method; None for another study."""
        return None if self.optuna is None else self.optuna.get("search")

    @property
    def failed_with_an_error(self) -> bool:
        """Whether the trial itself raised an error, as opposed to a dead or terminated process."""
        return self.status == "failed" and self.error != PROCESS_DIED and not str(self.error).startswith(TIMED_OUT)

    @property
    def last(self) -> dict[str, float]:
        """Measures at the last reported epoch, or an empty dict."""
        return self.epochs[max(self.epochs)] if self.epochs else {}

    @property
    def gaps(self) -> list[int]:
        """Epochs missing from the journal.

        All epochs before the last reported one are expected, and all planned epochs for a finished trial.
        """
        last = self.config.epochs if self.status == "finished" else max(self.epochs, default=0)
        return [] if last == len(self.epochs) else [each for each in range(1, last + 1) if each not in self.epochs]

    @property
    def objective(self) -> str:
        """Name of the measure maximised by the search."""
        return objective_of(self.config.dataset)

    @property
    def score(self) -> float:
        """Objective at the last epoch, or NaN before the first report."""
        return self.last.get(self.objective, float("nan"))

    @property
    def scores(self) -> dict[int, float]:
        """Finite objective values by epoch."""
        # The trial may add epochs during this loop.
        scores = {epoch: self.epochs[epoch].get(self.objective, math.nan) for epoch in sorted(self.epochs)}
        return {epoch: score for epoch, score in scores.items() if math.isfinite(score)}

    @property
    def seconds(self) -> float:
        """Computing time of the trial in seconds."""
        return sum(measures.get("cost/seconds", 0.0) for measures in self.epochs.values())


def with_shared_names(measures: dict[str, float]) -> dict[str, float]:
    """Return the measures with names shared by all trials: each report brings copies, which take as much memory."""
    return {sys.intern(name): value for name, value in measures.items()}


def by_config(entries: Iterable[TrialEntry]) -> dict[str, list[TrialEntry]]:
    """Group trials by config identifier, keeping the given order of trials and configs."""
    groups: dict[str, list[TrialEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.config.config_id, []).append(entry)
    return groups


def trial_name(
    config: TrialConfig,
    replicate: int,
    *,
    namesakes: int = 0,
    names_epochs: bool = False,
    names_student: bool = False,
) -> str:
    """Return adapter width, temperature and seed of a trial.

    Methods other than `pesf_kd` are named first, as are the `pesf_kd` variants and controls, for example `frozen`.

    Args:
        config: trial config.
        replicate: replicate number.
        namesakes: number of earlier configs with the same name in the study.
        names_epochs: whether the name contains the number of epochs.
        names_student: whether the name begins with the student, as in `resnet8-kd-T4.0-s0`.
    """
    entry = config.method_spec
    variant = method_name({name: getattr(config, name) for name in NAMING_FIELDS}).partition("+")[2]
    parts = [short_name(config.student).rpartition("/")[2]] * names_student  # of a path, the last folder
    parts += [variant.replace("+", "-")] * bool(variant) if config.method == "pesf_kd" else [short_name(config.method)]
    if entry.has_adapter:
        parts.append(f"w{config.settings_of(AdapterSettings).adapter_width}")
    if "temperature" in entry.fields:
        parts.append(f"T{config.temperature:.1f}")
    parts += [f"e{config.epochs}"] * names_epochs
    return "-".join(parts) + (f"#{namesakes + 1}" if namesakes else "") + f"-s{replicate}"
