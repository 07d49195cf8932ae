"""Study outcome: result table, `summary.json`, figures, and delivery to MLflow.

`analysis` computes the numbers from the records only.
"""

import json
import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.figures.study import compute_gap_against_accuracy
from analysis.questions.adapter import adapter_warnings
from analysis.questions.confirmation import ConfirmationResult
from analysis.questions.confirmed_methods import confirmed_summaries
from analysis.questions.constant import split_warnings
from analysis.questions.costs import ConfigCost, config_costs
from analysis.questions.deployment import DeployedStudent, deployed_students, deployment_markdown
from analysis.questions.methods import methods_table
from analysis.questions.pareto import Front, front_markdown, read_front
from analysis.questions.power import find_resolution, resolution_texts
from analysis.questions.searches import compare_over_searches
from analysis.reading.landmark import Landmark, at_landmark
from analysis.reading.trials import (
    ConfigSummary,
    compare_methods,
    markdown_table,
    open_study,
    summarise_configs,
)
from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import Estimate
from study.cli.commands import power_command
from study.cli.progress import StudyProgress
from study.ledger.failures import failure_notes
from study.ledger.no_gain import no_gain_notes, no_gain_summary
from study.ledger.repetitions import repetition_summary, repetition_texts
from study.ledger.run import StudyRun
from study.plan.beliefs import belief_notes
from study.plan.methods import BASELINE
from study.plan.notes import comparison_notes, confirmation_notes, sampler_notes
from study.plan.plan import StudyPlan
from study.plan.siblings import sibling_notes
from study.plan.warm_start import warm_start_notes
from study.result.best import BestConfig, find_best
from study.result.confirmed import (
    confirmation_metrics,
    confirmation_note,
    confirmation_summary,
    confirmation_texts,
    find_confirmed,
)
from study.result.figures import draw_figures
from study.result.pareto import pareto_metrics, pareto_summary
from study.result.report import about_study, write_study_report
from study.tracking.view import runs_address
from trainables.display.numbers import format_correlation
from trainables.process.errors import StudyError
from trainables.spec.measures import objective_in_words
from trainables.storage.atomic import write_atomically
from trainables.storage.uris import redact_place

if TYPE_CHECKING:
    from study.tracking.tracker import StudyTracker

_COST_NOTE = (
    "`cost x ce` is the ratio of training FLOPs to those of cross-entropy on the same student. Teacher passes for "
    "stored outputs are divided among the trials. Measured times are in summary.json."
)
_MOST_FAILURES = 5
SYMBOLS = {"finished": "finished", "pruned": "stopped early", "failed": "failed"}


@dataclass(frozen=True)
class Outcome:
    """Outcome of a study.

    Args:
        plan: the study.
        summary: content of `summary.json`, covering all fields below.
        configs: controls first, then the promising configs, best first. In a comparison of methods: all configs, best
            first.
        correlation: rank correlation between sharpness gap and accuracy over the search configs (exploratory).
        landmark: trials and epoch for the correlation.
        costs: cost of each config, by config identifier.
        confirmed: confirmation result, or None without a confirmation.
        confirmed_texts: paragraphs to show with the confirmation result.
        best: best config, or None if no trial has finished.
        runs: address of the trials in MLflow's UI.
        students: measured students.
        front: front for several objectives or limits, or None.
        notes: notes to show with the table.
        tracking_error: error if the delivery to MLflow is incomplete, or None.
    """

    plan: StudyPlan
    summary: dict[str, Any]
    configs: list[ConfigSummary]
    correlation: Estimate
    landmark: Landmark
    costs: dict[str, ConfigCost]
    confirmed: ConfirmationResult | None
    confirmed_texts: list[str]
    best: BestConfig | None
    runs: str
    students: list[DeployedStudent]
    front: Front | None
    notes: list[str]
    tracking_error: Exception | None


def conclude(plan: StudyPlan, run: StudyRun, tracker: "StudyTracker", progress: StudyProgress) -> Outcome:
    """Collect a study run's outcome and deliver it to MLflow."""
    progress.say("collecting the result")
    records = open_study(plan.directory)
    summarise = compare_methods if plan.compared else summarise_configs
    configs = summarise(records.trials, seed=plan.seed) if records.trials.num_rows else []
    correlation = compute_gap_against_accuracy(records, seed=plan.seed).correlation
    confirmed = find_confirmed(run.ledger, records.trials)
    # Test results are not read before a confirmation's last trial has ended.
    warnings = split_warnings(records.trials, configs, confirmed if run.complete else None)
    landmark = at_landmark(records, searched=True)
    warnings += adapter_warnings(records.trials)
    resolution = find_resolution(records.trials, configs, confirmed if run.complete else None)
    searched = compare_over_searches(records.trials, plan.searches_per_method)
    warnings += [] if searched is None else [searched.note]
    notes = [*warnings, *resolution_texts(resolution, power_command(plan)), *_notes(plan, run, landmark, configs)]
    costs = config_costs(records)
    students = deployed_students(records.trials)
    summary = _summary(plan, run, configs, correlation, landmark, notes)
    pareto = pareto_summary(run.ledger)
    if pareto is not None:
        summary["pareto"] = _json_ready(pareto)
    summary["students"] = {each.student: each.facts for each in students}
    front = read_front(summary)
    best = find_best(plan, run.ledger, configs, confirmed if run.complete else None)
    summary["best"] = None if best is None else _json_ready(best.as_dict())
    summary["runs"] = runs = runs_address(plan, tracker.experiment_id)
    summary["resolution"] = None if resolution is None else _json_ready(resolution.as_dict([SMALLEST_EFFECT]))
    for row in summary["configs"]:
        row["cost"] = _json_ready(asdict(costs[row["config_id"]]))
    if confirmed is not None:
        summary["confirmation"] = _json_ready(confirmation_summary(run.ledger, confirmed))
        if run.complete:
            summary["confirmation"]["student"] = _publish(plan, run, confirmed, tracker, notes)
    _write_json(plan.directory / "summary.json", summary)
    tested = []
    if plan.compared and run.complete and confirmed is not None:  # not before the last confirmation trial
        tested = confirmed_summaries(records.trials, confirmed, seed=plan.seed)
    draw_figures(plan, records, configs, tested, costs, front)
    report = write_study_report(plan, notes)
    if report is None:  # `write_study_report` has appended a note
        summary["report"] = None
        _write_json(plan.directory / "summary.json", summary)
    table = methods_table(configs, costs) if plan.compared else markdown_table(configs)
    above = [confirmation_note(run.ledger, confirmed), "**Before**"] if confirmed is not None else []
    if tested:
        above.insert(1, methods_table(tested, costs))
    result_note = "\n\n".join([*above, table, *correlation_lines(plan, correlation, landmark), *notes])
    result_note = "\n\n".join(filter(None, [front_markdown(front), result_note]))
    result_note += f"\n\n{deployment_markdown(students)}" if students else ""
    status = "FINISHED" if run.complete else "KILLED"
    artifacts = [plan.directory / name for name in ("plan.json", "summary.json", "records", "figures")]
    artifacts += [report] if report is not None else []
    metrics = _study_metrics(plan, configs, correlation, landmark)
    metrics |= pareto_metrics(pareto)
    metrics |= confirmation_metrics(confirmed) if confirmed is not None else {}
    error = tracker.finish(status, result_note=result_note, metrics=metrics, artifacts=artifacts)
    texts = confirmation_texts(run.ledger, confirmed) if confirmed is not None else []
    return Outcome(
        plan, summary, configs, correlation, landmark, costs, confirmed, texts, best, runs, students, front, notes,
        error,
    )  # fmt: skip


def _publish(
    plan: StudyPlan, run: StudyRun, confirmed: ConfirmationResult, tracker: "StudyTracker", notes: list[str]
) -> dict[str, Any] | None:
    """Publish the best student to MLflow. An error becomes a note, because the result is valid without it."""
    from study.tracking.student import publish_student

    try:
        return publish_student(plan, run.ledger, confirmed, parent_id=tracker.parent_id)
    except StudyError as error:
        notes.append(f"{error}.")
        return None


def _notes(plan: StudyPlan, run: StudyRun, landmark: Landmark, configs: list[ConfigSummary]) -> list[str]:
    notes = [
        *_first_notes(plan, configs),
        _COST_NOTE,
        *(f"{note}." for note in sampler_notes(plan)),
        *warm_start_notes(plan.warm_start),
        *belief_notes(plan),
        *no_gain_notes(plan, run.ledger.in_stage("search")),
    ]
    notes += [*confirmation_notes(plan), *sibling_notes(plan), *repetition_texts(run.ledger)]
    if plan.searches and landmark.trials.num_rows and not landmark.is_last:
        notes.append(f"The correlation is over {landmark.note}.")
    if not run.complete:
        notes.append(
            f"Incomplete ({run.incomplete_because}): {run.ledger.ended} of {run.ledger.planned} trials have ended."
        )
    failed = [entry for entry in run.ledger.entries.values() if entry.status == "failed"]
    return notes + failure_notes(failed, at_most=_MOST_FAILURES)


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
        **repetition_summary(run.ledger),
        **no_gain_summary(plan, run.ledger.in_stage("search")),
        **about_study(plan),
        **({} if run.ledger.gpus is None else {"gpus": run.ledger.gpus}),
        "records": str(plan.directory / "records"),
        "figures": str(plan.directory / "figures"),
        "report": str(plan.directory / "report.html"),
        "ui": ui_command(plan),
    }


def _teacher_forwards(run: StudyRun) -> dict[str, int]:
    """Count the samples passed through the teacher in all runs of the study.

    Returns:
        `ahead`: samples when the teacher outputs were filled before the trials. `in_trials`: samples within the trials.
    """
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
    # A method's best config comes last: with several searches, a method has several configs.
    for prefix, config in (*best[:1], *reversed(named)):
        place = prefix.replace("+", "_with_")  # MLflow does not accept a plus in metric names
        metrics[f"{place}/{plan.objective.replace('/', '_')}"] = config.accuracy.value
        metrics[f"{place}/sharpness_gap"] = config.gap.value
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _json_ready(value: Any) -> Any:
    """Replace NaN and infinities by None, because JSON has neither."""
    if isinstance(value, dict):
        return {key: _json_ready(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_json_ready(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def ui_command(plan: StudyPlan) -> str:
    """Return the command or address for opening the runs in MLflow's UI."""
    if plan.tracking_uri.startswith("http"):
        return redact_place(plan.tracking_uri)
    command = ["mlflow", "ui", "--backend-store-uri", redact_place(plan.tracking_uri), "--host", "127.0.0.1"]
    return shlex.join(command)


def _correlation_text(correlation: Estimate, words: str, landmark: Landmark) -> str:
    subject = f"Sharpness gap and {words} over the configs of the search, {landmark.place} (exploratory)"
    if math.isnan(correlation.value):
        return f"{subject}: {correlation.method}, n = {correlation.n}"
    found = f"rank correlation {format_correlation(correlation)}, n = {correlation.n} configs"
    return f"{subject}: {found}; {correlation.method}"


def correlation_lines(plan: StudyPlan, correlation: Estimate, landmark: Landmark) -> list[str]:
    """Return lines about the association between gap and accuracy; empty without a search."""
    if not plan.searches:
        return []
    return [_correlation_text(correlation, objective_in_words(plan.base.dataset), landmark)]


def _first_notes(plan: StudyPlan, configs: list[ConfigSummary]) -> list[str]:
    in_search = "Means are over fresh seeds. `in search` is the score that selected the config, and is biased upwards. "
    if not plan.compared:
        return [in_search + "p-values are not corrected for the number of rows."]
    notes = [
        (in_search if plan.searches else "Means are over equal seeds of all methods. ")
        + f"Differences from {BASELINE} are paired by replicate; `p (Holm)` is corrected for the number of rows. "
        "Scores are from the validation split."
    ]
    absent = [method.name for method in plan.compared if method.name not in {config.method for config in configs}]
    if absent:
        notes.append(f"Not in the table, because no repetition finished: {', '.join(absent)}.")
    return notes + comparison_notes(plan)
