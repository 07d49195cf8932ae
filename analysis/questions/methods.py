"""Tables of a comparison of methods."""

import math
from collections.abc import Mapping, Sequence

from analysis.questions.costs import ConfigCost, times
from analysis.reading.trials import BASELINE, ConfigSummary, objective_of_all
from analysis.statistics.estimates import Estimate

COST_NOTE = (
    "- Costs are those of a training step over one of cross-entropy on the same student: FLOPs, with a stored "
    "teacher's passes shared out, and measured time, without them. What training a teacher took is in neither."
)


def settings_of(summary: ConfigSummary) -> str:
    """Format the tuned parameters of a method with their values; empty for a method with published settings."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in summary.varied.items()
    )


def methods_table(
    summaries: Sequence[ConfigSummary], costs: Mapping[str, ConfigCost] | None = None, *, baseline: str = BASELINE
) -> str:
    """Format the comparison as a Markdown table, followed by the methods of the estimates.

    Args:
        summaries: one summary per row.
        costs: costs by `config_id`, or None to leave them out.
        baseline: method that the other methods are compared with.
    """
    if not summaries:
        return "No method has a finished trial, so no mean can be given."
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
            in_search = "" if summary.search_accuracy is None else f"{summary.search_accuracy:.3f}"
            cells += [in_search, settings_of(summary)]
        lines.append("| " + " | ".join(cells) + " |")
    methods = {summary.accuracy.method for summary in summaries}
    methods |= {summary.against_baseline.method for summary in summaries if summary.against_baseline}
    notes = [f"- {note}." for note in sorted(methods)]
    notes += [COST_NOTE] if costs is not None else []
    return "\n".join([*lines, "", *notes])


def split_of(summaries: Sequence[ConfigSummary]) -> str:
    """Return the split of the accuracies; all summaries of a comparison share one split."""
    return summaries[0].split if summaries else "validation"


def _cells(summary: ConfigSummary) -> list[str]:
    against = summary.against_baseline
    return [
        summary.method,
        str(summary.accuracy.n),
        _with_interval(summary.accuracy),
        _with_interval(summary.gap),
        "(baseline)" if against is None else _with_interval(against, sign="+"),
        "" if against is None or against.p_value is None else f"{against.p_value:.3g}",
        "" if summary.corrected_p is None else f"{summary.corrected_p:.3g}",
    ]


def _with_interval(estimate: Estimate, *, sign: str = "") -> str:
    if not estimate.n:
        return ""
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"
    return f"{estimate.value:{sign}.3f}{interval}"
