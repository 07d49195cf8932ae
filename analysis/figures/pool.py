"""Plot the gap against accuracy over the configs from several studies, separately for each study."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.drawing import GAP_LABEL, add_legend, new_figure, score_label, style_of_number
from analysis.figures.robust import find_window, limit_axes, mark_outliers, outlier_note, score_window
from analysis.questions.association import Association, between_configs
from analysis.reading.landmark import GAPS, Floats, GapName, at_landmark, config_means
from analysis.reading.pooling import of_study, study_names
from analysis.reading.trials import StudyRecords, objective, trial_scores
from analysis.statistics.resampling import line_values
from trainables.display.numbers import CORRELATION_PLACES, GAP_PLACES, format_in_full


@dataclass(frozen=True)
class StudyPoints:
    """Searched configs in one study.

    Args:
        study: study name.
        gap: (n,) nats.
        accuracy: (n,) fractions.
        association: association between gap and accuracy within this study.
        objective: name of the objective used as accuracy.
    """

    study: str
    gap: Floats
    accuracy: Floats
    association: Association
    objective: str = "accuracy"


def points_by_study(records: StudyRecords, gap: GapName, *, seed: int = 0) -> list[StudyPoints]:
    """Return each pool study's searched configs, if any, with a separate landmark per study.

    Args:
        records: a pool.
        gap: gap name.
        seed: random seed for the bootstrap and the permutations.
    """
    found = []
    for name in study_names(records):
        landmark = at_landmark(of_study(records, name), searched=True)
        if not landmark.trials.num_rows:
            continue
        columns = [GAPS[gap](landmark.trials), trial_scores(landmark.trials)]
        (x, y), _ = config_means(columns, landmark.trials["config_id"].to_pylist())
        found.append(StudyPoints(name, x, y, between_configs(landmark, gap, seed=seed), objective(landmark.trials)))
    return found


def draw_points_by_study(found: Sequence[StudyPoints], gap: GapName) -> Figure:
    """Draw the gap against accuracy, with one colour and one line per study."""
    counts = (
        ", ".join(
            f"{each.study} {format_in_full(each.association.estimate, CORRELATION_PLACES, signed=True)}"
            for each in found
        )
        or "no study"
    )
    caption = (
        "Points: searched configs, one seed each. Lines: least squares within a study, no band. Exploratory "
        f"Spearman rank correlations within studies: {counts}."
    )
    windows = (
        find_window(value for each in found for value in each.gap.tolist()),
        score_window(value for each in found for value in each.accuracy.tolist()),
    )
    several = {each.objective for each in found}
    words = "score" if len(several) > 1 else next(iter(several), "accuracy")
    if found:
        caption += outlier_note(np.concatenate([each.gap for each in found]), windows[0], "gap", GAP_PLACES)
        caption += outlier_note(np.concatenate([each.accuracy for each in found]), windows[1], words)
    figure, (axes,) = new_figure(f"Sharpness gap ({gap}) and {words} by study", caption)
    for number, each in enumerate(found):
        style = style_of_number(number)
        shown = ~mark_outliers(axes, each.gap, each.accuracy, windows, colour=style.colour)
        x, y = each.gap[shown], each.accuracy[shown]
        axes.scatter(x, y, s=28, marker=style.marker, color=style.colour, zorder=3, label=each.study)
        if len(x) > 1 and np.ptp(x) > 0:  # a diverged trial would define the line
            grid = np.array([x.min(), x.max()])
            line = line_values(np.column_stack([x, y]), np.ones((1, len(x))), grid)[0]
            axes.plot(grid, line, style.dash, color=style.colour, linewidth=1.2)
    limit_axes(axes, *windows)
    axes.set_xlabel(GAP_LABEL)
    axes.set_ylabel(score_label(words))
    add_legend(axes)
    return figure
