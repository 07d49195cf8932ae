"""Parallel coordinates chart. Plotly's own trace type has neither names on hover nor logarithmic axes."""

import math
from typing import Final

import numpy as np

from analysis.figures.drawing import GREY
from analysis.figures.parallel import ParallelCoordinates, colour_of
from analysis.report.charts import Chart, Trace, blank_chart, hover_lines, plain

_HEIGHT: Final = 430
_AXIS_WIDTH: Final = 80  # pixels needed for an axis name and the axis labels
_BEHIND_TEXT: Final = "rgba(255,255,255,0.75)"  # the page's script has another colour for a dark page
_ROOM: Final = 0.05
_RIGHT: Final = 0.6  # room for the last axis's labels, in axis distances


def least_width(found: ParallelCoordinates) -> int:
    """Return the required width for the axes in pixels; narrower screens scroll the figure sideways."""
    return _AXIS_WIDTH * (len(found.axes) + 1)


def parallel_chart(found: ParallelCoordinates) -> Chart:
    """Chart one line per trial. Trials with the same colour share a trace, so a thousand trials stay usable."""
    traces: list[Trace] = []
    for level in sorted(set(found.level.tolist())):
        x: list[float | None] = []
        y: list[float | None] = []
        hover: list[str] = []
        for trial in np.flatnonzero(found.level == level):
            places = [float(axis.places[trial]) for axis in found.axes]
            x += [*map(float, range(len(places))), None]
            y += [*(each if math.isfinite(each) else None for each in places), None]
            hover += [*[hover_lines(found.labels[trial])] * len(places), ""]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "hovertext": hover, "hoverinfo": "text",
            "line": {"color": colour_of(level), "width": 1.5}, "marker": {"color": colour_of(level), "size": 4},
            "showlegend": False, "connectgaps": False,
        })  # fmt: skip
    chart = blank_chart(traces, "", "", height=_HEIGHT)
    axes = range(len(found.axes))
    chart["layout"]["xaxis"] |= {
        "tickvals": list(axes), "ticktext": [plain(each.name).replace(" ", "<br>") for each in found.axes],
        "range": [-_ROOM, len(found.axes) - 1 + _RIGHT], "showgrid": False, "tickangle": 0, "ticks": "",
        "tickfont": {"size": 11},
    }  # fmt: skip
    chart["layout"]["yaxis"] |= {"visible": False, "range": [-_ROOM, 1 + _ROOM]}
    chart["layout"]["shapes"] = [
        {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
        for place in axes
    ]
    chart["layout"]["annotations"] = [
        {
            "text": plain(label), "x": place, "y": at, "xanchor": "left", "xshift": 3, "showarrow": False,
            "font": {"size": 11}, "bgcolor": _BEHIND_TEXT, "borderpad": 0,
        }
        for place, axis in enumerate(found.axes)
        for at, label in axis.ticks
    ]  # fmt: skip
    return chart
