"""Figure of several studies."""

import numpy as np
import pytest

from analysis.figures.pool import draw_points_by_study, points_by_study
from analysis.questions.association import gap_associations
from analysis.reading.pooling import pool_studies
from analysis.reading.trials import numbers, open_study, select
from tests.analysis.conftest import FASHION, caption_of


def test_each_study_has_its_own_points_and_its_own_correlation():
    found = points_by_study(pool_studies(FASHION), "centred")
    assert [(each.study, len(each.gap)) for each in found] == [
        (p.name, n) for p, n in zip(FASHION, (16, 12, 12), strict=True)
    ]
    temperature = open_study(FASHION[1])
    (alone,) = (each for each in gap_associations(temperature) if (each.gap, each.level, each.held, each.evidence)
                == ("centred", "between", (), "exploratory"))  # fmt: skip
    assert found[1].association.estimate == alone.estimate
    searched = select(temperature.trials, stages=["search"])
    assert sorted(found[1].accuracy) == pytest.approx(sorted(numbers(searched, "val/accuracy")))


def test_the_figure_has_a_colour_and_a_line_a_study_and_says_every_n():
    found = points_by_study(pool_studies(FASHION), "paper")
    figure = draw_points_by_study(found, "paper")
    (axes,) = figure.axes
    assert len(axes.collections) == len(axes.lines) == 3
    assert [len(points.get_offsets()) for points in axes.collections] == [16, 12, 12]
    slope = np.polyfit(found[1].gap, found[1].accuracy, 1)[0]
    xs, ys = axes.lines[1].get_data()
    assert (ys[1] - ys[0]) / (xs[1] - xs[0]) == pytest.approx(slope)
    caption = caption_of(figure)
    assert caption.count("n = 12") == 2
    assert "Exploratory" in caption
