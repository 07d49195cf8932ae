"""Packs of trials of a method of the user's own."""

import pytest

from tests.trainables.packing.runs import assert_same_measures, assert_same_state, make_runs
from tests.user_methods import METHOD
from tests.user_nets import new_process, write
from trainables.costs.epoch import run_epoch
from trainables.packing.pack import Pack
from trainables.user_code.loading import canonical_name

pytestmark = pytest.mark.study


def test_packed_trials_of_the_user_s_method_are_what_they_are_alone(digits, teacher, tmp_path):
    with new_process():
        name = canonical_name(f"{write(tmp_path, mine=METHOD)}/mine.py:METHOD")
        changes = [{"matching_power": 1.5, "seed": 1}, {"matching_power": 3.0, "kd_weight": 0.01}]
        packed = Pack(make_runs(digits, teacher, changes, method=name))
        alone = make_runs(digits, teacher, changes, method=name)
        for _ in range(2):
            together = packed.run_epoch()
            assert together.failures == {}
            for key, run in alone.items():
                assert_same_measures(together.measures[key], run_epoch(run))
                assert_same_state(packed.run_of(key), run)
