"""Interactive figures in the plotly.js format: plain dictionaries of lists.

The charts show the results from the `compute_…` functions in `analysis.figures.study` and similar functions, without
further computation. Plotly interprets legends and labels as markup, so text from records passes through `plain`.
"""

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from analysis.figures.calibration import dot_sizes
from analysis.figures.curves import MEASURES, LearningCurve, Measure, best_first, curve_label, curve_window
from analysis.figures.drawing import BLUE, GREY, INK, ORANGE, SKY, VERMILION, Style, bars, style_of
from analysis.figures.intervention import ARM_STYLES, imposed_windows
from analysis.figures.methods import floor_of, pareto_front, ratio_ticks, reach
from analysis.figures.pareto import axis_of, front_window, panels_of, parts_of, stairs
from analysis.figures.robust import MOST_NAMED, Window, mark_of, row_window
from analysis.figures.study import GapAgainstAccuracy, History, ParameterEffect
from analysis.questions.calibration import Reliability, networks_of
from analysis.questions.costs import ConfigCost, times
from analysis.questions.importance import Importance
from analysis.questions.intervention import ImposedGap, fitted_line
from analysis.questions.methods import config_label, settings_of, split_of
from analysis.questions.pareto import Front
from analysis.reading.trials import BASELINE, ConfigSummary, objective_of_all
from analysis.report.labels import AWAY, place_labels
from analysis.report.typesetting import UNBROKEN
from analysis.statistics.estimates import MIN_UNITS, Estimate
from analysis.statistics.resampling import Floats
from trainables.display.numbers import format_estimate, format_number

Chart: TypeAlias = dict[str, Any]
Trace: TypeAlias = dict[str, Any]

# Plotly does not wrap titles, so a title must fit below a figure on a phone.
_GAP: Final = "sharpness gap (nats)"
_GRID: Final = "#e6e6e6"
_SMALL: Final = 170
_TITLE_LINE: Final = 16  # pixels for another line of a title
_HEIGHT: Final = 400
_PER_ROW: Final = 26
# Plotly names for matplotlib's markers and dashes.
_SYMBOLS: Final = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross", "X": "x"
}  # fmt: skip
_DASHES: Final = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_LOG_TICKS: Final = tuple(base * 10.0**power for power in range(-9, 10) for base in (1, 2, 5))
_FEW_DECADES: Final = 2.5
_LEAST_DECADES: Final = 0.1  # axis width if all points are in one place
_MOST_NAMED: Final = 8  # up to this number, all points get names; beyond it, only the important ones
_HOVER_LETTERS: Final = 48
_LEGEND_LETTERS: Final = 34  # letters per line, from the width of a phone
_ROOM: Final = 0.06  # fraction of an axis beyond the points


def gap_chart(found: GapAgainstAccuracy) -> Chart:
    """Chart the gap against accuracy, with line, band and controls."""
    traces = _band(found.grid, found.line, found.low, found.high, Style(INK, "o", "-"), "least-squares line")
    hover = found.labels or ["one seed"] * len(found.gap)
    traces.append(_points(found.gap, found.accuracy, "search trial", BLUE, hover))
    for method, (gap, accuracy) in found.references.items():
        style = style_of(method, tuple(found.references))
        traces.append(_estimate(gap.value, accuracy, f"{method}, mean of {accuracy.n}", style, x_estimate=gap))
    return within(blank_chart(traces, _GAP, f"validation {found.objective}"), *found.windows)


def front_charts(front: Front) -> list[Chart]:
    """Chart a front: the dataset's objective against each other objective."""
    objective, drawn = front.quantities[0], []
    for across in panels_of(front):
        factor, label = axis_of(across)
        x, y = stairs(front, across)
        line = _line([each * factor for each in x], y, "front of the search", Style(BLUE, "o", "-"))
        line["line"] |= {"shape": "hv"}
        traces = [line]
        for name, points, colour in parts_of(front):
            values = np.array([each.values[objective.name] for each in points])
            at, names = [each.values[across.name] * factor for each in points], [each.label for each in points]
            traces.append(_points(at, values, name, colour, names, hollow=colour != BLUE,
                                  symbol="x" if name == "beyond a limit" else "circle"))  # fmt: skip
        style, shown = Style(VERMILION, "s", "-"), False
        for each in front.on_front:
            found = next((found for name, found in each.confirmed.items() if name.startswith("test/")), None)
            if found is not None:
                name = f"confirmed on the test split, mean of {found.n}"
                trace = _estimate(each.values[across.name] * factor, found, name, style, hover=each.label)
                traces.append({**trace, "legendgroup": "confirmed", "showlegend": not shown})
                shown = True
        drawn.append(within(blank_chart(traces, label, objective.words), Window(), front_window(front)))
    return drawn


def effect_chart(effect: ParameterEffect) -> Chart:
    """Chart a parameter against accuracy: search trials, repeated configs, and the controls as lines."""
    values, accuracy = effect.searched.T
    traces = [_points(values, accuracy, "search trial (one seed)", BLUE, effect.labels or None, hollow=True)]
    for place, (at, estimate, name) in enumerate(effect.repeated):
        label = f"promising config, mean of {estimate.n}"
        trace = _estimate(at, estimate, label, Style(BLUE, "o", "-"), hover=name)
        traces.append({**trace, "legendgroup": "promising", "showlegend": place == 0})
    everywhere = [*values.tolist(), *(at for at, _, _ in effect.repeated if math.isfinite(at))]
    ends = [min(everywhere), max(everywhere)] if everywhere else [0.0, 1.0]
    for method, estimate in effect.references.items():
        style = style_of(method, tuple(effect.references))
        traces.append(
            _line(ends, [estimate.value] * 2, f"{method}, mean of {estimate.n}", style, format_estimate(estimate))
        )
    chart = blank_chart(traces, plain(effect.parameter.replace("_", " ")), f"validation {effect.objective}")
    if effect.categories:
        places = list(range(len(effect.categories)))
        chart["layout"]["xaxis"] |= {"tickvals": places, "ticktext": [plain(each) for each in effect.categories]}
    elif effect.is_log:
        chart["layout"]["xaxis"] |= _log_axis(*ends)
    return within(chart, Window(), effect.window)


def history_chart(history: History) -> Chart:
    """Chart all search trials in order of start, and the best so far."""
    finished = np.array([status == "finished" for status in history.status], dtype=bool)
    stopped = ~finished & np.isfinite(history.accuracy)
    best = _line(history.order, history.best, "best so far", Style(VERMILION, "o", "-"))
    best["line"]["shape"] = "hv"
    labels = history.labels or ("",) * len(history.status)
    own = [label for label, each in zip(labels, finished, strict=True) if each]
    traces = [best, _points(history.order[finished], history.accuracy[finished], "finished", BLUE, own)]
    if stopped.any():
        words = [
            f"{status}\n{label}" for status, label, each in zip(history.status, labels, stopped, strict=True) if each
        ]
        name = "pruned or failed, at the last epoch"
        traces.append(_points(history.order[stopped], history.accuracy[stopped], name, GREY, words, hollow=True))
    chart = blank_chart(traces, "search trial (order of start)", f"validation {history.objective}")
    return within(chart, Window(), history.window)


def curve_charts(curves: Sequence[LearningCurve]) -> list[Chart]:
    """Chart mean and one standard deviation over epochs by method: accuracy, and gap if any method has one."""
    methods = tuple(curve.method for curve in curves)
    charts = []
    for measure in MEASURES:
        traces: list[Trace] = []
        for curve in curves:
            mean, low, high = curve.band(measure)
            if np.isfinite(mean).any():
                name = f"{curve.method}, n{UNBROKEN}={UNBROKEN}{curve.n}"
                traces += _band(curve.epoch, mean, low, high, style_of(curve.method, methods), name)
        if traces:
            title = f"validation {curves[0].objective}" if measure == "accuracy" else _GAP
            charts.append(within(blank_chart(traces, "epoch", title), Window(), curve_window(curves, measure)))
    return charts


def small_charts(curves: Sequence[LearningCurve], measure: Measure, *, baseline: str) -> list[Chart]:
    """Chart small multiples: one chart per curve, best accuracy first, with name and last mean above."""
    known = [curve for curve in curves if np.isfinite(curve.band(measure)[0]).any()]
    window, charts = curve_window(known, measure), []
    parts = [part[np.isfinite(part)] for curve in known for part in curve.band(measure)]
    values = window.clip(np.concatenate(parts)) if parts else np.zeros(1)
    room = _ROOM * (float(np.ptp(values)) or 1.0)
    own = next((curve for curve in known if curve.method == baseline), None)
    shown = best_first(known)
    titles = [_legend(curve_label(curve, measure)) for curve in shown]
    more = _TITLE_LINE * max((title.count("<br>") for title in titles), default=0)
    for curve, title in zip(shown, titles, strict=True):
        mean, low, high = curve.band(measure)
        traces = []
        if own is not None and own is not curve:
            traces.append(_line(own.epoch, own.band(measure)[0], baseline, Style(GREY, "o", "--")))
        traces += _band(curve.epoch, mean, low, high, style_of(curve.method, (curve.method,)), curve.method)
        chart = blank_chart(traces, "", "", height=_SMALL + more)
        chart["layout"] |= {"showlegend": False, "margin": {"l": 40, "r": 8, "t": 30 + more, "b": 24}}
        chart["layout"]["font"] = {**chart["layout"]["font"], "size": 11}
        chart["layout"]["title"] = {"text": title, "font": {"size": 12}, "x": 0, "y": 0.97}
        chart["layout"]["yaxis"] |= {"range": [float(values.min()) - room, float(values.max()) + room]}
        charts.append(chart)
    return charts


def imposed_charts(arms: Sequence[ImposedGap], *, seed: int) -> list[Chart]:
    """Chart accuracy and the measured gap over the imposed gap."""
    charts = []
    words = arms[0].objective if arms else "accuracy"
    titles = (("accuracy", f"validation {words}"), ("gap", "the arm's own gap (nats)"))
    for (what, title), window in zip(titles, imposed_windows(arms), strict=True):
        traces: list[Trace] = []
        for arm in arms:
            values, style = (arm.accuracy if what == "accuracy" else arm.gap), ARM_STYLES[arm.control]
            if np.ptp(arm.target) > 0 and len(arm.target) >= MIN_UNITS:
                traces += _band(*fitted_line(arm.target, values, seed), style, f"{arm.control}, line", shown=False)
            traces.append(_points(arm.target, values, arm.control, style.colour, symbol=_SYMBOLS[style.marker]))
        charts.append(within(blank_chart(traces, "target, or constant (nats)", title), Window(), window))
    return charts


def point_name(config: ConfigSummary) -> str:
    """Return a config's name in the cost figure for a search.

    This is the method for an unconfirmed control, else the config name or label.
    """
    return config.method if config.stage == "control" and config.split != "test" else config.name


def cost_chart(configs: Sequence[ConfigSummary], costs: Mapping[str, ConfigCost], *, compares: bool) -> Chart:
    """Chart accuracy over training FLOPs, with the front: the configs not beaten by a cheaper one.

    A collapsed config is drawn as a triangle at the lower edge, with name and mean. Drawn to scale, it would leave the
    other configs no room.
    """
    points = [
        (ratio, each) for each in configs if each.config_id in costs and math.isfinite(each.accuracy.value)
        and (ratio := costs[each.config_id].flops_to_ce) is not None
    ]  # fmt: skip
    ratios, accuracies = [ratio for ratio, _ in points], [each.accuracy.value for _, each in points]
    front, floor = pareto_front(ratios, accuracies), floor_of([each.accuracy for _, each in points])
    line = _line([ratios[i] for i in front], [accuracies[i] for i in front], "front", Style(GREY, "o", "-"))
    line["line"]["shape"] = "hv"
    traces, named = [line], []
    for place, (ratio, each) in enumerate(points):
        name, below = each.method if compares else point_name(each), each.accuracy.value < floor
        colour = ORANGE if each.method == BASELINE else BLUE if place in front else SKY
        marker = "v" if below else "o" if place in front else "X"
        hover = f"{config_label(each)}<br>{format_estimate(each.accuracy)}, n = {each.accuracy.n}"
        hover += f"<br>cost {times(ratio)} × ce"
        trace = _estimate(ratio, each.accuracy, name, Style(colour, marker, "-"))
        trace |= {"hovertext": [hover_lines(hover)], "hoverinfo": "text", "showlegend": False}
        if below:
            trace |= {"y": [floor], "error_y": {"visible": False}}
        traces.append(trace)
        mean = f" {format_number(each.accuracy.value)}" if below else ""
        is_named = below or each.method == BASELINE or place in front or len(points) <= _MOST_NAMED
        named.append((ratio, max(each.accuracy.value, floor), f"{name}{mean}" if is_named else ""))
    title = f"{split_of(configs)} {objective_of_all(configs)}"
    chart = blank_chart(traces, "training FLOPs relative to ce", title, height=_HEIGHT + 60)
    if ratios:
        chart["layout"]["xaxis"] |= _log_axis(min(ratios), max(ratios), room=2 * _ROOM)
        bottom, top = reach([each.accuracy for _, each in points if each.accuracy.value >= floor])
        bottom = min(bottom, floor) if math.isfinite(floor) else bottom
        room = _ROOM * (top - bottom) or 0.01
        _add_names(chart, named, bottom - room, top + room)
    return chart


def _add_names(chart: Chart, named: Sequence[tuple[float, float, str]], bottom: float, top: float) -> None:
    """Add names next to points on a logarithmic x-axis, and extend the y-axis above all names."""
    layout = chart["layout"]
    left, right = layout["xaxis"]["range"]
    places = [
        ((math.log10(across) - left) / (right - left), (up - bottom) / (top - bottom), name)
        for across, up, name in named
    ]
    labels = place_labels(places)
    highest = max((label.up + label.height for label in labels), default=1.0)
    layout["yaxis"] |= {"range": [bottom, max(top, bottom + highest * (top - bottom))]}
    layout["annotations"] = [
        {
            "text": "<br>".join(plain(each) for each in label.lines), "font": {"size": 11}, "align": "left",
            "x": math.log10(across), "y": up, "ax": -AWAY if label.to_left else AWAY, "axref": "pixel",
            "ay": bottom + label.up * (top - bottom), "ayref": "y", "xanchor": "right" if label.to_left else "left",
            "showarrow": True, "arrowhead": 0, "arrowwidth": 0.7, "arrowcolor": GREY, "borderpad": 0,
        }
        for (across, up, _), label in zip((each for each in named if each[2]), labels, strict=True)
    ]  # fmt: skip


def reliability_charts(found: Sequence[Reliability], styles: Mapping[str, Style]) -> list[Chart]:
    """Chart accuracy over confidence, with one chart per network and the diagonal for perfect calibration."""
    charts = []
    for network in networks_of(found):
        diagonal = _line([0, 1], [0, 1], "calibrated", Style(GREY, "o", ":"))
        traces: list[Trace] = [{**diagonal, "showlegend": False, "hoverinfo": "skip"}]
        for each in (each for each in found if each.network == network):
            style, drawn = styles[each.label], each.drawn
            at = zip(each.confidence[drawn], each.accuracy[drawn], each.count[drawn], strict=True)
            hover = [
                f"confidence {format_number(x)}, correct {format_number(y)}<br>{count:,.0f} predictions"
                for x, y, count in at
            ]
            trace = _line(each.confidence[drawn], each.accuracy[drawn], each.label or network, style)
            marker = {"color": style.colour, "symbol": _SYMBOLS[style.marker], "size": dot_sizes(each)[drawn].tolist()}
            traces.append({**trace, "mode": "lines+markers", "marker": marker, "hovertext": hover})
        chart = blank_chart(traces, f"confidence of the {network}", "fraction of correct predictions")
        chart["layout"]["xaxis"] |= {"range": [0, 1.02]}
        chart["layout"]["yaxis"] |= {"range": [0, 1.02]}
        charts.append(chart)
    return charts


def methods_chart(configs: Sequence[ConfigSummary]) -> Chart:
    """Chart accuracy and interval for every method, best on top."""
    traces = []
    for row, each in enumerate(reversed(configs)):
        colour = ORANGE if each.method == BASELINE else BLUE
        hover = f"{each.method} {settings_of(each)}<br>{format_estimate(each.accuracy)}, n = {each.accuracy.n}"
        traces.append(_across(row, each.accuracy, colour, hover))
    names = [each.method for each in reversed(configs)]
    chart = _rows_chart(traces, names, f"{split_of(configs)} {objective_of_all(configs)}")
    return within(chart, row_window((each.accuracy for each in configs), scores=True), Window())


def importance_chart(found: Sequence[Importance]) -> Chart:
    """Chart shares and intervals, with one colour per evaluator."""
    parameters = list(dict.fromkeys(each.parameter for each in found))[::-1]
    evaluators = list(dict.fromkeys(each.evaluator for each in found))
    traces: list[Trace] = []
    for each in found:
        place = evaluators.index(each.evaluator)
        row = parameters.index(each.parameter) + (0.12 if place else -0.12) * (len(evaluators) > 1)
        hover = f"{each.parameter}, {each.evaluator}<br>{format_estimate(each.estimate, 2)}"
        trace = _across(row, each.estimate, (BLUE, VERMILION)[place % 2], hover)
        trace |= {"name": each.evaluator, "legendgroup": each.evaluator}
        traces.append({**trace, "showlegend": each.evaluator not in {other.get("name") for other in traces}})
    names = [each.replace("_", " ") for each in parameters]
    return _rows_chart(traces, names, "share")


def within(chart: Chart, x: Window, y: Window) -> Chart:
    """End the axes at the windows, and move outside points to the edge, as triangles with their value.

    Lines, bands and bars are cut at the edge by plotly itself.
    """
    named: list[dict[str, Any]] = []
    for trace in chart["data"]:
        if trace.get("mode") != "markers":
            continue
        places = [(place, at, up) for place, (at, up) in enumerate(zip(trace["x"], trace["y"], strict=True))
                  if at is not None and up is not None]  # fmt: skip
        for place, at, up in places:
            if not (x.outside([at])[0] or y.outside([up])[0]):
                continue
            side, text = mark_of(at, up, (x, y))
            symbols = trace["marker"].get("symbol", "circle")
            if isinstance(symbols, str):
                symbols = [symbols] * len(trace["x"])
            symbols[place] = f"triangle-{side}"
            trace["marker"] |= {"symbol": symbols}
            trace["x"][place], trace["y"][place] = float(x.clip([at])[0]), float(y.clip([up])[0])
            trace |= {"error_x": {"visible": False}, "error_y": {"visible": False}} if len(places) == 1 else {}
            anchor = {"right": ("right", -8), "left": ("left", 8), "up": ("left", 8), "down": ("left", 8)}[side]
            named.append({
                "text": text, "x": trace["x"][place], "y": trace["y"][place], "showarrow": False, "font": {"size": 11},
                "xanchor": anchor[0], "xshift": anchor[1],
            })  # fmt: skip
    for name, window in (("xaxis", x), ("yaxis", y)):
        if window.is_cut:
            chart["layout"][name] |= {"range": _cut_range(chart["data"], name[0], window)}
    if named:
        chart["layout"]["annotations"] = [*chart["layout"].get("annotations", []), *named[:MOST_NAMED]]
    return chart


def _cut_range(traces: Sequence[Trace], axis: str, window: Window) -> list[float]:
    """Return the axis ends around all trace values, cut at the window."""
    values = np.array([each for trace in traces for each in trace[axis] if each is not None], dtype=np.float64)
    low, high = max(float(values.min()), window.low), min(float(values.max()), window.high)
    room = _ROOM * ((high - low) or 1.0)
    return [low - room, high + room]


def plain(text: str) -> str:
    """Escape text from records, since plotly would interpret tags as markup."""
    return html.escape(text, quote=False)


def _legend(name: str) -> str:
    """Break a legend name into lines that fit on a phone."""
    lines = textwrap.wrap(name, _LEGEND_LETTERS, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(plain(line) for line in lines) or plain(name)


def hover_lines(text: str) -> str:
    """Escape the lines of a hover box, and break long ones at spaces."""
    lines = text.replace("\n", "<br>").split("<br>")
    return "<br>".join(
        plain(part) for line in lines for part in textwrap.wrap(line, _HOVER_LETTERS, break_long_words=False) or [line]
    )


def blank_chart(traces: Sequence[Trace], x_title: str, y_title: str, *, height: int = _HEIGHT) -> Chart:
    """Return a chart with the traces and the common layout."""
    axis = {"gridcolor": _GRID, "zeroline": False, "automargin": True, "ticks": "outside", "linecolor": GREY,
            "hoverformat": ".3f"}  # fmt: skip
    return {
        "data": list(traces),
        "layout": {
            "height": height,
            "margin": {"l": 48, "r": 12, "t": 12, "b": 56},
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",  # the page is light or dark
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hovermode": "closest",
            "dragmode": False,  # a finger scrolls the page
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "xaxis": {**axis, "title": {"text": x_title}},
            "yaxis": {**axis, "title": {"text": y_title}},
        },
    }


def _rows_chart(traces: Sequence[Trace], names: Sequence[str], x_title: str) -> Chart:
    chart = blank_chart(traces, x_title, "", height=110 + _PER_ROW * max(5, len(names)))
    chart["layout"]["yaxis"] |= {
        "tickvals": list(range(len(names))),
        "ticktext": [plain(name) for name in names],
        "range": [-0.7, len(names) - 0.3],
        "tickfont": {"size": 11},
    }
    return chart


def _points(
    x: Iterable[float], y: Floats, name: str, colour: str, hover: Sequence[str] | None = None, *,
    hollow: bool = False, symbol: str = "circle",
) -> Trace:  # fmt: skip
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _legend(name),
        "x": _numbers(x),
        "y": _numbers(y),
        "marker": {
            "color": colour,
            "size": 8,
            "symbol": f"{symbol}-open" if hollow else symbol,
            "line": {"width": 1.5, "color": colour},
        },
        **({"hovertext": [hover_lines(each) for each in hover]} if hover is not None else {}),
    }


def _line(x: Iterable[float], y: Iterable[float], name: str, style: Style, hover: str = "") -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _legend(name),
        "x": _numbers(x),
        "y": _numbers(y),
        "line": {"color": style.colour, "dash": _DASHES[style.dash], "width": 2},
        **({"hovertext": plain(hover)} if hover else {}),
    }


def _band(
    x: Iterable[float], line: Floats, low: Floats, high: Floats, style: Style, name: str, *, shown: bool = True
) -> list[Trace]:
    """Return the traces for a line and the band around it, if there is one; empty without points."""
    at = list(x)
    if not at:
        return []
    drawn = {**_line(at, line, name, style), "legendgroup": plain(name), "showlegend": shown}
    if not np.isfinite(low).any():
        return [drawn]
    edge: Trace = {"type": "scatter", "mode": "lines", "x": _numbers(at), "line": {"width": 0}, "hoverinfo": "skip"}
    edge |= {"legendgroup": plain(name), "showlegend": False}
    fill = {"fill": "tonexty", "fillcolor": _faint(style.colour)}
    return [{**edge, "y": _numbers(low)}, {**edge, "y": _numbers(high), **fill}, drawn]


def _estimate(
    x: float, estimate: Estimate, name: str, style: Style, *, hover: str = "", x_estimate: Estimate | None = None
) -> Trace:
    """Return the trace for a point with interval bars."""
    bars = {"error_y": _bars(estimate, style.colour)}
    if x_estimate is not None:
        bars["error_x"] = _bars(x_estimate, style.colour)
    label = f"{hover or name}<br>{format_estimate(estimate)}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _legend(name),
        "x": _numbers([x]),
        "y": _numbers([estimate.value]),
        "hovertext": [hover_lines(label)],
        "marker": {"color": style.colour, "size": 10, "symbol": _SYMBOLS[style.marker]},
        **{side: each for side, each in bars.items() if each},
    }


def _across(row: float, estimate: Estimate, colour: str, hover: str) -> Trace:
    """Return the trace for an estimate in a separate row, with a horizontal bar."""
    bars = _bars(estimate, colour)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": _numbers([estimate.value]),
        "y": [row],
        "hovertext": [hover_lines(hover)],
        "hoverinfo": "text",
        "showlegend": False,
        "marker": {"color": colour, "size": 9},
        **({"error_x": bars} if bars else {}),
    }


def _bars(estimate: Estimate, colour: str) -> dict[str, Any]:
    lengths = bars(estimate)
    if lengths is None:
        return {}
    below, above = lengths
    return {"type": "data", "array": above, "arrayminus": below, "color": colour, "thickness": 1.5, "width": 4}


def _log_axis(low: float, high: float, *, room: float = 0.04) -> dict[str, Any]:
    """Configure a logarithmic axis with full tick labels; plotly itself uses single digits between powers of ten."""
    beyond = room * max(_LEAST_DECADES, math.log10(high / low))
    ends = [math.log10(low) - beyond, math.log10(high) + beyond]
    ticks = ratio_ticks(10 ** ends[0], 10 ** ends[1], _LOG_TICKS)
    if ends[1] - ends[0] > _FEW_DECADES:
        ticks = [tick for tick in ticks if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Convert values to JSON-compatible numbers; a non-finite value becomes None, drawn as a gap."""
    return [float(value) if math.isfinite(value) else None for value in values]
