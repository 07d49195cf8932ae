"""Summaries of confirmed methods, one row per method, in the form needed by method tables and figures."""

from dataclasses import replace

import pyarrow as pa

from analysis.questions.confirmation import ConfirmationResult
from analysis.reading.trials import ConfigSummary, compare_methods


def confirmed_summaries(trials: pa.Table, result: ConfirmationResult, *, seed: int = 0) -> list[ConfigSummary]:
    """Summarise the confirmed methods in a comparison, best mean test score first.

    Args:
        trials: study trials.
        result: confirmation result.
        seed: random seed for the bootstrap intervals.

    Returns:
        One summary per method; over searches and seeds if each method was searched several times.
    """
    rows = compare_methods(trials, confirmed=True, seed=seed)
    if not result.methods:
        return rows
    first = {each.config_id: each for each in rows}
    against = {each.label: each for each in result.comparisons}
    found = []
    for method in result.methods:
        row = next((first[config_id] for config_id in method.configs if config_id in first), None)
        if row is None:  # no trial has finished
            continue
        comparison = against.get(method.method)
        found.append(
            replace(
                row,
                name=method.method,
                method=method.method,
                varied={},
                accuracy=method.test_accuracy,
                gap=method.gap,
                test_accuracy=method.test_accuracy,
                against_baseline=None if comparison is None else comparison.difference,
                search_accuracy=None,
                corrected_p=None if comparison is None else comparison.corrected_p,
                corrected_equivalence=None if comparison is None else comparison.corrected_equivalence,
                searches=method.searches,
            )
        )
    return sorted(found, key=lambda row: -row.accuracy.value)
