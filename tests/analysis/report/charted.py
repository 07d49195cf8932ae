"""Summaries of configs for tests of figures."""

from analysis.reading.trials import ConfigSummary
from analysis.statistics.estimates import Estimate


def summary(name: str, value: float, half: float = 0.01) -> ConfigSummary:
    """Return a config's summary with this accuracy."""
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0, "none")
    return ConfigSummary(
        config_id=name, name=name, method=name, stage="control", varied={}, gap=nothing, test_accuracy=nothing,
        accuracy=Estimate(value, value - half, value + half, 5, "mean"), against_baseline=None, search_accuracy=None,
    )  # fmt: skip
