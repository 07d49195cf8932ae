"""Result of a study on the terminal."""

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
from analysis.statistics.estimates import Estimate
from study.plan.methods import BASELINE
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
    """Format the result for the width and colours of the terminal behind `stream`."""
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
        table = comparison_table if plan.compared else _table
        console.print(table(outcome.configs, outcome.costs))
    methods = sorted({config.accuracy.method for config in outcome.configs if config.accuracy.n > 1})
    for text in [*methods, *correlation_lines(plan, outcome.correlation, outcome.landmark), *outcome.notes]:
        console.print(text, markup=False)
    if outcome.front is not None:
        console.print(f"\n{front_title(outcome.front)}", style="bold")
        if outcome.front.on_front:
            console.print(_cells_table(*front_cells(outcome.front)))
        for text in front_notes(outcome.front):
            console.print(text, markup=False)
    if outcome.students:
        console.print("\nStudents where they run", style="bold")
        console.print(_cells_table(*deployment_cells(outcome.students)))
        console.print(deployment_note(outcome.students), markup=False)
    if outcome.confirmed is not None:
        console.print("\nConfirmed on fresh seeds", style="bold")
        for shown in confirmed_tables(outcome.confirmed):
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


def _table(configs: list[ConfigSummary], costs: dict[str, ConfigCost]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("config", overflow="fold", min_width=18)
    words = _short_words(configs)
    for name in ("n", f"val {words}", "gap (nats)", f"{words} - kd", "cost\nx ce", "in\nsearch"):
        table.add_column(name, justify="right", no_wrap=True)
    for config in configs:
        table.add_row(
            f"{control_name(config)} (control)" if config.stage == "control" else _label(config),
            str(config.accuracy.n),
            format_plus_minus(config.accuracy),
            format_plus_minus(config.gap, GAP_PLACES),
            _difference(config.against_baseline),
            times(costs[config.config_id].flops_to_ce),
            format_number(config.search_accuracy),
        )
    return table


def _cells_table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold", min_width=10)
    for head in heads[1:]:
        table.add_column(head.replace(", ", "\n").replace(" (", "\n("), justify="right")
    for row in rows:
        table.add_row(*(cell.replace(" [", "\n[") for cell in row))
    return table


def comparison_table(configs: list[ConfigSummary], costs: dict[str, ConfigCost]) -> Table:
    """Return a table of the compared methods, for terminals of at least 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold", min_width=10)
    searched = any(config.search_accuracy is not None for config in configs)
    words = _short_words(configs)
    heads = ["n", f"val {words}", "gap (nats)", f"{words} - {BASELINE}", "p\n(Holm)", "cost\nx ce"]
    for name in [*heads, "in\nsearch"] if searched else heads:
        table.add_column(name, justify="right", no_wrap=True)
    for config in configs:
        against, settings = config.against_baseline, settings_of(config)
        cells = [
            f"{config.method}\n  {settings}" if settings else config.method,
            str(config.accuracy.n),
            format_plus_minus(config.accuracy),
            format_plus_minus(config.gap, GAP_PLACES),
            "(baseline)" if against is None else _with_bounds(against, broken=searched),
            format_p(config.corrected_p),
            times(costs[config.config_id].flops_to_ce),
        ]
        table.add_row(*cells, *([format_number(config.search_accuracy)] if searched else []))
    return table


def _short_words(configs: list[ConfigSummary]) -> str:
    """Return a short name of the objective for table headers."""
    return objective_of_all(configs).removesuffix(" correlation")


def _with_bounds(against: Estimate, *, broken: bool) -> str:
    """Format a difference, with the interval on a second line if the table has little room."""
    text = format_difference(against)
    return text.replace(" [", "\n[") if broken else text


def _difference(against: Estimate | None) -> str:
    return "" if against is None else format_number(against.value, signed=True) + p_clause(against.p_value)


def _label(config: ConfigSummary) -> str:
    return f"{config.method} {format_settings({_short(name): value for name, value in config.varied.items()})}"


def _short(field: str) -> str:
    return field.removeprefix("adapter_").replace("learning_rate", "lr").replace("_", " ")
