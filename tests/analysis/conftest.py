"""What simulations share."""

import pytest

import analysis.association
import analysis.resampling

FEW = 500


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the draws: a simulation is about how often an interval covers, not about the digits of one."""
    monkeypatch.setattr(analysis.resampling, "RESAMPLES", FEW)
    monkeypatch.setattr(analysis.association, "PERMUTATIONS", FEW)
