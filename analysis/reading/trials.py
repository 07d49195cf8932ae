"""What a study's records say of its trials and configs, as typed rows with honest uncertainty.

A search picks its promising configs by the accuracy that they happened to reach, so that accuracy flatters
them. A config's mean is therefore taken over its repetitions on fresh seeds alone (stages `replicate` and
`control`); what it reached in the search is shown beside it and enters no estimate. Repetitions of the same
number saw the same batches, so configs are compared within replicates.

Where this package says accuracy of a trial, it means the objective of the trial's dataset (`trial_scores`), which is
accuracy but for some tasks of text; what a person reads has its name (`objective`).
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.statistics.estimates import Estimate, holm, mean_interval, paired_difference, within_range
from study.records import read_epochs, read_trials
from trainables.spec.measures import objective_in_words, objective_of

Value = bool | int | float | str | None
Split = Literal["validation", "test"]

# Real studies on Fashion-MNIST; the README shows their results and the commands.
EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "fashion-adapter_width"

SHARPNESS_GAP = "val/sharpness_gap"

SEARCH = "search"
REPEATED = ("control", "replicate")
CONFIRM = "confirm"
_PREFIX: dict[Split, str] = {"validation": "val", "test": "test"}
BASELINE = "kd"

# What a trial's row says about the trial itself; every other column without a slash is a field of its config.
_BOOKKEEPING = frozenset(
    {"trial_id", "study", "space", "stage", "name", "method", "config_id", "replicate", "seed", "data_seed"}
    | {"status", "error", "epochs", "started", "seconds"}
)


@dataclass(frozen=True)
class StudyRecords:
    """Everything that a study recorded: one row a trial, and one row an epoch of a trial."""

    trials: pa.Table
    epochs: pa.Table


@dataclass(frozen=True)
class ConfigSummary:
    """One repeated config: a control, or one that was promising in the search.

    Args:
        config_id: digest of the config.
        name: what a person calls it, such as `w16-T4.0`.
        method: distillation method.
        stage: `control` or `replicate`.
        varied: the fields that the search varied, with this config's values; empty for a control.
        accuracy: the objective on `split` over repetitions, a fraction where it is accuracy.
        gap: sharpness gap over repetitions, in nats; n is 0 for a method without one.
        test_accuracy: the same on the test split; n is 0 where that was not read.
        against_baseline: accuracy less the baseline's, paired by replicate; None for the baseline itself and
            where the study has none.
        search_accuracy: what it reached in the search, optimistic; None for a control.
        corrected_p: the p-value of `against_baseline`, corrected by Holm's method for all that are compared with the
            baseline; None where the study does not compare methods.
        split: what `accuracy` and `against_baseline` are of; the test split where a comparison was confirmed.
        objective: what the objective is called.
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
    split: Split = "validation"
    objective: str = "accuracy"


def open_study(directory: str | Path) -> StudyRecords:
    """The records in a study's folder.

    Raises:
        FileNotFoundError: the folder holds no records.
    """
    return StudyRecords(read_trials(directory), read_epochs(directory))


def find_study(named: str | Path | None, results: Path) -> Path:
    """The folder of the study that `named` gives, else of the study in `results` that was written to last.

    Where `results` holds no study with records, it is the example that comes with this package.
    """
    if named:
        return Path(named)
    written = {path.parent.parent: path.stat().st_mtime for path in results.glob("*/records/trials")}
    return max(written, key=lambda directory: written[directory]) if written else EXAMPLE


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column as (n,) float64, nan where it is null."""
    return np.array([np.nan if value is None else value for value in table[name].to_pylist()], dtype=np.float64)


def trial_scores(trials: pa.Table, split: Split = "validation") -> NDArray[np.float64]:
    """Each trial's objective as (n,) float64, nan where it has none.

    Args:
        trials: of one dataset or of several.
        split: which one it is of.
    """
    measures = [objective_of(dataset or "", _PREFIX[split]) for dataset in _datasets(trials)]
    columns = {name: numbers(trials, name) for name in set(measures)}
    return np.array([columns[name][row] for row, name in enumerate(measures)], dtype=np.float64)


def objective(trials: pa.Table) -> str:
    """What the objective of the trials is called: accuracy, F1, Matthews correlation; score if there are several."""
    words = _objectives(trials)
    return words[0] if len(words) == 1 else "score"


def objective_note(trials: pa.Table) -> str | None:
    """What accuracy stands for where these trials are spoken of in general, in a sentence; None if for itself."""
    words = _objectives(trials)
    if words == ["accuracy"]:
        return None
    return f"Where accuracy is said of them, what the task is scored by is meant: {' or '.join(words)}."


def objective_measure(trials: pa.Table) -> str:
    """The measure on the validation split that decides on these trials, which are of one dataset."""
    return objective_of(next((dataset for dataset in _datasets(trials) if dataset), ""))


def _objectives(trials: pa.Table) -> list[str]:
    return sorted({objective_in_words(dataset or "") for dataset in _datasets(trials)}) or ["accuracy"]


def _datasets(trials: pa.Table) -> list[str | None]:
    known: list[str | None] = [None] * trials.num_rows
    return trials["dataset"].to_pylist() if "dataset" in trials.column_names else known


def select(
    trials: pa.Table,
    *,
    stages: Collection[str] | None = None,
    statuses: Collection[str] | None = ("finished",),
) -> pa.Table:
    """The trials of these stages that ended so, in the order of the table; None takes all."""
    for name, wanted in (("stage", stages), ("status", statuses)):
        if wanted is not None:
            trials = trials.filter(pc.is_in(trials[name], pa.array(list(wanted), pa.string())))
    return trials


def varied_fields(trials: pa.Table) -> tuple[str, ...]:
    """The config's fields that took more than one value in the search, in the order of the columns."""
    searched = select(trials, stages=[SEARCH], statuses=None)
    fields = [name for name in searched.column_names if "/" not in name and name not in _BOOKKEEPING]
    return tuple(name for name in fields if pc.count_distinct(searched[name], mode="all").as_py() > 1)


def summarise_configs(trials: pa.Table, *, baseline: str = BASELINE, seed: int = 0) -> list[ConfigSummary]:
    """The repeated configs, controls first, then the promising ones by their mean accuracy, best first.

    Args:
        trials: a study's trials.
        baseline: method of the control that every other config is compared with.
        seed: of the bootstrap intervals.

    Returns:
        One summary for every config with a finished repetition.
    """
    repeated = select(trials, stages=REPEATED)
    controls = repeated.filter(pc.and_(pc.equal(repeated["stage"], "control"), pc.equal(repeated["method"], baseline)))
    summaries = _summaries(trials, repeated, controls, seed)
    return sorted(summaries, key=lambda summary: (summary.stage != "control", -summary.accuracy.value))


def compare_methods(
    trials: pa.Table, *, baseline: str = BASELINE, confirmed: bool = False, seed: int = 0
) -> list[ConfigSummary]:
    """The rows of a study that compares methods, best mean accuracy first, p-values corrected for all of them.

    Args:
        trials: the study's trials: its methods as they are, or the best config that was found for each.
        baseline: the method that all others are compared with.
        confirmed: the methods that were confirmed, on the seeds of their confirmation and by test accuracy.
        seed: of the bootstrap intervals.

    Returns:
        One summary for every method with a finished repetition; none where nothing was confirmed.
    """
    repeated = select(trials, stages=[CONFIRM] if confirmed else REPEATED)
    own = repeated.filter(pc.equal(repeated["method"], baseline))
    rows = sorted(_summaries(trials, repeated, own, seed), key=lambda row: -row.accuracy.value)
    p_values = [math.nan if row.against_baseline is None else row.against_baseline.p_value for row in rows]
    corrected = holm([math.nan if p_value is None else p_value for p_value in p_values])
    return [
        row if math.isnan(p_value) else replace(row, corrected_p=p_value)
        for row, p_value in zip(rows, corrected, strict=True)
    ]


def _summaries(trials: pa.Table, repeated: pa.Table, reference: pa.Table, seed: int) -> list[ConfigSummary]:
    searched = select(trials, stages=[SEARCH])
    in_search = dict(zip(searched["config_id"].to_pylist(), trial_scores(searched).tolist(), strict=True))
    split: Split = "test" if set(repeated["stage"].to_pylist()) == {CONFIRM} else "validation"
    summaries = []
    for config_id in dict.fromkeys(repeated["config_id"].to_pylist()):
        rows = repeated.filter(pc.equal(repeated["config_id"], config_id))
        fields = varied_fields(_of_the_same_method(trials, rows))
        summaries.append(_summary(rows, fields, reference, in_search.get(config_id), split, seed))
    return summaries


def _of_the_same_method(trials: pa.Table, rows: pa.Table) -> pa.Table:
    """The trials of the method that the rows are all of, with or without an adapter as they are."""
    (own,) = set(_method_names(rows))
    return trials.filter(pa.array([name == own for name in _method_names(trials)], pa.bool_()))


def _method_names(trials: pa.Table) -> list[str]:
    adapters = trials["adapter"].to_pylist() if "adapter" in trials.column_names else [None] * trials.num_rows
    return [method_name(*both) for both in zip(trials["method"].to_pylist(), adapters, strict=True)]


def _by_replicate(rows: pa.Table, split: Split) -> dict[int, float]:
    return dict(zip(rows["replicate"].to_pylist(), trial_scores(rows, split).tolist(), strict=True))


def _summary(
    rows: pa.Table,
    fields: tuple[str, ...],
    reference: pa.Table,
    search_accuracy: float | None,
    split: Split,
    seed: int,
) -> ConfigSummary:
    """The summary of one config from its repetitions."""
    first = rows.slice(0, 1).to_pylist()[0]
    is_control = first["stage"] == "control"
    own, others = _by_replicate(rows, split), _by_replicate(reference, split)
    shared = sorted(own.keys() & others.keys())
    against = None
    if shared and first["config_id"] not in reference["config_id"].to_pylist():
        against = within_reach(
            paired_difference([own[r] for r in shared], [others[r] for r in shared], seed=seed), objective_measure(rows)
        )
    return ConfigSummary(
        config_id=first["config_id"],
        name=re.sub(r"-s\d+$", "", first["name"]),
        method=method_name(first["method"], first.get("adapter")),
        stage=first["stage"],
        varied={} if is_control else {name: first[name] for name in fields},
        accuracy=mean_score(rows, split),
        gap=mean_interval(numbers(rows, SHARPNESS_GAP)),
        test_accuracy=mean_score(rows, "test"),
        against_baseline=against,
        search_accuracy=None if is_control else search_accuracy,
        split=split,
        objective=objective(rows),
    )


def objective_of_all(summaries: Collection[ConfigSummary]) -> str:
    """What the objective of these configs is called."""
    return next((summary.objective for summary in summaries), "accuracy")


def mean_score(trials: pa.Table, split: Split = "validation") -> Estimate:
    """The mean of the trials' objective over seeds, its interval cut to what the objective can be.

    Args:
        trials: of one dataset.
        split: which one it is of.
    """
    return within_range(mean_interval(trial_scores(trials, split)), *_possible(objective_measure(trials)))


def within_reach(difference: Estimate, measure: str) -> Estimate:
    """A difference of two scores with its interval cut to what they can differ by.

    Args:
        difference: of scores.
        measure: what they are of.
    """
    least, most = _possible(measure)
    return within_range(difference, least - most, most - least)


def _possible(measure: str) -> tuple[float, float]:
    """The smallest and the largest value that an objective can have."""
    return (-1.0, 1.0) if measure == "val/matthews" else (0.0, 1.0)


def method_name(method: str, adapter: bool | None) -> str:
    """A method as tables and figures call it: with an adapter that it could do without it is another one."""
    return f"{method}+adapter" if adapter else method


def survivor_note(trials: pa.Table) -> str | None:
    """What must be said wherever only finished search trials are looked at; None if all of them finished."""
    statuses = select(trials, stages=[SEARCH], statuses=None)["status"].to_pylist()
    pruned, failed = statuses.count("pruned"), statuses.count("failed")
    if not pruned + failed:
        return None
    return (
        f"Survivors only: of {len(statuses)} search trials {pruned} stopped early and {failed} failed, and are "
        f"left out. What finished was selected by {objective(trials)}, which narrows spreads and bends correlations."
    )


def markdown_table(summaries: Collection[ConfigSummary], *, baseline: str = BASELINE) -> str:
    """The summaries as a Markdown table, with the methods of its estimates below it."""
    if not summaries:
        return "No config was repeated on fresh seeds, so no mean can be given."
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
    notes = [*sorted(methods), "p-values are of single comparisons, not corrected for the number of rows"]
    if any(summary.search_accuracy is not None for summary in summaries):
        notes.append(f"`in search` is the {words} that a config was picked by: optimistic, and in no estimate")
    return "\n".join([*lines, "", *(f"- {note}." for note in notes)])


def _cells(summary: ConfigSummary) -> list[str]:
    varied = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in summary.varied.items()
    )
    searched = "" if summary.search_accuracy is None else f"{summary.search_accuracy:.3f}"
    return [
        f"{summary.name} ({summary.config_id})",
        varied or summary.stage,
        str(summary.accuracy.n),
        _with_interval(summary.accuracy),
        _with_interval(summary.test_accuracy),
        _with_interval(summary.gap),
        "" if summary.against_baseline is None else str(summary.against_baseline),
        searched,
    ]


def _with_interval(estimate: Estimate) -> str:
    if estimate.n == 0:
        return ""
    interval = "" if np.isnan(estimate.low) else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"
