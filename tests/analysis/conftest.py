"""What simulations share."""

import pytest

import analysis.questions.association
import analysis.statistics.resampling

FEW = 500


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the draws: a simulation is about how often an interval covers, not about the digits of one."""
    monkeypatch.setattr(analysis.statistics.resampling, "RESAMPLES", FEW)
    monkeypatch.setattr(analysis.questions.association, "PERMUTATIONS", FEW)
