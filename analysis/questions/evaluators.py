"""Optuna's importance evaluators, applied to the configs of a search.

This is the only module here that imports Optuna. `analysis.questions.importance` imports it when it judges a search:
Optuna's evaluators import scikit-learn and pandas, which takes a second.
"""

import math
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from analysis.questions.searched import TREES, Dimension, Evaluation, EvaluatorName, Point, top_quantile
from analysis.statistics.resampling import Floats


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return the distribution that a parameter was searched over.

    Raises:
        ValueError: the parameter has neither bounds nor choices.
    """
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.low, dimension.high
    if low is None or high is None:
        raise ValueError(f"{dimension.name} varied in this search, but is given neither bounds nor choices")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def check_bounds(points: Sequence[Point], distributions: Mapping[str, BaseDistribution]) -> None:
    """Check that all configs lie within the bounds.

    Raises:
        ValueError: a config lies outside.
    """
    for point in points:
        for name, distribution in distributions.items():
            if not distribution._contains(distribution.to_internal_repr(point[name])):
                raise ValueError(
                    f"a config has {name} {point[name]!r}, outside of {distribution}: "
                    "give the bounds of the space that this study searched"
                )


class _Prepared(optuna.storages.InMemoryStorage):
    """In-memory storage that returns finished trials without copying them.

    Optuna's own storage deep-copies each trial on insertion, which takes ten times as long as a Parzen estimate.
    """

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._prepared = trials

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [each for each in self._prepared if states is None or each.state in states]


def evaluation(name: EvaluatorName, distributions: Mapping[str, BaseDistribution], n: int, seed: int) -> Evaluation:
    """Build an evaluator for n configs; the top has the same size for halves as for all configs."""
    order = list(distributions)

    def evaluate(points: Sequence[Point], accuracies: Floats) -> Floats:
        now = datetime.now()
        trials = [
            FrozenTrial(
                number=number,
                state=TrialState.COMPLETE,
                value=float(accuracy),
                datetime_start=now,
                datetime_complete=now,
                params=dict(point),
                distributions=dict(distributions),
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=number,
            )
            for number, (point, accuracy) in enumerate(zip(points, accuracies, strict=True))
        ]
        study = optuna.create_study(direction="maximize", storage=_Prepared(trials))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = _evaluator(name, n, seed).evaluate(study, params=order)
        except RuntimeError:  # Forests fail if a half has equal accuracies.
            return np.full(len(order), math.nan)
        return np.array([values[each] for each in order])

    return evaluate


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's log line for each of the hundreds of created studies."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _evaluator(name: EvaluatorName, n: int, seed: int) -> BaseImportanceEvaluator:
    if name == "fANOVA":
        return FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
    return PedAnovaImportanceEvaluator(target_quantile=top_quantile(n))
