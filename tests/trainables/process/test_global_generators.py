"""How code uses the global random generators."""

import random

import numpy as np
import pytest
import torch

from trainables.process.global_generators import misuse_of_generators, use_of_generators

pytestmark = pytest.mark.unit


def _nothing():
    return (
        torch.rand(3, generator=torch.Generator().manual_seed(0)),
        np.random.default_rng(0).random(),
        random.Random(1),
    )


@pytest.mark.parametrize(
    ("work", "drawn", "seeded"),
    [
        (_nothing, (), ()),
        (random.random, ("random",), ()),
        (np.random.rand, ("numpy.random",), ()),
        (lambda: torch.rand(3), ("torch",), ()),
        (lambda: random.gauss(0, 1), ("random",), ()),
        (lambda: random.seed(3), (), ("random",)),
        (lambda: (np.random.seed(3), np.random.rand()), (), ("numpy.random",)),  # noqa: NPY002
        (lambda: (torch.manual_seed(3), random.random()), ("random",), ("torch",)),
        (np.random.seed, ("numpy.random",), ()),  # a seed of the system
    ],
)
def test_draws_and_fixed_seeds_are_found_and_all_states_restored(work, drawn, seeded):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert use_of_generators(work) == (drawn, seeded)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002


def test_states_are_restored_after_an_error_too():
    before = random.getstate()
    with pytest.raises(ZeroDivisionError):
        use_of_generators(lambda: random.random() / 0)
    assert random.getstate() == before  # noqa: NPY002, RUF100


@pytest.mark.parametrize(
    ("work", "values", "says"),
    [
        (lambda: torch.rand(3), {}, ""),
        (lambda: torch.rand(3), {"packed": True}, "torch, which the trials of a pack share"),
        (random.random, {}, "draws from the global generator of random, which trials do not seed"),
        (lambda: random.seed(3), {}, "sets the seed of the global generator of random"),
        (lambda: random.seed(3), {"resets": False}, ""),
    ],
)
def test_only_draws_that_no_trial_repeats_and_fixed_seeds_are_misuse(work, values, says):
    found = misuse_of_generators(use_of_generators(work), remedy="draw otherwise", **values)
    assert says in found
    assert found.endswith(": draw otherwise") is bool(says)
