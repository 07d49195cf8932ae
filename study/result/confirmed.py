"""Confirmation result for the terminal, `summary.json` and MLflow."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.table import Table

from analysis.questions.confirmation import ConfirmationResult, summarise_confirmation
from analysis.questions.confirmation_words import confirmation_table, described, verdict
from analysis.statistics.estimates import interval_methods
from study.ledger.ledger import StudyLedger
from study.ledger.sequential import sequential_summary, sequential_texts
from study.plan.methods import BASELINE
from study.result.columns import NARROWEST, Column, fitted_table
from trainables.display.numbers import format_difference, format_number, format_p, format_plus_minus
from trainables.spec.measures import OBJECTIVE_WORDS
from trainables.spec.trial import SEED_FIELDS

_READ_ONCE = (
    "Only the configs in this table were evaluated on the test split, at the last epoch, on seeds that were not used "
    "for any choice. They were chosen by the lower bound of the validation accuracy, before the first of these trials."
)
_NOT_COMPLETE = "The confirmation is not complete: no verdict yet."


def find_confirmed(ledger: StudyLedger, trials: pa.Table) -> ConfirmationResult | None:
    """Return the confirmation result, or None if no configs have been chosen."""
    chosen = ledger.confirmation
    if chosen is None:
        return None
    baseline = BASELINE if ledger.plan.compared else None
    rows = [choice.as_row() for choice in chosen.choices]
    return summarise_confirmation(trials, rows, baseline=baseline, seed=ledger.plan.seed)


def confirmation_summary(ledger: StudyLedger, result: ConfirmationResult) -> dict[str, Any]:
    """Return the confirmation for `summary.json`. The result may still contain NaN."""
    chosen = ledger.confirmation
    assert chosen is not None
    entries = ledger.in_stage("confirm")
    finished = sum(entry.status == "finished" for entry in entries)
    fields = {choice.config_id: choice.config.model_dump(mode="json") for choice in chosen.choices}
    found, progress = result.as_dict(), ledger.confirm_progress
    for config in found["configs"]:
        own = fields[config["config_id"]]
        config["fields"] = {name: value for name, value in own.items() if name not in SEED_FIELDS}
    return {
        **chosen.request.model_dump(),
        "epochs": ledger.plan.base.epochs if chosen.request.epochs is None else chosen.request.epochs,
        "chosen_by_epochs": ledger.plan.base.epochs,
        "first_replicate": chosen.first_replicate,
        "chosen_at": chosen.chosen_at,
        "trials": {"planned": ledger.confirm_planned, "begun": len(entries), "finished": finished},
        **found,
        **({} if progress is None else {"sequential": sequential_summary(chosen, progress)}),
        "verdict": _verdict(ledger, result),
    }


def _verdict(ledger: StudyLedger, result: ConfirmationResult) -> list[str]:
    """Return the verdict once all trials have ended: an earlier look would invite stopping at a favourable moment."""
    assert ledger.confirmation is not None
    if not ledger.is_confirmed:
        return [_NOT_COMPLETE]
    progress = ledger.confirm_progress
    assert ledger.confirmation is not None
    decided = [] if progress is None else sequential_texts(ledger.confirmation, progress)
    return [*decided, *verdict(result)]


def confirmation_note(ledger: StudyLedger, result: ConfirmationResult) -> str:
    """Return the confirmation in Markdown, for the study's page in MLflow."""
    texts = ["**Confirmed on fresh seeds**", *_verdict(ledger, result), confirmation_table(result), _READ_ONCE]
    return "\n\n".join(texts)


def confirmation_texts(ledger: StudyLedger, result: ConfirmationResult) -> list[str]:
    """Return the paragraphs below the tables."""
    methods = interval_methods(each.difference.method for each in result.comparisons if each.difference.n)
    methods += interval_methods(each.test_accuracy.method for each in result.methods if each.test_accuracy.n)
    notes = [result.note] if result.note else []
    return [*_verdict(ledger, result), *_over_samples(ledger, result), *notes, *methods, _READ_ONCE]


def _over_samples(ledger: StudyLedger, result: ConfirmationResult) -> list[str]:
    """Return the intervals over seeds and test samples in a sentence; empty without recorded answers."""
    known = [(each, each.over_samples) for each in result.comparisons if each.over_samples is not None]
    if not known or not ledger.is_confirmed:
        return []
    pairs = "; ".join(f"{a.label} minus {a.against_label} {format_difference(crossed)}" for a, crossed in known)
    return [f"Over seeds and test samples, for new samples like these: {pairs}. {known[0][1].method}."]


def confirmation_metrics(result: ConfirmationResult) -> dict[str, float]:
    """Return the first choice's finite metrics, for MLflow's table of studies."""
    first, promised = result.first_mean, result.promised
    if first is None or promised is None:
        return {}
    name = {words: name for name, words in OBJECTIVE_WORDS.items()}[result.objective]
    metrics = {f"confirmed/test_{name}": first.test_accuracy.value, f"confirmed/val_{name}": first.accuracy.value}
    if promised.optimism is not None:
        metrics["confirmed/optimism"] = promised.optimism.value
    for each in result.of_first(control=BASELINE):
        metrics[f"confirmed/test_{name}_less_kd"] = each.difference.value
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def confirmed_tables(result: ConfirmationResult, width: int = NARROWEST) -> list[Table]:
    """Return tables with the configs and the comparisons, for a terminal with this width."""
    words = result.objective.removesuffix(" correlation")
    before = "score\nbefore" if result.schedules is None else f"score\n({result.schedules.chosen} ep.)"
    heads = ["confirmed", "n", f"test {words}", f"val {words}", before, *["optimism"] * (result.schedules is None)]
    rows = []
    for method in result.methods:
        accuracies = (format_plus_minus(each) for each in (method.test_accuracy, method.accuracy))
        rows.append([method.label, str(method.test_accuracy.n), *accuracies, "", ""][: len(heads)])
    for config in result.configs:
        cells = [
            described(config),
            str(config.test_accuracy.n),
            format_plus_minus(config.test_accuracy),
            format_plus_minus(config.accuracy),
            format_number(config.search_score),
            "" if config.optimism is None else format_plus_minus(config.optimism, signed=True),
        ]
        rows.append(cells[: len(heads)])
    configs = _table(heads, rows, width)
    if not result.comparisons:
        return [configs]
    compared = []
    for each in result.comparisons:
        p_values = format_p(each.difference.p_value), format_p(each.corrected_p)
        compared.append([each.label, each.against_label, format_difference(each.difference), *p_values])
    heads = [f"test {words} of", "minus that of", "difference", "p", "p\n(Holm)"]
    return [configs, _table(heads, compared, width, names=2)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, names: int = 1) -> Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(heads)
    return fitted_table(
        [
            Column(head, tuple(cells), place < names)
            for place, (head, cells) in enumerate(zip(heads, columns, strict=True))
        ],
        width,
    )
