"""Study result on the terminal."""

import shlex
from typing import TextIO

from rich.console import Console
from rich.table import Table

from analysis.questions.costs import ConfigCost, times
from analysis.questions.deployment import deployment_cells, deployment_note
from analysis.questions.methods import settings_of
from analysis.questions.pareto import front_cells, front_notes, front_title
from analysis.reading.trials import (
    ConfigSummary,
    control_name,
    objective_of_all,
)
from analysis.statistics.estimates import Estimate, interval_methods
from study.plan.methods import BASELINE
from study.result.columns import NARROWEST, Column, fitted_table
from study.result.confirmed import confirmed_tables
from study.result.outcome import SYMBOLS, Outcome, correlation_lines, ui_command
from trainables.display.numbers import (
    GAP_PLACES,
    format_difference,
    format_duration,
    format_number,
    format_p,
    format_plus_minus,
    format_settings,
    p_clause,
)


def outcome_in_words(outcome: Outcome, stream: TextIO) -> str:
    """Format the result for the terminal behind `stream`, with matching width and colours."""
    console = Console(file=stream, highlight=False)
    # Captured first: rich ends the process with exit code 1 when it writes to a closed pipe.
    with console.capture() as text:
        _print_outcome(outcome, console)
    return text.get()


def _print_outcome(outcome: Outcome, console: Console) -> None:
    plan = outcome.plan
    console.print()
    console.print(plan.search_space.question, style="bold")
    if outcome.configs:
        table = comparison_table if plan.compared else result_table
        console.print(table(outcome.configs, outcome.costs, console.width))
    methods = interval_methods(config.accuracy.method for config in outcome.configs if config.accuracy.n > 1)
    for text in [*methods, *correlation_lines(plan, outcome.correlation, outcome.landmark), *outcome.notes]:
        console.print(text, markup=False)
    if outcome.front is not None:
        console.print(f"\n{front_title(outcome.front)}", style="bold")
        if outcome.front.on_front:
            console.print(_cells_table(*front_cells(outcome.front), console.width))
        for text in front_notes(outcome.front, above=methods):
            console.print(text, markup=False)
    if outcome.students:
        console.print("\nStudents where they run", style="bold")
        console.print(_cells_table(*deployment_cells(outcome.students), console.width))
        console.print(deployment_note(outcome.students), markup=False)
    if outcome.confirmed is not None:
        console.print("\nConfirmed on fresh seeds", style="bold")
        for shown in confirmed_tables(outcome.confirmed, console.width):
            console.print(shown)
        for text in outcome.confirmed_texts:
            console.print(text, markup=False)
    student = outcome.summary.get("confirmation", {}).get("student")
    if student is not None:
        stays = f"; the champion remains {student['champion']}" if student["champion"] else ""
        console.print(
            f"\nstudent   {student['model']} ({student['alias']}{stays}); {student['file']}",
            markup=False,
            soft_wrap=True,
        )
    trials = outcome.summary["trials"]
    counts = ", ".join(f"{trials[status]} {word}" for status, word in SYMBOLS.items() if trials[status])
    console.print(f"\ntrials    {counts or 'none ended'}; {format_duration(outcome.summary['seconds'])}", markup=False)
    if words := outcome.summary.get("gpus", {}).get("words"):
        console.print(f"gpus      {words}", markup=False)
    console.print(f"records   {plan.directory / 'records'}", markup=False, soft_wrap=True)
    console.print(f"figures   {plan.directory / 'figures'}", markup=False, soft_wrap=True)
    if (report := outcome.summary["report"]) is not None:
        console.print(f"report    {report}", markup=False, soft_wrap=True)
    console.print(f"compare   {ui_command(plan)}", markup=False, soft_wrap=True)
    console.print(f"runs      {outcome.runs}", markup=False, soft_wrap=True)
    if outcome.best is not None:
        console.print(f"best      {outcome.best.line}", markup=False, soft_wrap=True)
    if plan.optuna_storage is not None:
        console.print(
            f"search    {shlex.join(['optuna-dashboard', str(plan.optuna_storage)])}", markup=False, soft_wrap=True
        )
    for asked, command in (
        (plan.tensorboard, ["tensorboard", "--logdir", str(plan.directory / "tensorboard")]),
        (plan.wandb_offline, ["wandb", "sync", str(plan.directory / "wandb")]),
    ):
        if asked:
            console.print(f"also      {shlex.join(command)}", markup=False, soft_wrap=True)


def result_table(configs: list[ConfigSummary], costs: dict[str, ConfigCost], width: int = NARROWEST) -> Table:
    """Return a table with the repeated configs of a search."""
    words = _short_words(configs)
    names = [f"{control_name(each)} (control)" if each.stage == "control" else _label(each) for each in configs]
    columns = {
        "config": names,
        "n": [str(each.accuracy.n) for each in configs],
        f"val {words}": [format_plus_minus(each.accuracy) for each in configs],
        "gap (nats)": [format_plus_minus(each.gap, GAP_PLACES) for each in configs],
        f"{words} - {BASELINE}": [_difference(each.against_baseline) for each in configs],
        "cost\nx ce": [times(costs[each.config_id].flops_to_ce) for each in configs],
        "in\nsearch": [format_number(each.search_accuracy) for each in configs],
    }
    return _named(columns, width)


def _named(columns: dict[str, list[str]], width: int) -> Table:
    """Return a table with names in the first column."""
    heads = list(columns)
    return fitted_table([Column(head, tuple(columns[head]), head == heads[0]) for head in heads], width)


def _cells_table(heads: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> Table:
    return _named(dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True)), width)


def comparison_table(configs: list[ConfigSummary], costs: dict[str, ConfigCost], width: int = NARROWEST) -> Table:
    """Return a table with the compared methods."""
    words = _short_words(configs)
    settings = [settings_of(each) for each in configs]
    against = [each.against_baseline for each in configs]
    columns = {
        "method": [each.method + (f"\n  {own}" if own else "") for each, own in zip(configs, settings, strict=True)],
        "n": [str(each.accuracy.n) for each in configs],
        f"val {words}": [format_plus_minus(each.accuracy) for each in configs],
        "gap (nats)": [format_plus_minus(each.gap, GAP_PLACES) for each in configs],
        f"{words} - {BASELINE}": ["(baseline)" if each is None else format_difference(each) for each in against],
        "p\n(Holm)": [format_p(each.corrected_p) for each in configs],
        "cost\nx ce": [times(costs[each.config_id].flops_to_ce) for each in configs],
    }
    if any(each.search_accuracy is not None for each in configs):
        columns["in\nsearch"] = [format_number(each.search_accuracy) for each in configs]
    return _named(columns, width)


def _short_words(configs: list[ConfigSummary]) -> str:
    """Return a short objective name for table headers."""
    return objective_of_all(configs).removesuffix(" correlation")


def _difference(against: Estimate | None) -> str:
    return "" if against is None else format_number(against.value, signed=True) + p_clause(against.p_value)


def _label(config: ConfigSummary) -> str:
    return f"{config.method} {format_settings({name.replace('_', ' '): each for name, each in config.varied.items()})}"
