import math

import numpy as np
import pytest

from analysis.reading.scores import (
    gaps_by_config,
    mean_over_configs,
    score_table,
    scores_by_config,
    scores_by_method,
    shared_replicates,
)
from tests.analysis.synthetic import trial, trials_table


def trials():
    rows = [
        ("kd", "k1", 1, 0.8, "finished"),
        ("kd", "k2", 1, 0.7, "finished"),
        ("kd", "k1", 2, 0.9, "finished"),
        ("kd", "k2", 2, 0.6, "failed"),
        ("ce", "c", 2, math.nan, "finished"),
        ("ce", "c", 1, 0.5, "finished"),
    ]
    return trials_table([
        trial(number, stage="replicate", method=method, config_id=config_id, replicate=replicate, status=status)
        | {"val/accuracy": score, "test/accuracy": score - 0.1, "val/sharpness_gap": 10 * score}
        for number, (method, config_id, replicate, score, status) in enumerate(rows)
    ] + [trial(9, stage="search", config_id="s", replicate=0) | {"val/accuracy": 0.99}])  # fmt: skip


def test_scores_are_finite_of_finished_trials_of_the_stages_in_table_order():
    assert scores_by_config(trials(), ("replicate",)) == {"k1": {1: 0.8, 2: 0.9}, "k2": {1: 0.7}, "c": {1: 0.5}}
    assert scores_by_config(trials(), None)["s"] == {0: 0.99}
    assert scores_by_method(trials(), ("replicate",)) == {
        "kd": {"k1": {1: 0.8, 2: 0.9}, "k2": {1: 0.7}},
        "ce": {"c": {1: 0.5}},
    }
    on_test = scores_by_config(trials(), ("replicate",), "test")
    assert on_test["k1"] == {1: pytest.approx(0.7), 2: pytest.approx(0.8)}
    assert gaps_by_config(trials(), ("replicate",))["k1"] == {1: 8.0, 2: 9.0}


def test_means_and_tables_are_over_the_replicates_that_all_configs_share():
    configs = [{1: 0.8, 2: 0.9, 3: 0.1}, {2: 0.7, 1: 0.6}]
    assert shared_replicates(configs) == [1, 2]
    assert mean_over_configs(configs) == {1: pytest.approx(0.7), 2: pytest.approx(0.8)}
    np.testing.assert_array_equal(score_table(configs, [1, 2]), [[0.8, 0.9], [0.6, 0.7]])
    assert shared_replicates([]) == []
    assert mean_over_configs([]) == {}
    assert score_table([], []).shape == (0, 0)
    assert score_table([{}, {}], []).shape == (2, 0)
