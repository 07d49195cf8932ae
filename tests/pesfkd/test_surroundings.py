"""The user's process after a call is as it was."""

import logging
import os
import random
import signal
import threading
import warnings

import numpy as np
import pytest
import torch

import pesfkd
from pesfkd.surroundings import restored_process
from tests.pesfkd.conftest import TINY
from trainables.data import image_progress


def state():
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
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


def differing(before, after):
    after["loggers"] = {name: each for name, each in after["loggers"].items() if name in before["loggers"]}
    return [name for name in before if before[name] != after[name]]


def test_everything_that_a_block_changes_is_restored_even_after_an_error():
    torch.set_num_threads(2)
    logger = logging.getLogger("somebody.elses")
    before = state()
    with pytest.raises(ZeroDivisionError), restored_process():
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
        changed = differing(before, state())
        raise ZeroDivisionError
    assert set(changed) == before.keys()
    assert differing(before, state()) == []


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
def test_a_study_leaves_the_process_as_it_was(tmp_path):
    torch.set_num_threads(2)
    before, threads = state(), set(threading.enumerate())
    pesfkd.run(**TINY, name="first", output_dir=tmp_path, quiet=True)
    pesfkd.run(**TINY, name="second", output_dir=tmp_path, quiet=True)
    assert differing(before, state()) == []
    assert {each for each in threading.enumerate() if each not in threads and not each.daemon} == set()
