"""Restoring the user's process after a call: environment, signals, logging, random states and threads."""

import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def restored_process(*, computes: bool = True) -> Iterator[None]:
    """Restore on exit the process settings changed by a study.

    Changes by other threads to the same settings are lost.

    Args:
        computes: whether the block uses PyTorch.
    """
    with ExitStack() as stack:
        for restored in (_environment, _signals, _logging, _warnings, _progress_of_images, _faulthandler):
            stack.enter_context(restored())
        stack.enter_context(_random_states())
        if computes:
            stack.enter_context(_torch())
        yield


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextmanager
def _signals() -> Iterator[None]:
    """Restore the handlers, which only the main thread can set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _logging() -> Iterator[None]:
    """Restore level, handlers, filters and switches of all existing loggers."""
    loggers = [
        logging.root,
        *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)),
    ]
    before = [
        (each, each.level, list(each.handlers), list(each.filters), each.propagate, each.disabled) for each in loggers
    ]
    limit = logging.root.manager.disable
    try:
        yield
    finally:
        for logger, level, handlers, filters, propagate, disabled in before:
            if logger.level != level:
                logger.setLevel(level)
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.propagate, logger.disabled = propagate, disabled
        if logging.root.manager.disable != limit:
            logging.disable(limit)


@contextmanager
def _warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # In a notebook without ipywidgets, importing tqdm would print this warning.
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


@contextmanager
def _progress_of_images() -> Iterator[None]:
    from trainables.data import image_progress

    before = image_progress._hidden
    try:
        yield
    finally:
        image_progress._hidden = before


@contextmanager
def _faulthandler() -> Iterator[None]:
    enabled = faulthandler.is_enabled()
    try:
        yield
    finally:
        if faulthandler.is_enabled() and not enabled:  # Ray enables it
            faulthandler.disable()


@contextmanager
def _random_states() -> Iterator[None]:
    numpy: Any = sys.modules.get("numpy")
    own, arrays = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(own)
        if arrays is not None:
            numpy.random.set_state(arrays)


@contextmanager
def _torch() -> Iterator[None]:
    """Restore threads, determinism and random states. Imports PyTorch before a study limits the number of threads."""
    import torch

    from trainables.process.threads import restored_threads

    generators = [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]
    states = [(each, each.get_state()) for each in generators]
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    with restored_threads():
        try:
            yield
        finally:
            for generator, state in states:
                generator.set_state(state)
            torch.set_grad_enabled(grad)
            torch.set_default_dtype(dtype)
