"""The user's process after a call is as it was."""

import logging
import os
import random
import signal
import threading
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch

from pesfkd.surroundings import restored_process
from tests.pesfkd.process_state import differing, process_state
from trainables.data import image_progress


def test_everything_that_a_block_changes_is_restored_even_after_an_error(monkeypatch):
    # Another test in this process may have left any of these as the block below sets them.
    monkeypatch.setattr(image_progress, "_hidden", False)
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    torch.set_num_threads(2)
    torch.set_deterministic_debug_mode("default")
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    logger = logging.getLogger("somebody.elses")
    before = process_state()
    with suppress(ZeroDivisionError), restored_process():
        os.environ["PESFKD_TEST_NEW"] = "1"
        os.environ.pop("PATH")
        signal.signal(signal.SIGUSR1, lambda *_: None)
        logger.setLevel(logging.CRITICAL)
        logger.addHandler(logging.NullHandler())
        logging.disable(logging.ERROR)
        warnings.simplefilter("error")
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode("error")
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        image_progress.hide_progress()
        changed = differing(before, process_state())
        raise ZeroDivisionError
    assert set(changed) == before.keys()
    assert differing(before, process_state()) == []


def test_a_block_in_another_thread_leaves_the_signals_alone():
    errors = []

    def run():
        try:
            with restored_process():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []


@pytest.mark.study
def test_a_study_leaves_the_process_as_it_was(ran_in_process):
    before, after = ran_in_process.before, ran_in_process.after
    assert {key: (before[key], after[key]) for key in differing(before, after)} == {}
    assert [name for name in ran_in_process.threads if "mlflow" in name or "cluster" in name] == []
