"""Words and tables about a confirmation."""

from collections.abc import Sequence

from analysis.questions.beyond_seeds import (
    beyond_seeds_in_words,
)
from analysis.questions.confirmation import Comparison, ConfirmationResult, ConfirmedConfig, ConfirmedMethod
from analysis.reading.standing import all_standings_in_words, standing_in_words
from analysis.statistics.estimates import Estimate, interval_methods
from trainables.display.numbers import (
    counted,
    format_difference,
    format_estimate,
    format_interval,
    format_number,
    format_p,
    p_clause,
)


def confirmation_table(result: ConfirmationResult) -> str:
    """Format the configs, the comparisons and the estimation methods as Markdown."""
    words = result.objective
    heads = ["config", "n", f"test {words}", f"val {words}", result.score_before]
    heads += ["optimism (score − val)"] if result.schedules is None else []
    lines = [_row(heads), "|" + " --- |" * len(heads)]
    for method in result.methods:
        accuracies = (format_estimate(method.test_accuracy), format_estimate(method.accuracy))
        lines.append(_row([f"**{method.label}**", str(method.test_accuracy.n), *accuracies, *[""] * (len(heads) - 4)]))
    for config in result.configs:
        accuracies = (format_estimate(config.test_accuracy), format_estimate(config.accuracy))
        score = format_number(config.search_score)
        optimism = ["" if config.optimism is None else format_difference(config.optimism)]
        cells = [described(config), str(config.test_accuracy.n), *accuracies, score, *optimism]
        lines.append(_row(cells[: len(heads)]))
    if result.comparisons:
        lines += [
            "",
            _row([f"test {words} of", "minus that of", "n", "difference", "p", "p (Holm)", *_further_heads(result)]),
            "|" + " --- |" * (6 + len(_further_heads(result))),
        ]
    for each in result.comparisons:
        cells = [each.label, each.against_label, str(each.difference.n), format_difference(each.difference)]
        further = [format_interval_of(each.over_samples)] if _has_samples(result) else []
        nested = None if each.beyond_seeds is None else each.beyond_seeds.mean
        further += [format_interval_of(nested)] if result.over is not None else []
        lines.append(_row([*cells, format_p(each.difference.p_value), format_p(each.corrected_p), *further]))
    methods = {each.difference.method for each in result.comparisons}
    methods |= {each.over_samples.method for each in result.comparisons if each.over_samples is not None}
    methods |= {each.beyond_seeds.mean.method for each in result.comparisons if each.beyond_seeds is not None}
    methods |= {config.test_accuracy.method for config in result.configs}
    methods |= {method.test_accuracy.method for method in result.methods}
    notes = [*([result.note.rstrip(".")] if result.note else []), *interval_methods(methods)]
    return "\n".join([*lines, "", *(f"- {note}." for note in notes)])


def _has_samples(result: ConfirmationResult) -> bool:
    return any(each.over_samples is not None for each in result.comparisons)


def _further_heads(result: ConfirmationResult) -> list[str]:
    """Return the headings of columns with intervals over samples and over teachers or splits, if there are any."""
    heads = ["over seeds and samples"] if _has_samples(result) else []
    return heads if result.over is None else [*heads, f"over {result.over}"]


def format_interval_of(estimate: Estimate | None) -> str:
    """Format a difference's interval with sign; empty without an estimate."""
    return "" if estimate is None else format_interval(estimate, signed=True)


def described(config: ConfirmedConfig) -> str:
    """Return a config label, with the reason for including it if it was not chosen by rank or is the winner."""
    roles = ["control"] if config.control is not None and config.rank is None else []
    roles += ["winner of the search"] if config.winner else []
    return f"{config.label} ({', '.join(roles)})" if roles else config.label


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def verdict(result: ConfirmationResult) -> list[str]:
    """Describe how the first choice compares with each control, and how optimistic the search was.

    For a comparison of methods, the sentences describe all methods, and the method with the highest mean.
    """
    texts = _methods_in_words(result) if result.compares_methods else []
    texts += [_in_words(each) for each in result.of_first() if not result.compares_methods]
    winner = result.promised
    if winner is not None and winner.optimism is not None and winner.optimism_on_test is not None and winner.optimism.n:
        which = "The winner of the search" if winner.winner else "The first choice"
        texts.append(
            f"{which}, {winner.label}, scored {format_number(winner.search_score)} before the confirmation. On "
            f"{winner.optimism.n} fresh seeds it reaches {format_estimate(winner.accuracy)} on the validation split: "
            f"an optimism of {format_difference(winner.optimism)}, and of "
            f"{format_difference(winner.optimism_on_test)} against the test split."
        )
    own = _of_best(result) if result.compares_methods else result.of_first()
    known = [(f"{a.label} minus {a.against_label}", a.beyond_seeds) for a in own if a.beyond_seeds is not None]
    return [*texts, *_schedules_in_words(result), *beyond_seeds_in_words(known)]


def _schedules_in_words(result: ConfirmationResult) -> list[str]:
    if result.schedules is None:
        return []
    chosen, confirmed = result.schedules
    return [
        f"Configs were chosen, and settings tuned, by validation scores after {counted(chosen, 'epoch')}, and "
        f"confirmed with {confirmed}. The scores before the confirmation are of the "
        f"{'shorter' if chosen < confirmed else 'longer'} training, so no optimism of the search is given, and other "
        f"configs might have been chosen by trials of {counted(confirmed, 'epoch')}."
    ]


def _in_words(comparison: Comparison) -> str:
    difference = comparison.difference
    return (
        f"On the test split, {comparison.label} {standing(comparison)}: "
        f"{format_difference(difference)}, n = {difference.n}{_p_text(comparison)}."
    )


def _methods_in_words(result: ConfirmationResult) -> list[str]:
    compared = [each for each in result.comparisons if each.difference.n]
    if not compared:
        return []
    tested = [(each.label, each.difference, each.corrected_p, each.corrected_equivalence) for each in compared]
    measured, best = result.measured, _best(result)
    highest = (
        f"Of {counted(len(measured), 'method')}, {best.label} has the highest mean test {result.objective}, "
        f"{format_estimate(best.test_accuracy)} over {counted(best.test_accuracy.n, 'seed')}."
    )
    own = [_in_words(each) for each in _of_best(result) if each.difference.n]
    return [all_standings_in_words(tested, compared[0].against_label), highest, *own]


def _best(result: ConfirmationResult) -> ConfirmedConfig | ConfirmedMethod:
    """Return the method, or else the config, with the highest mean on the test split."""
    return max(result.measured, key=lambda each: each.test_accuracy.value)


def _of_best(result: ConfirmationResult) -> list[Comparison]:
    """Return the comparisons of the best method, or else config, on the test split; empty before the first result."""
    if not result.measured:
        return []
    best = _best(result)
    config_id = best.config_id if isinstance(best, ConfirmedConfig) else best.configs[0]
    return [each for each in result.comparisons if each.config_id == config_id]


def standing(comparison: Comparison) -> str:
    """Describe how a comparison's first config stands against the second, such as `is better than kd`."""
    return standing_in_words(
        comparison.difference,
        comparison.against_label,
        comparison.corrected_p,
        comparison.corrected_equivalence,
    )


def _p_text(comparison: Comparison) -> str:
    if comparison.corrected_p is None:
        return ""
    return p_clause(comparison.difference.p_value, f"({format_p(comparison.corrected_p)} by Holm)")
