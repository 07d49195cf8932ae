"""Fixtures shared by the analysis tests."""

import pytest
from matplotlib.figure import Figure

import analysis.statistics.ranks
import analysis.statistics.resampling
from analysis.reading.trials import EXAMPLES

FEW = 500
FASHION = tuple(EXAMPLES / f"fashion-{space}" for space in ("adapter_width", "temperature", "joint"))


def caption_of(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an eighth of the draws, for simulations of coverage that need no precise single interval."""
    monkeypatch.setattr(analysis.statistics.resampling, "RESAMPLES", FEW)
    monkeypatch.setattr(analysis.statistics.ranks, "PERMUTATIONS", FEW)
