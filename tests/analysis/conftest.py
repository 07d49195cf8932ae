"""What the tests of the analysis share."""

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
    """An eighth of the draws: a simulation is about how often an interval covers, not about the digits of one."""
    monkeypatch.setattr(analysis.statistics.resampling, "RESAMPLES", FEW)
    monkeypatch.setattr(analysis.statistics.ranks, "PERMUTATIONS", FEW)
