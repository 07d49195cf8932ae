"""Fixtures shared by the study tests."""

import pytest

from trainables.costs.epoch import run_epoch
from trainables.data import load_dataset
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig


@pytest.fixture(scope="module")
def run() -> DistillationRun:
    """Return a finished trial with cross-entropy and one epoch."""
    run = DistillationRun(TrialConfig(method="ce", epochs=1), load_dataset("digits", None), None)
    run_epoch(run)
    return run
