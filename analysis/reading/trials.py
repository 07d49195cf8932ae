"""Summarise the trials and configs in a study's records, with unbiased means and intervals.

A search selects promising configs by their observed accuracy, so this accuracy is biased upwards. A config mean is
therefore taken only over repetitions on fresh seeds (stages `replicate` and `control`). The search accuracy is shown
next to the mean and enters no estimate. Repetitions with the same number use the same batches, so configs are compared
within replicates.

In this package, a trial's accuracy means the dataset's objective (`trial_scores`). This is accuracy, except for some
text tasks. Output for readers uses the real objective name (`objective`).
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.reading.scales import log_fields_of, read_log_fields
from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import (
    Estimate,
    holm,
    interval_methods,
    mean_interval,
    paired_difference,
    within_range,
)
from study.records import read_epochs, read_trials
from trainables.display.numbers import format_estimate, format_gap, format_in_full, format_number, format_settings
from trainables.spec.measures import objective_in_words, objective_of
from trainables.spec.methods.row_names import NAMING_FIELDS, method_name

Value = bool | int | float | str | None
Split = Literal["validation", "test"]

# Real studies on Fashion-MNIST. The README shows the results and the commands.
EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "fashion-adapter_width"

SHARPNESS_GAP = "val/sharpness_gap"

SEARCH = "search"
REPEATED = ("control", "replicate")
CONFIRM = "confirm"
_PREFIX: dict[Split, str] = {"validation": "val", "test": "test"}
BASELINE = "kd"

STUDENT = "student"
TEACHER_NUMBER = "teacher_number"
SPLIT_NUMBER = "split_number"

# Columns about the trial itself. Every other column without a slash is a config field.
_BOOKKEEPING = frozenset(
    {"trial_id", "study", "space", "stage", "name", "method", "config_id", "replicate", "seed", "data_seed"}
    | {TEACHER_NUMBER, SPLIT_NUMBER, "status", "error", "epochs", "started", "seconds"}
)


@dataclass(frozen=True)
class StudyRecords:
    """Complete study records.

    Args:
        trials: one row per trial.
        epochs: one row per trial and epoch.
        log_fields: config fields sampled on a logarithmic scale in the search; None if no summary names them.
            `searched_in_logs` then takes the scales from the search space.
    """

    trials: pa.Table
    epochs: pa.Table
    log_fields: frozenset[str] | None = None

    @property
    def searched_in_logs(self) -> frozenset[str]:
        """Config fields sampled on a logarithmic scale in the search."""
        if self.log_fields is not None:
            return self.log_fields
        return log_fields_of(self.trials["space"].unique().to_pylist())


@dataclass(frozen=True)
class ConfigSummary:
    """Summary of a repeated config: a control, or a promising config from the search.

    Args:
        config_id: config digest.
        name: readable name, such as `w16-T4.0`.
        method: distillation method.
        stage: `control` or `replicate`; `confirm` if a comparison was confirmed.
        varied: fields varied by the search, with this config's values; for a control, only the student architecture,
            if the search varied it.
        accuracy: objective on `split` over repetitions; a fraction if the objective is accuracy.
        gap: sharpness gap over repetitions, in nats; n is 0 without a gap.
        test_accuracy: objective on the test split over repetitions; n is 0 if the test split was not read.
        against_baseline: accuracy minus the baseline accuracy with the same student, paired by replicate. None
            for the baseline itself and for a study without a baseline.
        search_accuracy: accuracy in the search, which is optimistic; None for a control.
        corrected_p: p-value for `against_baseline` after Holm's correction over all configs compared with the baseline.
            None if the study does not compare methods.
        corrected_equivalence: equivalence test p-value for `against_baseline`, corrected in the same way.
        split: split for `accuracy` and `against_baseline`; the test split if a comparison was confirmed.
        objective: objective name.
        searches: number of searches averaged in the estimates. Then `config_id` is the best config from the method's
            first search.
    """

    config_id: str
    name: str
    method: str
    stage: str
    varied: Mapping[str, Value]
    accuracy: Estimate
    gap: Estimate
    test_accuracy: Estimate
    against_baseline: Estimate | None
    search_accuracy: float | None
    corrected_p: float | None = None
    corrected_equivalence: float | None = None
    split: Split = "validation"
    objective: str = "accuracy"
    searches: int = 1


def open_study(directory: str | Path) -> StudyRecords:
    """Read the records in a study folder.

    Raises:
        FileNotFoundError: the folder contains no records.
        DamagedRecordsError: a file is damaged.
    """
    trials = read_trials(directory).combine_chunks()  # a chunk for each file slows down every selection
    return StudyRecords(trials, read_epochs(directory), read_log_fields(directory))


def find_study(named: str | Path | None, results: Path) -> Path:
    """Return the folder `named`; without a name, the most recently written study in `results`.

    If `results` contains no study with records, return the example in this package.
    """
    if named:
        return Path(named)
    written = {path.parent.parent: path.stat().st_mtime for path in results.glob("*/records/trials")}
    return max(written, key=lambda directory: written[directory]) if written else EXAMPLE


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a numeric column as (n,) float64, with nan for null."""
    return np.array([np.nan if value is None else value for value in table[name].to_pylist()], dtype=np.float64)


def trial_scores(trials: pa.Table, split: Split = "validation") -> NDArray[np.float64]:
    """Return each trial's objective as (n,) float64; nan for a trial without a value.

    Args:
        trials: trials from one or several datasets.
        split: objective split.
    """
    measures = [objective_of(dataset or "", _PREFIX[split]) for dataset in _datasets(trials)]
    columns = {name: numbers(trials, name) for name in set(measures)}
    return np.array([columns[name][row] for row, name in enumerate(measures)], dtype=np.float64)


def objective(trials: pa.Table) -> str:
    """Return the trials' objective name: accuracy, F1, Matthews correlation; score if there are several."""
    words = _objectives(trials)
    return words[0] if len(words) == 1 else "score"


def objective_note(trials: pa.Table) -> str | None:
    """Return a sentence with the name of the objective called score; None if it is accuracy."""
    words = _objectives(trials)
    if words == ["accuracy"]:
        return None
    return f"The score is the objective of the task: {' or '.join(words)}."


def objective_measure(trials: pa.Table) -> str:
    """Return the validation measure used as objective in these trials, which share one dataset."""
    return objective_of(next((dataset for dataset in _datasets(trials) if dataset), ""))


def _objectives(trials: pa.Table) -> list[str]:
    return sorted({objective_in_words(dataset or "") for dataset in _datasets(trials)}) or ["accuracy"]


def _datasets(trials: pa.Table) -> list[str | None]:
    known: list[str | None] = [None] * trials.num_rows
    return trials["dataset"].to_pylist() if trials.schema.get_field_index("dataset") >= 0 else known


def select(
    trials: pa.Table,
    *,
    stages: Collection[str] | None = None,
    statuses: Collection[str] | None = ("finished",),
) -> pa.Table:
    """Select the trials with these stages and statuses, in table order; None selects all."""
    for name, wanted in (("stage", stages), ("status", statuses)):
        if wanted is not None:
            trials = trials.filter(pc.is_in(trials[name], pa.array(list(wanted), pa.string())))
    return trials


def planned_epochs(trials: pa.Table, *, confirmed: bool) -> set[int]:
    """Return the planned numbers of epochs in the confirmation trials, or in all other trials."""
    if "epochs_planned" not in trials.column_names:
        return set()
    rows = zip(trials["stage"].to_pylist(), trials["epochs_planned"].to_pylist(), strict=True)
    return {epochs for stage, epochs in rows if (stage == CONFIRM) == confirmed and epochs is not None}


def of_the_search_schedule(trials: pa.Table) -> pa.Table:
    """Return the trials without confirmation trials at a number of epochs not shared by any other trial.

    Their scores cannot be averaged with those of the other trials, or compared with them.
    """
    known = planned_epochs(trials, confirmed=False)
    if not known or planned_epochs(trials, confirmed=True) <= known:
        return trials
    rows = zip(trials["stage"].to_pylist(), trials["epochs_planned"].to_pylist(), strict=True)
    return trials.filter(pa.array([stage != CONFIRM or epochs in known for stage, epochs in rows], pa.bool_()))


def varied_fields(trials: pa.Table) -> tuple[str, ...]:
    """Return the config fields with more than one value in the search, in column order."""
    fields = _config_fields(trials)
    # Filtering every measure as well would take most of the time.
    searched = select(trials.select([*fields, "stage"]), stages=[SEARCH], statuses=None)
    return tuple(name for name in fields if pc.count_distinct(searched[name], mode="all").as_py() > 1)


def _config_fields(trials: pa.Table) -> list[str]:
    return [name for name in trials.column_names if "/" not in name and name not in _BOOKKEEPING]


def summarise_configs(trials: pa.Table, *, baseline: str = BASELINE, seed: int = 0) -> list[ConfigSummary]:
    """Summarise the repeated configs: controls first, then promising configs, each sorted by mean accuracy, best first.

    Args:
        trials: study trials.
        baseline: control method to compare every other config with.
        seed: random seed for the bootstrap intervals.

    Returns:
        One summary per config with a finished repetition.
    """
    repeated = select(trials, stages=REPEATED)
    controls = repeated.filter(pc.and_(pc.equal(repeated["stage"], "control"), pc.equal(repeated["method"], baseline)))
    summaries = _summaries(trials, repeated, controls, seed)
    return sorted(summaries, key=lambda summary: (summary.stage != "control", -summary.accuracy.value))


def compare_methods(
    trials: pa.Table, *, baseline: str = BASELINE, confirmed: bool = False, seed: int = 0
) -> list[ConfigSummary]:
    """Summarise a comparison of methods, best mean accuracy first, with p-values corrected over all methods.

    Args:
        trials: study trials: the methods as published, or the best config found for each.
        baseline: method to compare all others with.
        confirmed: summarise the confirmed methods instead, on the confirmation seeds and by test accuracy.
        seed: random seed for the bootstrap intervals.

    Returns:
        One summary per method with a finished repetition; empty if `confirmed` is set and no method was confirmed.
    """
    repeated = select(trials, stages=[CONFIRM] if confirmed else REPEATED)
    own = repeated.filter(pc.equal(repeated["method"], baseline))
    rows = sorted(_summaries(trials, repeated, own, seed), key=lambda row: -row.accuracy.value)
    against = [row.against_baseline for row in rows]
    corrected, equivalence = holm_of(against, "p_value"), holm_of(against, "equivalence_p")
    return [
        replace(row, corrected_p=p_value, corrected_equivalence=equivalent)
        for row, p_value, equivalent in zip(rows, corrected, equivalence, strict=True)
    ]


def holm_of(
    estimates: Sequence[Estimate | None], field: Literal["p_value", "equivalence_p"] = "p_value"
) -> list[float | None]:
    """Correct one kind of p-value over several estimates by Holm's method; None where there is no p-value."""
    p_values = [None if each is None else getattr(each, field) for each in estimates]
    corrected = holm([math.nan if p_value is None else p_value for p_value in p_values])
    return [None if math.isnan(each) else each for each in corrected]


def _summaries(trials: pa.Table, repeated: pa.Table, reference: pa.Table, seed: int) -> list[ConfigSummary]:
    searched = select(trials, stages=[SEARCH])
    in_search = dict(zip(searched["config_id"].to_pylist(), trial_scores(searched).tolist(), strict=True))
    split: Split = "test" if set(repeated["stage"].to_pylist()) == {CONFIRM} else "validation"
    several = tuple(name for name in varied_fields(trials) if name == STUDENT)
    varied = _varied_by_method(trials)
    repeated, reference = _summarised_columns(repeated), _summarised_columns(reference)
    summaries = []
    for config_id, numbers_of_rows in _rows_by(repeated["config_id"].to_pylist()).items():
        rows = repeated.take(numbers_of_rows)
        (method,) = set(method_names(rows))  # a config has one method
        fields = several if rows["stage"][0].as_py() == "control" else varied(method)
        own = of_student(reference, rows)
        summaries.append(_summary(rows, fields, own, in_search.get(config_id), split, seed))
    return summaries


def _varied_by_method(trials: pa.Table) -> Callable[[str], tuple[str, ...]]:
    """Return a function from a method name to the fields that the search varied for this method."""
    rows_of = _rows_by(method_names(trials))
    columns = {name: trials[name].to_pylist() for name in _config_fields(trials)}
    stages = trials["stage"].to_pylist()

    def varied(method: str) -> tuple[str, ...]:
        rows = [row for row in rows_of[method] if stages[row] == SEARCH]
        return tuple(name for name, values in columns.items() if len({values[row] for row in rows}) > 1)

    return cache(varied)


def _summarised_columns(trials: pa.Table) -> pa.Table:
    """Keep the columns of a summary, as one chunk each. Records have many more columns, and a chunk for each file."""
    datasets = set(_datasets(trials))
    measures = {objective_of(dataset or "", prefix) for dataset in datasets for prefix in _PREFIX.values()}
    measures.add(SHARPNESS_GAP)
    return trials.select([name for name in trials.column_names if "/" not in name or name in measures]).combine_chunks()


def _rows_by(labels: Sequence[str]) -> dict[str, list[int]]:
    """Return the row numbers for each label, in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        rows.setdefault(label, []).append(number)
    return rows


def of_student(trials: pa.Table, rows: pa.Table) -> pa.Table:
    """Return the trials with the rows' student architecture, which is unique; all trials if it is unknown."""
    own = rows[STUDENT][0].as_py() if STUDENT in rows.column_names and rows.num_rows else None
    return trials if own is None else trials.filter(pc.equal(trials[STUDENT], own))


def _naming_columns(trials: pa.Table) -> list[str]:
    """Return the columns that name a method; records from earlier versions have fewer."""
    known = set(trials.column_names)
    return [name for name in NAMING_FIELDS if name in known]


def method_names(trials: pa.Table) -> list[str]:
    """Return each trial's method name; see `method_name`."""
    return [method_name(row) for row in trials.select(_naming_columns(trials)).to_pylist()]


def _by_replicate(rows: pa.Table, split: Split) -> dict[int, float]:
    return dict(zip(rows["replicate"].to_pylist(), trial_scores(rows, split).tolist(), strict=True))


def _mean_by_replicate(rows: pa.Table, split: Split) -> dict[int, float]:
    """Average a reference's configs by replicate: a baseline with several searches has one config from each."""
    ids = list(dict.fromkeys(rows["config_id"].to_pylist()))
    each = [_by_replicate(rows.filter(pc.equal(rows["config_id"], config_id)), split) for config_id in ids]
    shared = set.intersection(*(set(scores) for scores in each)) if each else set()
    return {replicate: float(np.mean([scores[replicate] for scores in each])) for replicate in shared}


def _summary(
    rows: pa.Table,
    fields: tuple[str, ...],
    reference: pa.Table,
    search_accuracy: float | None,
    split: Split,
    seed: int,
) -> ConfigSummary:
    """Summarise the repetitions of one config."""
    first = rows.slice(0, 1).to_pylist()[0]
    is_control = first["stage"] == "control"
    own, others = _by_replicate(rows, split), _mean_by_replicate(reference, split)
    shared = sorted(own.keys() & others.keys())
    against = None
    if shared and first["config_id"] not in reference["config_id"].to_pylist():
        paired = [own[r] for r in shared], [others[r] for r in shared]
        difference = paired_difference(*paired, seed=seed, smallest_effect=SMALLEST_EFFECT)
        against = within_reach(difference, objective_measure(rows))
    return ConfigSummary(
        config_id=first["config_id"],
        name=re.sub(r"-s\d+$", "", first["name"]),
        method=method_name(first),
        stage=first["stage"],
        varied={name: first[name] for name in fields},
        accuracy=mean_score(rows, split),
        gap=mean_interval(numbers(rows, SHARPNESS_GAP)),
        test_accuracy=mean_score(rows, "test"),
        against_baseline=against,
        search_accuracy=None if is_control else search_accuracy,
        split=split,
        objective=objective(rows),
    )


def control_name(summary: ConfigSummary) -> str:
    """Return a control's method, with the student if the study has several."""
    student = summary.varied.get(STUDENT)
    return summary.method if student is None else f"{summary.method} ({student})"


def objective_of_all(summaries: Collection[ConfigSummary]) -> str:
    """Return the objective name shared by these configs."""
    return next((summary.objective for summary in summaries), "accuracy")


def mean_score(trials: pa.Table, split: Split = "validation") -> Estimate:
    """Average the objective over trials on different seeds, with the interval clipped to the possible range.

    Args:
        trials: trials on a single dataset.
        split: objective split.
    """
    return within_possible(mean_interval(trial_scores(trials, split)), objective_measure(trials))


def within_possible(mean: Estimate, measure: str) -> Estimate:
    """Clip a mean score's interval to the possible range.

    Args:
        mean: mean score.
        measure: name of the scored measure.
    """
    return within_range(mean, *possible_range(measure))


def within_reach(difference: Estimate, measure: str) -> Estimate:
    """Clip a score difference's interval to the possible range for differences.

    Args:
        difference: difference between two scores.
        measure: name of the scored measure.
    """
    least, most = possible_range(measure)
    return within_range(difference, least - most, most - least)


def possible_range(measure: str) -> tuple[float, float]:
    """Return the smallest and the largest possible value for an objective."""
    return (-1.0, 1.0) if measure.endswith("/matthews") else (0.0, 1.0)


def survivor_note(trials: pa.Table) -> str | None:
    """Return a warning for analyses of finished search trials only; None if all search trials finished."""
    statuses = select(trials, stages=[SEARCH], statuses=None)["status"].to_pylist()
    pruned, failed = statuses.count("pruned"), statuses.count("failed")
    if not pruned + failed:
        return None
    return (
        f"Survivors only: of {len(statuses)} search trials, {pruned} stopped early and {failed} failed. These are "
        f"excluded. The finished trials were selected by {objective(trials)}, which reduces spreads and biases "
        "correlations."
    )


def markdown_table(summaries: Collection[ConfigSummary], *, baseline: str = BASELINE) -> str:
    """Format the summaries as a Markdown table, followed by the estimation methods."""
    if not summaries:
        return "No config was repeated on fresh seeds, so there is no mean."
    words = objective_of_all(summaries)
    heads = ["config", "varied", "n", words, "sharpness gap (nats)", f"{words} − {baseline}", "in search"]
    with_test = any(summary.test_accuracy.n for summary in summaries)
    if with_test:
        heads.insert(4, f"test {words}")
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for summary in summaries:
        cells = _cells(summary)
        if not with_test:
            del cells[4]
        lines.append("| " + " | ".join(cells) + " |")
    methods = {summary.accuracy.method for summary in summaries}
    methods |= {summary.against_baseline.method for summary in summaries if summary.against_baseline}
    notes = [*interval_methods(methods), "p-values are for single comparisons and not corrected for the number of rows"]
    if any(summary.search_accuracy is not None for summary in summaries):
        notes.append(f"`in search` is the {words} that selected the config: biased upwards, and part of no estimate")
    return "\n".join([*lines, "", *(f"- {note}." for note in notes)])


def _cells(summary: ConfigSummary) -> list[str]:
    return [
        f"{summary.name} ({summary.config_id})",
        format_settings(summary.varied) or summary.stage,
        str(summary.accuracy.n),
        format_estimate(summary.accuracy),
        format_estimate(summary.test_accuracy),
        format_gap(summary.gap),
        "" if summary.against_baseline is None else format_in_full(summary.against_baseline, signed=True),
        format_number(summary.search_accuracy),
    ]
