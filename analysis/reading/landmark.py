"""Make trials comparable: take every ended trial at a common epoch reached by all of them.

Early stopping looks at accuracy, so it selects the trials that finish. An association among these survivors describes a
selected sample: the spread of accuracy is narrower, and associations can be distorted or hidden. This module selects no
survivors. The *landmark* is the last epoch reached by every trial, failed trials aside. Each trial enters with the
measures at this epoch, whether it continued or not. The price is the epoch: an association then holds for accuracy at
the landmark, not at the end. If no trial was stopped early, the landmark is the last epoch.

A failed trial (non-finite loss) enters if it reached the landmark before failing. Otherwise it has no measures at the
landmark, and the note counts it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.reading.trials import (
    SEARCH,
    STUDENT,
    StudyRecords,
    numbers,
    objective,
    of_the_search_schedule,
    select,
    varied_fields,
)
from trainables.spec.searchable import is_nuisance

Floats: TypeAlias = NDArray[np.float64]
Evidence = Literal["exploratory", "confirmatory"]
GapName = Literal["paper", "centred", "tempered", "entropy"]


def _entropy_gap(trials: pa.Table) -> Floats:
    return numbers(trials, "val/entropy_student") - numbers(trials, "val/entropy_adapted")


def _column(name: str) -> Callable[[pa.Table], Floats]:
    return lambda trials: numbers(trials, name)


# All four gaps are in nats and positive if the teacher is sharper. `tempered` uses the trial's temperature.
GAPS: Final[Mapping[GapName, Callable[[pa.Table], Floats]]] = {
    "paper": _column("val/sharpness_gap"),
    "centred": _column("val/sharpness_gap_centred"),
    "tempered": _column("val/sharpness_gap_tempered"),
    "entropy": _entropy_gap,
}


@dataclass(frozen=True)
class Landmark:
    """Trials at a common epoch.

    Args:
        trials: one row per trial, with the `val/...` measures at the landmark.
        epoch: the landmark, counted from 1; 0 if there are no trials.
        is_last: whether every trial is included and the landmark is the last epoch.
        evidence: `exploratory` for trials proposed by a search, because the search chose them by the outcome;
            `confirmatory` if all trials ran on fresh seeds.
        note: description of the trials, including early-stopped and failed ones.
        log_fields: config fields sampled on a logarithmic scale in the search.
    """

    trials: pa.Table
    epoch: int
    evidence: Evidence
    note: str
    is_last: bool = True
    log_fields: frozenset[str] = frozenset()

    @property
    def last_epoch(self) -> int:
        """Last epoch reached by any trial; 0 if there are no trials."""
        return int(pc.max(self.trials["epochs"]).as_py()) if self.trials.num_rows else 0

    @property
    def place(self) -> str:
        """Number of trials and epoch in words, e.g. `24 trials at epoch 3 of 15, the last that all reached`."""
        if not self.trials.num_rows:
            return self.note
        of_all = f" of {self.last_epoch}, the last that all reached" if self.epoch < self.last_epoch else ""
        return f"{self.trials.num_rows} trials at epoch {self.epoch}{of_all}"


def at_landmark(records: StudyRecords, *, searched: bool, methods: Collection[str] | None = None) -> Landmark:
    """Return the search trials, or the trials on fresh seeds, at the last epoch reached by all of them.

    Args:
        records: study records.
        searched: take the trials proposed by the search, each config once; else the trials in all other stages, configs
            over fresh seeds. Confirmation trials with another number of epochs are then left out.
        methods: keep only trials with these methods. Default: the searched methods, or all methods if there was no
            search.
    """
    stages = records.trials["stage"].to_pylist()
    trials = records.trials.filter(pa.array([(stage == SEARCH) == searched for stage in stages], pa.bool_()))
    apart = 0
    if not searched:
        everything, trials = trials.num_rows, of_the_search_schedule(trials)
        apart = everything - trials.num_rows
    if methods is None:
        methods = set(select(records.trials, stages=[SEARCH], statuses=None)["method"].to_pylist())
    if methods:
        trials = trials.filter(pc.is_in(trials["method"], pa.array(sorted(methods), pa.string())))
    evidence: Evidence = "exploratory" if searched else "confirmatory"
    running = select(trials, statuses=("finished", "pruned"))
    if not running.num_rows:
        nothing = "no trial finished or was stopped early"
        return Landmark(trials.slice(0, 0), 0, evidence, nothing, log_fields=records.searched_in_logs)
    epoch = int(pc.min(running["epochs"]).as_py())
    reached = at_epoch(trials, records.epochs, epoch)
    note = _note(trials, reached, epoch)
    if not searched and SEARCH in stages:
        note += (
            f"; fresh seeds of configs that were chosen by {objective(trials)}, which narrows the range between them"
        )
    if apart:
        note += f"; {apart} confirmation trials of another number of epochs are left out"
    is_last = reached.num_rows == trials.num_rows and epoch == int(pc.max(trials["epochs"]).as_py())
    return Landmark(reached, epoch, evidence, note, is_last, records.searched_in_logs)


def at_epoch(trials: pa.Table, epochs: pa.Table, epoch: int) -> pa.Table:
    """Return the trials with a record at an epoch, with their validation measures at this epoch.

    Args:
        trials: study trials.
        epochs: epoch records from the same study.
        epoch: epoch, from 1.
    """
    rows = epochs.filter(pc.equal(epochs["epoch"], epoch))
    place = {trial_id: number for number, trial_id in enumerate(rows["trial_id"].to_pylist())}
    ids = trials["trial_id"].to_pylist()
    trials = trials.filter(pa.array([trial_id in place for trial_id in ids], pa.bool_()))
    rows = rows.take(pa.array([place[trial_id] for trial_id in ids if trial_id in place], pa.int64()))
    for name in rows.column_names:
        if name.startswith("val/") and name in trials.column_names:
            trials = trials.set_column(trials.column_names.index(name), name, rows[name])
    return trials


def _note(trials: pa.Table, reached: pa.Table, epoch: int) -> str:
    statuses = trials["status"].to_pylist()
    pruned, absent = statuses.count("pruned"), trials.num_rows - reached.num_rows
    longest = int(pc.max(trials["epochs"]).as_py())
    note = f"{reached.num_rows} trials at epoch {epoch}"
    if pruned:
        note += (
            f" of {longest}, the last that all of them reached: {pruned} were stopped early and are in it as they were "
            "then, so no survivor is selected, and nothing is said of the last epoch"
        )
    elif epoch == longest:
        note += ", their last"
    else:
        note += f" of {longest}, the last that all of them reached"
    return note + (f"; {absent} failed before it and cannot be in it" if absent else "")


def nuisance_fields(trials: pa.Table) -> tuple[str, ...]:
    """Return the varied fields that only control how something is trained, and the field of the student architecture.

    The former are rates, schedules, momenta and decay. The records do not contain the parameter roles in a space, so
    the fields are recognised by name. A larger student has another accuracy and another gap, whatever else varies.
    """
    return tuple(name for name in varied_fields(trials) if is_nuisance(name) or name == STUDENT)


def config_columns(trials: pa.Table, fields: Sequence[str], log_fields: Collection[str]) -> Floats:
    """Convert config fields to columns (n, k): numeric fields on the search scale, other fields as indicators.

    A categorical field has one column for each value but the first. A constant field has no column.

    Args:
        trials: trials with the fields.
        fields: config fields.
        log_fields: fields sampled on a logarithmic scale in the search (`Landmark.log_fields`).
    """
    columns: list[Floats] = []
    for name in fields:
        values = trials[name].to_pylist()
        if any(isinstance(value, str | bool) for value in values):
            kinds = sorted({str(value) for value in values})
            columns += [np.array([str(value) == kind for value in values], dtype=np.float64) for kind in kinds[1:]]
        else:
            column = on_scale_of_search(numbers(trials, name), log=name in log_fields)
            columns += [column] if len(np.unique(column)) > 1 else []
    return np.column_stack(columns) if columns else np.empty((trials.num_rows, 0))


def on_scale_of_search(values: Floats, *, log: bool) -> Floats:
    """Return log2 of the values (n,) if the search used a logarithmic scale, else the values.

    Values remain unchanged if one of them is not positive, which is possible for a setting from outside the search.
    """
    return np.log2(values) if log and not (values <= 0).any() else values


def config_means(values: Sequence[Floats], config_ids: Sequence[str]) -> tuple[list[Floats], NDArray[np.intp]]:
    """Average over the trials of each config, with configs in order of first complete trial.

    Args:
        values: columns (n,). A trial with nan in any column is left out.
        config_ids: (n,).

    Returns:
        Mean of each column (configs,), and the row of each config's first complete trial (configs,).
    """
    kept: list[bool] = np.all(np.isfinite(np.column_stack(values)), axis=1).tolist()
    of_config: dict[str, list[int]] = {}
    for number, config_id in enumerate(config_ids):
        if kept[number]:
            of_config.setdefault(config_id, []).append(number)
    means = [np.array([column[rows].mean() for rows in of_config.values()]) for column in values]
    return means, np.array([rows[0] for rows in of_config.values()], dtype=np.intp)
