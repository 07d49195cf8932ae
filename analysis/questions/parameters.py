"""Correlate single config fields with accuracy and with the gap, over the configs in a search.

All results are exploratory: the search chose the configs by the outcome. Nuisance parameters, which only control how
something is trained, are held. A width is then not judged by the learning rates sampled with it. Trials enter at the
landmark (`analysis.reading.landmark`), so early stopping excludes no trial.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from analysis.questions.association import rank_association
from analysis.reading.landmark import GAPS, Evidence, Floats, at_landmark, config_columns, config_means, nuisance_fields
from analysis.reading.trials import SEARCH, StudyRecords, Value, numbers, select, trial_scores, varied_fields
from analysis.statistics.estimates import Estimate, holm

Outcome = Literal["accuracy", "paper", "centred", "tempered", "entropy"]


def _accuracy(trials: pa.Table) -> Floats:
    return trial_scores(trials)


OUTCOMES: Final[Mapping[Outcome, Callable[[pa.Table], Floats]]] = {
    "accuracy": _accuracy,
    "paper": GAPS["paper"],
    "centred": GAPS["centred"],
    "tempered": GAPS["tempered"],
    "entropy": GAPS["entropy"],
}


@dataclass(frozen=True)
class ParameterAssociation:
    """Rank correlation between a config field and a trial outcome.

    Args:
        parameter: config field.
        outcome: validation accuracy, or a gap in `analysis.reading.landmark.GAPS`.
        held: held fields.
        evidence: exploratory.
        estimate: rank correlation; n counts configs.
        note: names the trials and the epoch.
    """

    parameter: str
    outcome: Outcome
    held: tuple[str, ...]
    evidence: Evidence
    estimate: Estimate
    note: str


def parameter_associations(
    records: StudyRecords,
    parameters: Sequence[str],
    *,
    outcomes: Sequence[Outcome] = ("accuracy", "paper", "centred"),
    seed: int = 0,
) -> list[ParameterAssociation]:
    """Correlate every parameter with every outcome between searched configs, with the nuisance parameters held.

    Args:
        records: study records.
        parameters: numeric config fields.
        outcomes: outcomes to correlate them with.
        seed: random seed for the permutations.

    Raises:
        ValueError: if a parameter is not a numeric field.
    """
    landmark = at_landmark(records, searched=True)
    found = []
    for parameter in parameters:
        _check_numeric(records.trials, parameter)
        held = tuple(name for name in nuisance_fields(records.trials) if name != parameter)
        for outcome in outcomes:
            values = [numbers(landmark.trials, parameter), OUTCOMES[outcome](landmark.trials)]
            (x, y), first = config_means(values, landmark.trials["config_id"].to_pylist())
            covariates = config_columns(landmark.trials.take(first), held, landmark.log_fields)
            estimate = rank_association(x, y, covariates, seed=seed)
            found.append(ParameterAssociation(parameter, outcome, held, landmark.evidence, estimate, landmark.note))
    return found


def searched_among(trials: pa.Table, parameters: Sequence[str]) -> tuple[str, ...]:
    """Return the parameters varied by the search, in the given order.

    Raises:
        ValueError: if the search varied no given parameter.
    """
    varied = varied_fields(trials)
    found = tuple(name for name in parameters if name in varied)
    if not found:
        wanted = parameters[0] if len(parameters) == 1 else f"none of {', '.join(parameters)}"
        verb = "did not vary" if len(parameters) == 1 else "varied"
        raise ValueError(
            f"this search {verb} {wanted}; it varied {', '.join(varied) or 'nothing'}. Give a study whose --space "
            f"varies {parameters[0]}, such as joint"
        )
    return found


def scientific_fields(trials: pa.Table) -> tuple[str, ...]:
    """Return the numeric fields varied by the search, without nuisance parameters."""
    nuisance = nuisance_fields(trials)
    return tuple(name for name in varied_fields(trials) if name not in nuisance and _is_numeric(trials, name))


def searched_range(trials: pa.Table, parameter: str) -> tuple[float, float]:
    """Return the smallest and the largest tried value in the search; nan if there is none."""
    values = numbers(select(trials, stages=[SEARCH], statuses=None), parameter)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)


def corrected(estimates: Sequence[Estimate]) -> list[float]:
    """Return the p-values after Holm's correction over all estimates; nan where there is no p-value."""
    return holm([math.nan if each.p_value is None else each.p_value for each in estimates])


def in_common(trials: Sequence[pa.Table], parameter: str) -> list[Value]:
    """Return the values tried in every study's search; samplers with equal seeds propose equal values."""
    tried = [set(select(each, stages=[SEARCH], statuses=None)[parameter].to_pylist()) - {None} for each in trials]
    return sorted(set.intersection(*tried)) if tried else []


def _is_numeric(trials: pa.Table, name: str) -> bool:
    kind = trials[name].type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _check_numeric(trials: pa.Table, name: str) -> None:
    if name not in trials.column_names or not _is_numeric(trials, name):
        raise ValueError(f"{name!r} is no numeric field of these trials' configs; adapter_width is one")
