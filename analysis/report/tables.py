"""Report tables, as rows of strings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from analysis.questions.association import Association
from analysis.questions.calibration import TEST, calibration_errors
from analysis.questions.confirmation import ConfirmationResult
from analysis.questions.confirmation_words import described
from analysis.questions.costs import ConfigCost, times
from analysis.questions.importance import Importance
from analysis.questions.methods import method_cell, settings_in_words, split_of
from analysis.questions.power import Resolution, spread_in_words
from analysis.questions.samples import compare_classes
from analysis.questions.searches import SearchComparison
from analysis.reading.trials import (
    BASELINE,
    CONFIRM,
    ConfigSummary,
    numbers,
    objective,
    objective_of_all,
    select,
    trial_scores,
)
from analysis.report.folder import StudyFolder
from analysis.report.shown import Shown
from analysis.report.typesetting import unbroken
from analysis.statistics.estimates import Estimate, interval_methods, mean_interval, within_range
from analysis.statistics.nested import VarianceShare
from analysis.statistics.power import LEVEL, MOST_SEEDS, POWER
from trainables.display.failures import kind_of, one_line, traceback_of
from trainables.display.numbers import (
    NETWORK_PLACES,
    format_correlation,
    format_difference,
    format_duration,
    format_estimate,
    format_gap,
    format_interval,
    format_number,
    format_p,
    format_percent,
)

_MOST_ROWS = 40
_MOST_TRACEBACKS = 5
PLANNED = (0.0025, 0.005, 0.01, 0.02, 0.04)  # differences in the seed table
_CALIBRATION = (("student", "val/ece_student"), ("teacher", "val/ece_teacher"), ("adapted teacher", "val/ece_adapted"))


@dataclass(frozen=True)
class Table:
    """Report table.

    Args:
        caption: table caption.
        heads: column headings; the first column names the row.
        rows: rows with one cell per heading.
        notes: notes below the table.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def without_empty_columns(self) -> "Table":
        """Return the table without all-empty columns."""
        kept = [place for place in range(len(self.heads)) if not place or any(row[place] for row in self.rows)]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return Table(self.caption, tuple(self.heads[place] for place in kept), rows, self.notes)

    def unbroken(self) -> "Table":
        """Return the table with intervals kept on one line."""
        return replace(self, rows=tuple(tuple(map(unbroken, row)) for row in self.rows))


def results_table(
    study: StudyFolder, configs: Sequence[ConfigSummary], costs: Mapping[str, ConfigCost], *, brief: bool = False
) -> Table:
    """Tabulate configs with controls, or compared methods, as repeated on fresh seeds.

    Args:
        study: the study.
        configs: one row each.
        costs: costs by config.
        brief: leave out the row settings.
    """
    compares, words, confirmed = study.compares_methods, objective_of_all(configs), split_of(configs) == "test"
    heads = (
        "method" if compares else "config",
        "tuned" if compares else "searched",
        "n",
        f"test {words}" if confirmed else f"val {words}",
        "" if confirmed else f"test {words}",
        "sharpness gap (nats)",
        f"{words} − {BASELINE}, paired",
        "p",
        "p (Holm)",
        "FLOPs × ce",
        "time × ce",
        "in search",
    )
    rows = []
    for config in configs:
        against = config.against_baseline
        label = method_cell(config) if compares or config.stage == "control" else config.name
        rows.append((
            f"{label} (control)" if config.stage == "control" and not compares else label,
            "" if brief else settings_in_words(config),
            str(config.accuracy.n),
            format_estimate(config.accuracy),
            "" if confirmed else format_estimate(config.test_accuracy),
            format_gap(config.gap),
            _against_baseline(config),
            "" if against is None else format_p(against.p_value),
            format_p(config.corrected_p),
            times(costs[config.config_id].flops_to_ce) if config.config_id in costs else "",
            times(costs[config.config_id].seconds_to_ce) if config.config_id in costs else "",
            format_number(config.search_accuracy),
        ))  # fmt: skip
    methods = {config.accuracy.method for config in configs}
    methods |= {config.against_baseline.method for config in configs if config.against_baseline is not None}
    caption = "Methods on equal seeds, validation split" if compares else "Repeated on fresh seeds, validation split"
    caption = "Methods confirmed on fresh seeds, test split, evaluated once" if confirmed else caption
    return Table(
        caption, heads, tuple(rows), tuple(f"{method}." for method in interval_methods(methods))
    ).without_empty_columns()


def _against_baseline(config: ConfigSummary) -> str:
    if config.against_baseline is None:
        return "(baseline)" if config.method == BASELINE else ""
    return format_difference(config.against_baseline)


def confirmed_tables(confirmed: ConfirmationResult) -> list[Table]:
    """Tabulate the configs and the comparisons in a confirmation."""
    words = confirmed.objective
    rows = [
        (
            described(each), str(each.test_accuracy.n),
            format_estimate(each.test_accuracy), format_estimate(each.accuracy),
            format_gap(each.gap), format_number(each.search_score),
            "" if each.optimism is None else format_difference(each.optimism),
        )
        for each in confirmed.configs
    ]  # fmt: skip
    averaged = [
        (
            each.label, str(each.test_accuracy.n), format_estimate(each.test_accuracy), format_estimate(each.accuracy),
            format_gap(each.gap), "", "",
        )
        for each in confirmed.methods
    ]  # fmt: skip
    heads = (
        "config", "n", f"test {words}", f"val {words}", "sharpness gap (nats)", confirmed.score_before,
        "optimism (score − val)"
    )  # fmt: skip
    found = {each.test_accuracy.method for each in confirmed.configs}
    found |= {each.test_accuracy.method for each in confirmed.methods}
    methods = tuple(f"{method}." for method in interval_methods(found))
    notes = (confirmed.note, *methods) if confirmed.note else methods
    tables = [Table("Confirmed on fresh seeds", heads, (*averaged, *rows), notes)]
    if confirmed.comparisons:
        compared = tuple(
            (
                each.label, each.against_label, str(each.difference.n), format_difference(each.difference),
                format_p(each.difference.p_value), format_p(each.corrected_p),
            )
            for each in confirmed.comparisons
        )  # fmt: skip
        how = tuple(
            f"{method}." for method in interval_methods({each.difference.method for each in confirmed.comparisons})
        )
        against = (f"test {words} of", "minus that of", "n", "difference", "p", "p (Holm)")
        tables.append(Table("Compared by seed", against, compared, how))
    return [table.without_empty_columns() for table in tables]


def power_table(resolution: Resolution) -> Table:
    """Tabulate the seeds needed for several differences, for a study with a known spread."""
    tests = len(resolution.compared)
    heads: tuple[str, ...] = ("difference", "seeds")
    if tests > 1:
        heads += (f"seeds after Holm, {tests} comparisons",)
    corrections = (False, True)[: len(heads) - 1]
    rows = tuple(
        (format_number(each, NETWORK_PLACES), *(_seeds(resolution.needed(each, corrected=one)) for one in corrections))
        for each in PLANNED
    )
    notes = (
        f"Seeds that show a true difference of that size with power {POWER:g} at the two-sided level {LEVEL:g}, by "
        f"{spread_in_words(resolution)}; paired t-test with the levels that sign flips can reach. After Holm: the "
        "first step of the correction, a lower bound on its power.",
    )
    return Table("Seeds needed for a difference", heads, rows, notes)


def searches_table(found: SearchComparison) -> Table:
    """Tabulate the differences between methods over seeds and searches."""
    rows = tuple(
        (name, str(found.searches[name]), str(each.n), format_difference(each))
        for name, each in sorted(found.differences.items(), key=lambda both: -both[1].value)
    )
    methods = [f"{each}." for each in interval_methods(each.method for each in found.differences.values())]
    heads = ("method", "searches", "n", f"difference from {BASELINE}")
    return Table("Methods with their searches, validation split", heads, rows, (found.note, *methods))


def _seeds(needed: int | None) -> str:
    return f"> {MOST_SEEDS:,}" if needed is None else f"{needed:,}"


def samples_table(confirmed: ConfirmationResult) -> Table | None:
    """Tabulate the comparisons over seeds, and over seeds and test samples; None without recorded answers."""
    known = [(each, each.over_samples) for each in confirmed.comparisons if each.over_samples is not None]
    if not known:
        return None
    rows = tuple(
        (each.label, each.against_label, str(each.difference.n), format_difference(each.difference),
         format_interval(crossed, signed=True))
        for each, crossed in known
    )  # fmt: skip
    heads = ("test accuracy of", "minus that of", "n", "difference over seeds", "over seeds and samples")
    notes = (
        "Intervals over seeds hold for these test samples; those over seeds and samples for new samples like them.",
        *(f"{each}." for each in interval_methods(crossed.method for _, crossed in known)),
    )
    return Table("Compared over seeds and test samples", heads, rows, notes)


def factors_table(confirmed: ConfirmationResult) -> Table | None:
    """Tabulate the comparisons over seeds, and over teachers or splits; None for a single teacher and split."""
    known = [(each, each.beyond_seeds) for each in confirmed.comparisons if each.beyond_seeds is not None]
    if not known:
        return None
    rows = tuple(
        (each.label, each.against_label, str(each.difference.n), format_difference(each.difference), str(over.mean.n),
         format_difference(over.mean), *_shares(over.share))
        for each, over in known
    )  # fmt: skip
    words, unit, over_words = confirmed.objective, known[0][1].unit, known[0][1].over
    heads = (
        f"test {words} of", "minus that of", "seeds", "difference over seeds", f"{unit}s", f"over {over_words}",
        f"share of {unit}s", "of teachers in a split", "of seeds",
    )  # fmt: skip
    new = "new teachers trained alike" if unit == "teacher" else "new splits into train and validation"
    notes = (
        f"Intervals over seeds hold for these {unit}s. Those over {over_words} hold for {new}, and are wide for few "
        f"{unit}s. Shares are of the variance of a difference, that of {unit}s with an interval where one exists.",
        *(f"{each}." for each in interval_methods(over.mean.method for _, over in known)),
        *(f"{each}." for each in interval_methods(over.share.method for _, over in known)),
    )
    return Table(f"Compared over {over_words}", heads, rows, notes).without_empty_columns()


def _shares(share: VarianceShare) -> tuple[str, str, str]:
    if math.isnan(share.between):
        return "unknown", "", "unknown"
    interval = "" if math.isnan(share.low) else f" ({share.low:.0%} to {share.high:.0%})"
    inner = "" if share.inner is None else f"{share.inner:.0%}"
    return f"{share.between:.0%}{interval}", inner, f"{share.rest:.0%}"


def classes_table(study: StudyFolder, confirmed: ConfirmationResult) -> Table | None:
    """Tabulate the first choice's accuracy and gap within each class, against kd; None without recorded sums."""
    against = confirmed.of_first(control=BASELINE)
    if confirmed.first is None or not against:
        return None
    trials = select(study.records.trials, stages=[CONFIRM])
    own, other = (
        trials.filter(pc.equal(trials["config_id"], config_id))
        for config_id in (confirmed.first.config_id, against[0].against)
    )
    found = compare_classes(own, other, seed=study.seed)
    if not found:
        return None
    shown = sorted(found, key=lambda each: each.accuracy.value)[:_MOST_ROWS]
    rows = tuple(
        (str(each.place), str(each.samples), format_estimate(each.accuracy), format_difference(each.difference),
         format_gap(each.gap))
        for each in shown
    )  # fmt: skip
    label = next((each.label for each in confirmed.configs if each.config_id == against[0].against), "")
    heads = ("class", "test samples", "test accuracy", f"− {label}", "val sharpness gap (nats)")
    left_out = len(found) - len(shown)
    notes = (
        f"Classes in the order of accuracy, lowest first{f'; {left_out} more are left out' if left_out else ''}. "
        "Intervals over seeds, not corrected for the number of classes: exploratory.",
    )
    return Table(f"{confirmed.first.label} within classes", heads, rows, notes).without_empty_columns()


def calibration_table(study: StudyFolder, shown: Shown) -> Table | None:
    """Tabulate expected calibration errors on the validation split, and on the test split for confirmed students.

    Returns:
        The table, or None if no error was recorded.
    """
    trials = select(study.records.trials, stages=shown.stages)
    rows = []
    for config_id, label in shown.rows:
        own = trials.filter(pc.equal(trials["config_id"], config_id))
        columns = [numbers(own, measure) for _, measure in _CALIBRATION]
        columns += [calibration_errors(own, TEST["student"])] if shown.is_confirmed else []
        errors = [within_range(mean_interval(column), 0.0, 1.0) for column in columns]
        if any(error.n for error in errors):
            rows.append((label, str(max(error.n for error in errors)), *map(_of_networks, errors)))
    if not rows:
        return None
    tested = ("calibration error, student on test",) if shown.is_confirmed else ()
    heads = ("config", "n", *(f"calibration error, {network}" for network, _ in _CALIBRATION), *tested)
    note = "Expected calibration error in 15 bins, mean over seeds with Student t intervals, on the validation split"
    note += ", except in the last column." if tested else "."
    return Table("Calibration", heads, tuple(rows), (note,)).without_empty_columns()


def _of_networks(error: Estimate) -> str:
    """Format an error over seeds, without an interval if all seeds share one value up to rounding.

    This happens for a teacher shared by all seeds.
    """
    return (
        format_number(error.value)
        if error.n and math.isclose(error.low, error.high, rel_tol=1e-9)
        else format_estimate(error)
    )


def importance_table(found: Sequence[Importance]) -> Table:
    """Tabulate the shares for the searched parameters with their intervals, by evaluator."""
    rows = tuple(
        (
            each.parameter.replace("_", " "), each.evaluator, format_estimate(each.estimate, 2),
            format_p(each.estimate.p_value), format_percent(each.first),
        )
        for each in found
    )  # fmt: skip
    notes = tuple(dict.fromkeys(f"{each.estimate.method}; {each.evidence}: {each.note}." for each in found))
    return Table("Share of each parameter", ("parameter", "by", "share", "p of no effect", "first in"), rows, notes)


def association_table(found: Sequence[Association], objective: str) -> Table:
    """Tabulate rank correlations between gaps and objective, between and within configs."""
    rows = tuple(
        (
            f"{each.gap}, {each.level} configs",
            ", ".join(name.replace("_", " ") for name in each.held) or "nothing",
            each.evidence,
            str(each.estimate.n),
            format_correlation(each.estimate),
            format_p(each.estimate.p_value),
        )
        for each in found
    )
    heads = ("gap", "held", "evidence", "n", "rank correlation", "p")
    notes = (
        "Each p-value is for one association and not corrected for the number of associations; n counts configs.",
        *dict.fromkeys(f"{each.evidence.capitalize()}: {each.note}." for each in found),
        *dict.fromkeys(f"{each.estimate.method}." for each in found),
    )
    return Table(f"Rank correlations with validation {objective}", heads, rows, notes)


def failures_table(trials: pa.Table) -> Table | None:
    """Tabulate the failed trials with their error messages; None if no trial failed.

    A note has the traceback of an error in user code, once for all trials with the same failure.
    """
    failed = select(trials, statuses=["failed"]).to_pylist()
    if not failed:
        return None
    rows = tuple(
        (row["name"], row["trial_id"], row["stage"], str(row["epochs"] or 0), one_line(row["error"] or ""))
        for row in failed
    )
    first: dict[tuple[str, str], str] = {}
    for row in failed:
        if traceback := traceback_of(row["error"] or ""):
            first.setdefault(kind_of(row["error"]), f"{row['name']} ({row['trial_id']}):\n{traceback}")
    table = _shortened("Failed", ("trial", "id", "stage", "epochs", "error"), rows)
    return replace(table, notes=(*table.notes, *list(first.values())[:_MOST_TRACEBACKS]))


def pruned_table(trials: pa.Table) -> Table | None:
    """Tabulate the trials stopped early; None if there are none."""
    pruned = select(trials, statuses=["pruned"])
    if not pruned.num_rows:
        return None
    rows = tuple(
        (row["name"], row["trial_id"], f"{row['epochs']} of {row['epochs_planned'] or '?'}", format_number(score))
        for row, score in zip(pruned.to_pylist(), trial_scores(pruned).tolist(), strict=True)
    )
    return _shortened("Stopped early", ("trial", "id", "epochs", f"val {objective(pruned)} then"), rows)


def _shortened(caption: str, heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Table:
    left = len(rows) - _MOST_ROWS
    notes = (f"{left:,} more are in records/.",) if left > 0 else ()
    return Table(caption, heads, rows[:_MOST_ROWS], notes)


def trial_counts(trials: pa.Table) -> Table | None:
    """Count the trials by stage and status; None if there are no trials."""
    stages = trials["stage"].to_pylist()
    if not stages:
        return None
    ended = list(zip(stages, trials["status"].to_pylist(), trials["seconds"].to_pylist(), strict=True))
    rows = []
    for stage in dict.fromkeys(stages):
        own = [(status, seconds) for of, status, seconds in ended if of == stage]
        counts = [sum(status == wanted for status, _ in own) for wanted in ("finished", "pruned", "failed")]
        spent = math.fsum(seconds or 0.0 for _, seconds in own)
        rows.append((stage, str(len(own)), *(str(count) if count else "" for count in counts), format_duration(spent)))
    heads = ("stage", "trials", "finished", "stopped early", "failed", "computing time")
    return Table("Trials", heads, tuple(rows)).without_empty_columns()
