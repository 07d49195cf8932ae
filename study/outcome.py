"""What a study found: the table that a person reads, `summary.json`, figures, and their way into MLflow.

The only door from the study to the analysis, which itself reads nothing but the records.
"""

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from analysis.confirmation import ConfirmationResult
from analysis.constant import split_warnings
from analysis.costs import ConfigCost, config_costs, times
from analysis.figures import (
    compute_gap_against_accuracy,
    compute_history,
    compute_learning_curves,
    compute_parameter_effect,
    draw_gap_against_accuracy,
    draw_history,
    draw_learning_curves,
    draw_parameter_effect,
)
from analysis.landmark import Landmark, at_landmark
from analysis.methods import draw_accuracy_against_cost, draw_methods, methods_table, settings_of
from analysis.statistics import Estimate
from analysis.trials import (
    ConfigSummary,
    StudyRecords,
    compare_methods,
    markdown_table,
    objective_of_all,
    open_study,
    summarise_configs,
)
from study.comparison import BASELINE, comparison_notes
from study.confirmed import (
    confirmation_metrics,
    confirmation_note,
    confirmation_summary,
    confirmation_texts,
    confirmed_tables,
    find_confirmed,
    plus_minus,
)
from study.errors import StudyError
from study.plan import StudyPlan
from study.progress import StudyProgress, duration
from study.report import about_study, write_study_report
from study.runner import StudyRun
from study.samplers import sampler_notes
from study.tracking_view import NOTE_FIGURES, NOTE_WIDTH
from trainables.measures import objective_in_words
from trainables.storage import write_atomically
from trainables.uris import redact_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from study.tracking import StudyTracker

_MOST_CURVES = 7  # methods that can be told apart in one panel
_COST_NOTE = (
    "`cost x ce` is the FLOPs of training over those of cross-entropy on the same student, the teacher's passes for "
    "stored outputs shared out; measured times are in summary.json."
)
_SYMBOLS = {"finished": "finished", "pruned": "stopped early", "failed": "failed"}


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Args:
        plan: the study.
        summary: everything below as JSON, as in `summary.json`.
        configs: controls first, then the promising configs, best first; where methods are compared, all best first.
        correlation: rank correlation of sharpness gap and accuracy over the configs of the search (exploratory).
        landmark: the trials that it is of, at the epoch that it is of.
        costs: of the configs, by their ids.
        confirmed: what the confirmation found; None without one.
        confirmed_texts: what must be said beside that.
        notes: what must be said beside the table.
        tracking_error: why MLflow does not have all of it, if so.
    """

    plan: StudyPlan
    summary: dict[str, Any]
    configs: list[ConfigSummary]
    correlation: Estimate
    landmark: Landmark
    costs: dict[str, ConfigCost]
    confirmed: ConfirmationResult | None
    confirmed_texts: list[str]
    notes: list[str]
    tracking_error: Exception | None


def conclude(plan: StudyPlan, run: StudyRun, tracker: "StudyTracker", progress: StudyProgress) -> Outcome:
    """Gather what a run of a study found, and hand it to MLflow."""
    progress.say("gathering the result")
    records = open_study(plan.directory)
    summarise = compare_methods if plan.compared else summarise_configs
    configs = summarise(records.trials, seed=plan.seed) if records.trials.num_rows else []
    correlation = compute_gap_against_accuracy(records, seed=plan.seed).correlation
    confirmed = find_confirmed(run.ledger, records.trials)
    # Before the last trial of a confirmation nobody looks at the test split.
    warnings = split_warnings(records.trials, configs, confirmed if run.complete else None)
    landmark = at_landmark(records, searched=True)
    notes = [*warnings, *_notes(plan, run, landmark, configs)]
    costs = config_costs(records)
    summary = _summary(plan, run, configs, correlation, landmark, notes)
    for row in summary["configs"]:
        row["cost"] = _json_ready(asdict(costs[row["config_id"]]))
    if confirmed is not None:
        summary["confirmation"] = _json_ready(confirmation_summary(run.ledger, confirmed))
        if run.complete:
            summary["confirmation"]["student"] = _publish(plan, run, confirmed, tracker, notes)
    _write_json(plan.directory / "summary.json", summary)
    tested = []
    if plan.compared and run.complete and confirmed is not None:  # before its last trial nobody looks at the test split
        tested = compare_methods(records.trials, confirmed=True, seed=plan.seed)
    _draw_figures(plan, records, configs, tested, costs)
    report = write_study_report(plan, notes)
    if report is None:  # the notes have grown by one
        summary["report"] = None
        _write_json(plan.directory / "summary.json", summary)
    table = methods_table(configs, costs) if plan.compared else markdown_table(configs)
    above = [confirmation_note(run.ledger, confirmed), "**Before**"] if confirmed is not None else []
    if tested:
        above.insert(1, methods_table(tested, costs))
    result_note = "\n\n".join([*above, table, *_correlation_lines(plan, correlation, landmark), *notes])
    status = "FINISHED" if run.complete else "KILLED"
    artifacts = [plan.directory / name for name in ("plan.json", "summary.json", "records", "figures")]
    artifacts += [report] if report is not None else []
    metrics = _study_metrics(plan, configs, correlation, landmark)
    metrics |= confirmation_metrics(confirmed) if confirmed is not None else {}
    error = tracker.finish(status, result_note=result_note, metrics=metrics, artifacts=artifacts)
    texts = confirmation_texts(run.ledger, confirmed) if confirmed is not None else []
    return Outcome(plan, summary, configs, correlation, landmark, costs, confirmed, texts, notes, error)


def _publish(
    plan: StudyPlan, run: StudyRun, confirmed: ConfirmationResult, tracker: "StudyTracker", notes: list[str]
) -> dict[str, Any] | None:
    """The best student's way into MLflow; what goes wrong there is a note, as the result stands without it."""
    from study.student_model import publish_student

    try:
        return publish_student(plan, run.ledger, confirmed, parent_id=tracker.parent_id)
    except StudyError as error:
        notes.append(f"{error}.")
        return None


def outcome_in_words(outcome: Outcome, stream: TextIO) -> str:
    """The result for a person, as wide and as coloured as a stream's terminal takes it."""
    console = Console(file=stream, highlight=False)
    # Printed at once, as rich ends the process with exit code 1 if the stream is a closed pipe.
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
    for text in [*methods, *_correlation_lines(plan, outcome.correlation, outcome.landmark), *outcome.notes]:
        console.print(text, markup=False)
    if outcome.confirmed is not None:
        console.print("\nConfirmed on fresh seeds", style="bold")
        for shown in confirmed_tables(outcome.confirmed):
            console.print(shown)
        for text in outcome.confirmed_texts:
            console.print(text, markup=False)
    student = outcome.summary.get("confirmation", {}).get("student")
    if student is not None:
        stays = f", as {student['champion']}, stays champion" if student["champion"] else ""
        console.print(
            f"\nstudent   {student['model']} ({student['alias']}{stays}); {student['file']}",
            markup=False,
            soft_wrap=True,
        )
    trials = outcome.summary["trials"]
    counts = ", ".join(f"{trials[status]} {word}" for status, word in _SYMBOLS.items() if trials[status])
    console.print(f"\ntrials    {counts or 'none ended'}; {duration(outcome.summary['seconds'])}", markup=False)
    console.print(f"records   {plan.directory / 'records'}", markup=False, soft_wrap=True)
    console.print(f"figures   {plan.directory / 'figures'}", markup=False, soft_wrap=True)
    if (report := outcome.summary["report"]) is not None:
        console.print(f"report    {report}", markup=False, soft_wrap=True)
    console.print(f"compare   {ui_command(plan)}", markup=False, soft_wrap=True)
    if plan.optuna_storage is not None:
        console.print(
            f"search    {shlex.join(['optuna-dashboard', str(plan.optuna_storage)])}", markup=False, soft_wrap=True
        )


def ui_command(plan: StudyPlan) -> str:
    """How to look at the runs in MLflow's UI."""
    if plan.tracking_uri.startswith("http"):
        return redact_place(plan.tracking_uri)
    command = ["mlflow", "ui", "--backend-store-uri", redact_place(plan.tracking_uri), "--host", "127.0.0.1"]
    return shlex.join(command)


def _table(configs: list[ConfigSummary], costs: dict[str, ConfigCost]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("config", overflow="fold", min_width=18)
    words = _short_words(configs)
    for name in ("n", f"val {words}", "gap (nats)", f"{words} - kd", "cost\nx ce", "in\nsearch"):
        table.add_column(name, justify="right", no_wrap=True)
    for config in configs:
        table.add_row(
            f"{config.method} (control)" if config.stage == "control" else _label(config),
            str(config.accuracy.n),
            plus_minus(config.accuracy),
            plus_minus(config.gap, places=2),
            _difference(config.against_baseline),
            times(costs[config.config_id].flops_to_ce),
            _in_search(config),
        )
    return table


def comparison_table(configs: list[ConfigSummary], costs: dict[str, ConfigCost]) -> Table:
    """The methods that a study compared, for a terminal of 80 columns and more."""
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
            plus_minus(config.accuracy),
            plus_minus(config.gap, places=2),
            "(baseline)" if against is None else _with_bounds(against, "\n" if searched else " "),
            _p_in_words(config.corrected_p),
            times(costs[config.config_id].flops_to_ce),
        ]
        table.add_row(*cells, *([_in_search(config)] if searched else []))
    return table


def _short_words(configs: list[ConfigSummary]) -> str:
    """What the objective is called where there is little room."""
    return objective_of_all(configs).removesuffix(" correlation")


def _with_bounds(against: Estimate, between: str) -> str:
    bounds = "" if math.isnan(against.low) else f"{between}[{against.low:+.3f}, {against.high:+.3f}]"
    return f"{against.value:+.3f}{bounds}"


def _p_in_words(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return f"{p_value:.2f}" if p_value >= 0.01 else f"{p_value:.0e}"


def _in_search(config: ConfigSummary) -> str:
    return "" if config.search_accuracy is None else f"{config.search_accuracy:.3f}"


def _difference(against: Estimate | None) -> str:
    if against is None:
        return ""
    if against.p_value is None:
        return f"{against.value:+.3f}"
    return f"{against.value:+.3f}, p {_p_in_words(against.p_value)}"


def _label(config: ConfigSummary) -> str:
    values = [
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in ((_short(name), value) for name, value in config.varied.items())
    ]
    return f"{config.method} {', '.join(values)}"


def _short(field: str) -> str:
    return field.removeprefix("adapter_").replace("learning_rate", "lr").replace("_", " ")


def _correlation_text(correlation: Estimate, words: str, landmark: Landmark) -> str:
    subject = f"Sharpness gap and {words} over the search's configs, {landmark.place} (exploratory)"
    if math.isnan(correlation.value):
        return f"{subject}: {correlation.method}, n = {correlation.n}"
    interval = "" if math.isnan(correlation.low) else f" [{correlation.low:+.2f}, {correlation.high:+.2f}]"
    found = f"rank correlation {correlation.value:+.2f}{interval}, n = {correlation.n} configs"
    return f"{subject}: {found}; {correlation.method}"


def _correlation_lines(plan: StudyPlan, correlation: Estimate, landmark: Landmark) -> list[str]:
    if not plan.searches:
        return []
    return [_correlation_text(correlation, objective_in_words(plan.base.dataset), landmark)]


def _first_notes(plan: StudyPlan, configs: list[ConfigSummary]) -> list[str]:
    in_search = "Means are over fresh seeds; `in search` is the one seed that a config was chosen by, and flatters it. "
    if not plan.compared:
        return [in_search + "p-values are not corrected for the number of rows."]
    notes = [
        (in_search if plan.searches else "Means are over equal seeds of all methods. ")
        + f"Differences from {BASELINE} are paired by replicate; `p (Holm)` is corrected for the number of rows. "
        "Scores are of the validation split."
    ]
    absent = [method.name for method in plan.compared if method.name not in {config.method for config in configs}]
    if absent:
        notes.append(f"Without a finished repetition, and so not in the table: {', '.join(absent)}.")
    return notes + comparison_notes(plan)


def _notes(plan: StudyPlan, run: StudyRun, landmark: Landmark, configs: list[ConfigSummary]) -> list[str]:
    notes = [*_first_notes(plan, configs), _COST_NOTE, *(f"{note}." for note in sampler_notes(plan))]
    if plan.searches and landmark.trials.num_rows and not landmark.is_last:
        notes.append(f"The correlation is of {landmark.note}.")
    if not run.complete:
        notes.append(
            f"Incomplete ({run.incomplete_because}): {run.ledger.ended} of {run.ledger.planned} trials have ended."
        )
    failed = [entry for entry in run.ledger.entries.values() if entry.status == "failed"]
    notes += [f"Failed: {entry.name} ({entry.trial_id}): {entry.error}" for entry in failed[:5]]
    return notes


def _summary(
    plan: StudyPlan,
    run: StudyRun,
    configs: list[ConfigSummary],
    correlation: Estimate,
    landmark: Landmark,
    notes: list[str],
) -> dict[str, Any]:
    trials = {status: run.ledger.count(status) for status in ("finished", "pruned", "failed")}
    return {
        "study": plan.name,
        "study_id": plan.study_id,
        "question": plan.search_space.question,
        "plan_digest": plan.digest,
        "objective": plan.objective,
        "complete": run.complete,
        "incomplete_because": run.incomplete_because,
        "trials": {**trials, "planned": run.ledger.planned},
        "seconds": run.seconds,
        "teacher": {
            "architecture": plan.base.teacher,
            "recipe": plan.base.teacher_recipe,
            "epochs": plan.base.teacher_epochs or None,
            "digest": plan.base.teacher_digest or None,
        },
        "teacher_forwards": _teacher_forwards(run),
        "configs": [_json_ready(asdict(config)) for config in configs],
        "gap_accuracy_correlation": {
            **_json_ready(asdict(correlation)),
            "trials": landmark.trials.num_rows,
            "epoch": landmark.epoch,
            "last_epoch": landmark.last_epoch,
        },
        "notes": notes,
        **about_study(plan),
        "records": str(plan.directory / "records"),
        "figures": str(plan.directory / "figures"),
        "report": str(plan.directory / "report.html"),
        "ui": ui_command(plan),
    }


def _teacher_forwards(run: StudyRun) -> dict[str, int]:
    """Samples that went through the teacher itself, in all runs of the study: ahead of the trials, and in them."""
    epochs = [measures for entry in run.ledger.entries.values() for measures in entry.epochs.values()]
    in_trials = int(sum(measures.get("cost/teacher_forwards", 0.0) for measures in epochs))
    return {"ahead": run.ledger.teacher_forwards_ahead, "in_trials": in_trials}


def _study_metrics(
    plan: StudyPlan, configs: list[ConfigSummary], correlation: Estimate, landmark: Landmark
) -> dict[str, float]:
    metrics = {"gap_accuracy_correlation": correlation.value}
    if plan.searches and math.isfinite(correlation.value):
        metrics["gap_accuracy_correlation_trials"] = float(landmark.trials.num_rows)
        metrics["gap_accuracy_correlation_epoch"] = float(landmark.epoch)
    named = [(config.method, config) for config in configs if plan.compared or config.stage == "control"]
    best = [("best", config) for config in configs if plan.compared or config.stage == "replicate"]
    for prefix, config in (*best[:1], *named):
        place = prefix.replace("+", "_with_")  # MLflow knows no plus
        metrics[f"{place}/{plan.objective.replace('/', '_')}"] = config.accuracy.value
        metrics[f"{place}/sharpness_gap"] = config.gap.value
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _json_ready(value: Any) -> Any:
    """NaN is no JSON: what is not known is null."""
    if isinstance(value, dict):
        return {key: _json_ready(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_json_ready(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _draw_figures(
    plan: StudyPlan,
    records: StudyRecords,
    configs: list[ConfigSummary],
    tested: list[ConfigSummary],
    costs: dict[str, ConfigCost],
) -> None:
    folder = plan.directory / "figures"
    (folder / NOTE_FIGURES).mkdir(parents=True, exist_ok=True)
    trials, epochs = records.trials, records.epochs
    figures: dict[str, Callable[[], Figure]] = {
        "learning_curves": lambda: draw_learning_curves(compute_learning_curves(trials, epochs)),
    }
    if len(plan.compared) > _MOST_CURVES:
        del figures["learning_curves"]
    if plan.searches:
        figures |= {
            "history": lambda: draw_history(compute_history(trials)),
            "gap_against_accuracy": lambda: draw_gap_against_accuracy(
                compute_gap_against_accuracy(records, seed=plan.seed)
            ),
        }
    if plan.compared:
        figures["methods"] = lambda: draw_methods(configs)
        figures["accuracy_against_cost"] = lambda: draw_accuracy_against_cost(configs, costs)
        if tested:
            figures["methods_confirmed"] = lambda: draw_methods(tested)
            figures["accuracy_against_cost_confirmed"] = lambda: draw_accuracy_against_cost(tested, costs)
    for parameter in plan.search_space.scientific:
        figures[f"{parameter}_against_accuracy"] = lambda name=parameter: draw_parameter_effect(  # type: ignore[misc]
            compute_parameter_effect(records, name, seed=plan.seed)
        )
    for name, draw in figures.items():
        figure = draw()
        figure.savefig(folder / f"{name}.png", dpi=150)
        figure.savefig(folder / NOTE_FIGURES / f"{name}.png", dpi=min(100.0, NOTE_WIDTH / figure.get_figwidth()))
