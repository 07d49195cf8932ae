"""What a comparison of methods found, as a table and a figure."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from analysis.drawing import BLUE, INK, MEASURE_LABELS, ORANGE, bars, new_figure
from analysis.statistics import Estimate
from analysis.trials import BASELINE, ConfigSummary

_INCHES_PER_METHOD = 0.22


def settings_of(summary: ConfigSummary) -> str:
    """What was tuned of a method and where it ended, in words; nothing of one as published."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in summary.varied.items()
    )


def methods_table(summaries: Sequence[ConfigSummary], *, baseline: str = BASELINE) -> str:
    """The comparison as a Markdown table, with the methods of its estimates below it."""
    if not summaries:
        return "No method has a finished trial, so no mean can be given."
    heads = ["method", "n", "accuracy", "sharpness gap (nats)", f"accuracy − {baseline}", "p", "p (Holm)"]
    searched = any(summary.search_accuracy is not None for summary in summaries)
    heads += ["in search", "tuned"] if searched else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for summary in summaries:
        cells = _cells(summary)
        if searched:
            in_search = "" if summary.search_accuracy is None else f"{summary.search_accuracy:.3f}"
            cells += [in_search, settings_of(summary)]
        lines.append("| " + " | ".join(cells) + " |")
    methods = {summary.accuracy.method for summary in summaries}
    methods |= {summary.against_baseline.method for summary in summaries if summary.against_baseline}
    return "\n".join([*lines, "", *(f"- {note}." for note in sorted(methods))])


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


def draw_methods(summaries: Sequence[ConfigSummary], *, baseline: str = BASELINE) -> Figure:
    """Accuracy of every method with its interval, the best on top; a line where the baseline lies."""
    counts = sorted({summary.accuracy.n for summary in summaries})
    n = " to ".join(str(count) for count in (counts if len(counts) < 3 else [counts[0], counts[-1]])) or "0"
    how = summaries[0].accuracy.method if summaries else "nothing finished"
    figure, (axes,) = new_figure("Methods", f"n = {n} seeds a method; {how}.")
    figure.set_figheight(2.0 + _INCHES_PER_METHOD * max(6, len(summaries)))
    for row, summary in enumerate(reversed(summaries)):
        colour = ORANGE if summary.method == baseline else BLUE
        lengths = bars(summary.accuracy)
        axes.errorbar([summary.accuracy.value], [row], xerr=lengths, fmt="o", color=colour, capsize=3)
        if summary.method == baseline:
            axes.axvline(summary.accuracy.value, color=INK, linestyle=":", linewidth=1.2)
    axes.set_yticks(range(len(summaries)), [summary.method for summary in reversed(summaries)], fontsize=8)
    axes.set_xlabel(MEASURE_LABELS["accuracy"])
    return figure
