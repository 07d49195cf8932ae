"""Study figures, written as files to the study folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from analysis.figures.curves import compute_learning_curves, draw_learning_curves
from analysis.figures.drawing import fix_layout
from analysis.figures.methods import draw_accuracy_against_cost, draw_methods
from analysis.figures.pareto import draw_front, panels_of
from analysis.figures.study import (
    compute_gap_against_accuracy,
    compute_history,
    compute_parameter_effect,
    draw_gap_against_accuracy,
    draw_history,
    draw_parameter_effect,
)
from analysis.questions.costs import ConfigCost
from analysis.questions.pareto import Front
from analysis.reading.trials import (
    ConfigSummary,
    StudyRecords,
)
from study.plan.plan import StudyPlan
from study.tracking.view import NOTE_FIGURES, NOTE_WIDTH

_DPI: Final = 150
_COMPRESSION: Final = 2  # level 9 would take most of a figure's time

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figures(
    plan: StudyPlan,
    records: StudyRecords,
    configs: list[ConfigSummary],
    tested: list[ConfigSummary],
    costs: dict[str, ConfigCost],
    front: Front | None = None,
) -> None:
    """Draw the figures for a study's result and save them in the study folder.

    Args:
        plan: the study.
        records: records of the study.
        configs: rows of the result table.
        tested: rows of the result table on the test split; may be empty.
        costs: cost of each config, by config identifier.
        front: front for several objectives, or None.
    """
    folder = plan.directory / "figures"
    (folder / NOTE_FIGURES).mkdir(parents=True, exist_ok=True)
    trials, epochs = records.trials, records.epochs
    curves_of = {each.config_id: each.method for each in tested} or None
    figures: dict[str, Callable[[], Figure]] = {
        "learning_curves": lambda: draw_learning_curves(compute_learning_curves(trials, epochs, curves_of)),
    }
    if plan.searches:
        figures |= {
            "history": lambda: draw_history(compute_history(trials)),
            "gap_against_accuracy": lambda: draw_gap_against_accuracy(
                compute_gap_against_accuracy(records, seed=plan.seed)
            ),
        }
    if plan.compared:
        figures["methods"] = lambda: draw_methods(configs)
        figures["accuracy_against_cost"] = lambda: draw_accuracy_against_cost(configs, costs)
        if tested:
            figures["methods_confirmed"] = lambda: draw_methods(tested)
            figures["accuracy_against_cost_confirmed"] = lambda: draw_accuracy_against_cost(tested, costs)
    if front is not None and front.on_front and panels_of(front):
        figures["pareto_front"] = lambda: draw_front(front)
    # Settings for a user's own method have no column before the method's first trial has ended.
    for parameter in (each for each in plan.search_space.scientific if each in trials.column_names):
        figures[f"{parameter}_against_accuracy"] = lambda name=parameter: draw_parameter_effect(  # type: ignore[misc]
            compute_parameter_effect(records, name, seed=plan.seed)
        )
    for name, draw in figures.items():
        figure = draw()
        fix_layout(figure, dpi=_DPI)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=_DPI, pil_kwargs={"compress_level": _COMPRESSION})
        _save_smaller(
            path, folder / NOTE_FIGURES / path.name, scale=min(100.0, NOTE_WIDTH / figure.get_figwidth()) / _DPI
        )


def _save_smaller(path: Path, target: Path, *, scale: float) -> None:
    # Drawing the figure again, in small, would take longer.
    with Image.open(path) as image:
        size = round(image.width * scale), round(image.height * scale)
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(target, compress_level=_COMPRESSION)
