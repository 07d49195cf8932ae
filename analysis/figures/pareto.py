"""Pareto front figure: the dataset's objective against each other objective, in one panel each."""

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.drawing import BLUE, GREY, VERMILION, add_legend, bars, new_figure
from analysis.figures.robust import Window, limit_axes, mark_outliers, outlier_note, score_window
from analysis.questions.pareto import Front, FrontPoint, front_title
from trainables.spec.quantities import Quantity

# Factor and unit for an axis, by the unit in the records.
_AXES = {"s": (1e3, "ms"), "B": (1e-6, "MB"), "FLOP": (1e-6, "MFLOP"), "numbers": (1e-3, "thousand")}


def axis_of(quantity: Quantity) -> tuple[float, str]:
    """Return the factor from the records to a quantity's axis, and the axis label."""
    factor, unit = _AXES.get(quantity.unit, (1.0, ""))
    return factor, f"{quantity.words} ({unit})" if unit else quantity.words


def panels_of(front: Front) -> list[Quantity]:
    """Return the quantities on the panels' horizontal axes."""
    return [each for each in front.objectives if each.name != front.quantities[0].name]


def stairs(front: Front, across: Quantity) -> tuple[list[float], list[float]]:
    """Return the front's corners in a panel: the best objective up to each value of `across`.

    With more than two objectives, the front over these two alone is drawn.
    """
    objective, best, x, y = front.quantities[0], float("-inf"), [], []
    ordered = sorted(front.on_front, key=lambda each: (each.values[across.name], -each.values[objective.name]))
    for each in ordered:
        if each.values[objective.name] > best:
            best = each.values[objective.name]
            x.append(each.values[across.name])
            y.append(best)
    return x, y


def parts_of(front: Front) -> list[tuple[str, list[FrontPoint], str]]:
    """Return the configs by kind, as name, configs and colour; empty kinds are left out."""
    off = [each for each in front.points if not each.is_on_front and each.is_within]
    beyond = [each for each in front.points if not each.is_within]
    parts = [("on the front", front.on_front, BLUE), ("not on the front", off, GREY), ("beyond a limit", beyond, GREY)]
    return [part for part in parts if part[1]]


def front_window(front: Front) -> Window:
    """Return the axis window for the dataset's objective."""
    return score_window(each.values[front.quantities[0].name] for each in front.points)


def draw_front(front: Front) -> Figure:
    """Draw the front over all searched configs, with confirmed means where there are some."""
    panels, objective = panels_of(front), front.quantities[0]
    caption = (
        f"{len(front.points)} searched configs, one seed each; line: front of the search. "
        "Confirmed means have Student t intervals, 0.95."
    )
    window = front_window(front)
    caption += outlier_note([each.values[objective.name] for each in front.points], window, objective.words)
    figure, axes = new_figure(front_title(front), caption, panels=len(panels))
    for panel, across in zip(axes, panels, strict=True):
        factor, label = axis_of(across)
        x, y = stairs(front, across)
        panel.step([each * factor for each in x], y, where="post", color=BLUE, linewidth=1)
        for name, points, colour in parts_of(front):
            marker = "x" if name == "beyond a limit" else "o"
            at = np.array([each.values[across.name] * factor for each in points])
            values = np.array([each.values[objective.name] for each in points])
            shown = ~mark_outliers(panel, at, values, (Window(), window), colour=VERMILION)
            panel.plot(
                at[shown],
                values[shown],
                marker, color=colour, label=name, fillstyle="full" if colour == BLUE else "none",
            )  # fmt: skip
        drawn = False
        for each in front.on_front:
            found = next((found for name, found in each.confirmed.items() if name.startswith("test/")), None)
            if found is not None:
                panel.errorbar(
                    [each.values[across.name] * factor], [found.value], yerr=bars(found), fmt="s", color=VERMILION,
                    capsize=3, label=None if drawn else f"confirmed on the test split, mean of {found.n}",
                )  # fmt: skip
                drawn = True
        limit_axes(panel, y=window)
        panel.set_xlabel(label)
        panel.set_ylabel(objective.words)
    add_legend(axes[0])
    return figure
