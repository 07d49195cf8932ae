"""The config that options of the command line give."""

from collections.abc import Mapping
from typing import Any

from study.cli.request import _plan_values
from trainables.spec.trial import TrialConfig


def given_back(options: Mapping[str, Any]) -> TrialConfig:
    """The config of options by their names in Python, in a space that varies nothing of it."""
    held = options.get("hold", {})
    hold = [f"{field}={value}" for field, value in held.items()] if isinstance(held, Mapping) else held
    asked = _plan_values({**options, "hold": hold})
    return TrialConfig(**{**asked["base"], "precision": options["precision"], **asked.get("overrides", {})})
