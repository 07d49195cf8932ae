"""Tables for a comparison of methods."""

from collections.abc import Mapping, Sequence

from analysis.questions.costs import ConfigCost, times
from analysis.questions.searches import method_label
from analysis.reading.trials import BASELINE, ConfigSummary, objective_of_all
from analysis.statistics.estimates import interval_methods
from trainables.display.numbers import (
    format_difference,
    format_estimate,
    format_gap,
    format_number,
    format_p,
    format_settings,
)

COST_NOTE = (
    "- Costs are ratios of a training step to one of cross-entropy on the same student. FLOPs include the divided "
    "passes of a stored teacher, measured times do not. The training of the teacher is not included."
)


def settings_of(summary: ConfigSummary) -> str:
    """Format a method's tuned parameters with their values; empty for a method with published settings."""
    return format_settings(summary.varied)


def settings_in_words(summary: ConfigSummary) -> str:
    """Format the tuned parameters with their values, names as words: `adapter width 16, student cnn_8_16`."""
    return format_settings({name.replace("_", " "): value for name, value in summary.varied.items()})


def config_label(config: ConfigSummary) -> str:
    """Return a repeated config's method, followed by the searched or tuned values."""
    settings = settings_in_words(config)
    return f"{config.method} ({settings})" if settings else config.method


def methods_table(
    summaries: Sequence[ConfigSummary], costs: Mapping[str, ConfigCost] | None = None, *, baseline: str = BASELINE
) -> str:
    """Format the comparison as a Markdown table, followed by the estimation methods.

    Args:
        summaries: one summary per row.
        costs: costs by `config_id`, or None to leave them out.
        baseline: method to compare the other methods with.
    """
    if not summaries:
        return "No method has a finished trial, so there is no mean."
    words = objective_of_all(summaries)
    heads = ["method", "n", f"{split_of(summaries)} {words}", "sharpness gap (nats)"]
    heads += [f"{words} − {baseline}", "p", "p (Holm)"]
    searched = any(summary.search_accuracy is not None for summary in summaries)
    heads += ["FLOPs × ce", "time × ce"] if costs is not None else []
    heads += ["in search", "tuned"] if searched else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for summary in summaries:
        cells = _cells(summary)
        if costs is not None:
            cost = costs.get(summary.config_id)
            cells += ["", ""] if cost is None else [times(cost.flops_to_ce), times(cost.seconds_to_ce)]
        if searched:
            cells += [format_number(summary.search_accuracy), settings_of(summary)]
        lines.append("| " + " | ".join(cells) + " |")
    methods = {summary.accuracy.method for summary in summaries}
    methods |= {summary.against_baseline.method for summary in summaries if summary.against_baseline}
    notes = [f"- {note}." for note in interval_methods(methods)]
    notes += [COST_NOTE] if costs is not None else []
    return "\n".join([*lines, "", *notes])


def method_cell(summary: ConfigSummary) -> str:
    """Return the method in a row, with the number of averaged searches."""
    return method_label(summary.method, summary.searches)


def split_of(summaries: Sequence[ConfigSummary]) -> str:
    """Return the accuracy split; all summaries in a comparison share one split."""
    return summaries[0].split if summaries else "validation"


def _cells(summary: ConfigSummary) -> list[str]:
    against = summary.against_baseline
    return [
        method_cell(summary),
        str(summary.accuracy.n),
        format_estimate(summary.accuracy),
        format_gap(summary.gap),
        "(baseline)" if against is None else format_difference(against),
        "" if against is None else format_p(against.p_value),
        format_p(summary.corrected_p),
    ]
