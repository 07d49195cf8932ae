"""Report figures are drawn when they are read, or together in two processes, with equal results."""

import os

import pytest
from matplotlib.figure import Figure

from analysis.report import pictures
from analysis.report.pictures import Picture, draw_all


def _figure(number: int) -> Figure:
    figure = Figure(layout="constrained")
    figure.add_subplot().plot([0, number])
    figure.suptitle(f"Figure {number}")
    figure.supxlabel(f"drawn by {os.getpid()}")
    return figure


def _pictures(count: int) -> list[Picture]:
    return [Picture(str(number), (), lambda number=number: _figure(number)) for number in range(count)]


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(pictures.threading, "active_count", lambda: 1)


def test_a_figure_is_drawn_once():
    drawn = []
    picture = Picture("one", (), lambda: drawn.append(1) or _figure(1))
    assert (picture.title, picture.svg) == ("Figure 1", picture.svg)
    assert drawn == [1]


@pytest.mark.launcher
def test_two_processes_draw_the_same_figures(two_processors):
    together, alone = _pictures(4), _pictures(4)
    draw_all(together)
    assert {picture.caption for picture in together[::2]} == {f"drawn by {os.getpid()}"}
    assert f"drawn by {os.getpid()}" not in {picture.caption for picture in together[1::2]}
    assert [(each.title, each.svg) for each in together] == [(each.title, each.svg) for each in alone]


@pytest.mark.launcher
def test_figures_of_a_killed_process_are_drawn_here(two_processors):
    here = os.getpid()
    dying = [
        Picture(str(number), (), lambda: _figure(1) if os.getpid() == here else os._exit(9)) for number in range(4)
    ]
    draw_all(dying)
    assert {picture.caption for picture in dying} == {f"drawn by {here}"}


@pytest.mark.launcher
def test_an_error_while_drawing_in_the_other_process_is_raised_here(two_processors):
    broken = [*_pictures(1), Picture("broken", (), lambda: 1 / 0), *_pictures(1)]
    with pytest.raises(ZeroDivisionError):
        draw_all(broken)


def test_nothing_is_forked_beside_other_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(pictures.threading, "active_count", lambda: 2)
    several = _pictures(4)
    draw_all(several)
    assert {picture.caption for picture in several} == {f"drawn by {os.getpid()}"}
