"""How one field of the config goes with accuracy and with the gap, over the configs of a search.

Everything here is exploratory: a search chose the configs by the outcome. What only says how something is trained (the
nuisance parameters) is held, so that a width is not judged by the rates that happened to come with it. Trials enter at
the landmark (`analysis.reading.landmark`), so none is left out for having been stopped early.
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
    """A rank correlation of a field of the config with what its trials came to.

    Args:
        parameter: the field.
        outcome: validation accuracy, or a gap as in `analysis.reading.landmark.GAPS`.
        held: the fields that are held.
        evidence: exploratory.
        estimate: n counts configs.
        note: which trials it is of, at which epoch.
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
    """Every parameter with every outcome between the searched configs, the nuisance parameters held.

    Args:
        records: of a study.
        parameters: numeric fields of the config.
        outcomes: what to correlate them with.
        seed: of bootstrap and permutations.

    Raises:
        ValueError: for a parameter that is no numeric field.
    """
    landmark = at_landmark(records, searched=True)
    found = []
    for parameter in parameters:
        _check_numeric(records.trials, parameter)
        held = tuple(name for name in nuisance_fields(records.trials) if name != parameter)
        for outcome in outcomes:
            values = [numbers(landmark.trials, parameter), OUTCOMES[outcome](landmark.trials)]
            (x, y), first = config_means(values, landmark.trials["config_id"].to_pylist())
            estimate = rank_association(x, y, config_columns(landmark.trials.take(first), held), seed=seed)
            found.append(ParameterAssociation(parameter, outcome, held, landmark.evidence, estimate, landmark.note))
    return found


def searched_among(trials: pa.Table, parameters: Sequence[str]) -> tuple[str, ...]:
    """Those of the parameters that the study's search varied, in their order.

    Raises:
        ValueError: it varied none of them.
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
    """The numeric fields that the search varied and that are more than how something is trained."""
    nuisance = nuisance_fields(trials)
    return tuple(name for name in varied_fields(trials) if name not in nuisance and _is_numeric(trials, name))


def searched_range(trials: pa.Table, parameter: str) -> tuple[float, float]:
    """The smallest and the largest value that the search tried; nan where it tried none."""
    values = numbers(select(trials, stages=[SEARCH], statuses=None), parameter)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)


def corrected(estimates: Sequence[Estimate]) -> list[float]:
    """Their p-values after Holm's correction for all of them; nan where there is none."""
    return holm([math.nan if each.p_value is None else each.p_value for each in estimates])


def in_common(trials: Sequence[pa.Table], parameter: str) -> list[Value]:
    """The values that the searches of all these studies tried: samplers of equal seeds propose equal ones."""
    tried = [set(select(each, stages=[SEARCH], statuses=None)[parameter].to_pylist()) - {None} for each in trials]
    return sorted(set.intersection(*tried)) if tried else []


def _is_numeric(trials: pa.Table, name: str) -> bool:
    kind = trials[name].type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _check_numeric(trials: pa.Table, name: str) -> None:
    if name not in trials.column_names or not _is_numeric(trials, name):
        raise ValueError(f"{name!r} is no numeric field of these trials' configs; adapter_width is one")
