"""State of a process that a call has to leave as it was."""

import logging
import os
import random
import signal
import warnings
from typing import Any

import numpy as np
import torch

from trainables.data import image_progress


def process_state() -> dict[str, Any]:
    """Everything that a study may change in its process."""
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(each for each in known if isinstance(each, logging.Logger))]
    return {
        "environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "loggers": {each.name: (each.level, tuple(each.handlers), each.propagate, each.disabled) for each in loggers},
        "disabled": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "random": random.getstate(),
        "numpy": [np.asarray(each).tolist() for each in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "hidden": image_progress._hidden,
    }


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what changed; loggers that are new do not count."""
    loggers = {name: each for name, each in after["loggers"].items() if name in before["loggers"]}
    return [name for name in before if before[name] != {**after, "loggers": loggers}[name]]
