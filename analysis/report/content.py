"""Report content: sections, each present only if it has content."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from analysis.figures.curves import compute_learning_curves
from analysis.figures.drawing import capitalised
from analysis.figures.parallel import compute_parallel
from analysis.figures.pareto import panels_of
from analysis.figures.study import (
    GapAgainstAccuracy,
    compute_gap_against_accuracy,
    compute_history,
    compute_parameter_effect,
)
from analysis.questions import adapter_why
from analysis.questions.adapter import adapter_warnings
from analysis.questions.association import Association, between_configs, within_configs
from analysis.questions.calibration import TEST, VALIDATION, compute_reliability
from analysis.questions.confirmation import ConfirmationResult
from analysis.questions.confirmation_words import verdict
from analysis.questions.confirmed_methods import confirmed_summaries
from analysis.questions.constant import split_warnings
from analysis.questions.costs import ConfigCost, config_costs
from analysis.questions.importance import Importance, RangeWarning, importances, range_warnings
from analysis.questions.intervention import ImposedGap, imposed_gaps
from analysis.questions.methods import config_label
from analysis.questions.pareto import front_notes, front_title, read_front
from analysis.questions.power import LEADS, Resolution, find_resolution, resolution_texts
from analysis.questions.searches import LEAD, compare_over_searches
from analysis.questions.stability import rank_stability
from analysis.reading.landmark import GapName, at_landmark, nuisance_fields
from analysis.reading.trials import (
    SEARCH,
    STUDENT,
    ConfigSummary,
    compare_methods,
    planned_epochs,
    select,
    summarise_configs,
    survivor_note,
    varied_fields,
)
from analysis.report import tables
from analysis.report.answer import Answer, answer
from analysis.report.best import BestLine, best_line
from analysis.report.deployed import deployment_table, front_table
from analysis.report.folder import StudyFolder
from analysis.report.health import Check, health_checks
from analysis.report.pictures import (
    Picture,
    cost_picture,
    curves_picture,
    effect_picture,
    front_picture,
    gap_curves_picture,
    gap_picture,
    history_picture,
    importance_picture,
    imposed_picture,
    methods_picture,
    parallel_picture,
    reliability_picture,
)
from analysis.report.shown import Shown, whom_to_show
from analysis.report.tables import Table
from analysis.report.typesetting import typeset, unbroken
from trainables.display.numbers import (
    counted,
    format_correlation,
    format_duration,
    format_estimate,
    format_slope,
    p_clause,
)
from trainables.spec.own_data import short_name
from trainables.storage.uris import REDACTED

_SLICED: Final = ("adapter_width", "temperature")
_FEW_DRAWS: Final = 100
_MOST_OPEN: Final = 2  # parameter figures on the first screens
_FEW_ROWS: Final = 8  # longer tables leave out the row settings on the first screens
_ASSOCIATED: Final[tuple[GapName, ...]] = ("paper", "centred")
_NO_PREDICTIONS: Final = (
    "The records come from an earlier version. They contain calibration errors, but no predictions for reliability "
    "diagrams of teacher, adapted teacher and student."
)
_IMPOSED: Final = (
    "The observed gap is not correlated with {objective} over all trials, because the arms impose the gap in different "
    "ways (the placebo by a constant that does not affect the student), and a correlation would reflect these "
    "differences. The effect of the imposed gap is shown below for each arm."
)
# Summary notes shown elsewhere on the page, computed again from the records.
_NOT_REPEATED: Final = ("Failed: ", "Incomplete ", LEAD, *LEADS)
_NO_BOUNDS: Final = (
    "The folder has no summary.json with the search bounds, so importances and ranges cannot be assessed."
)


@dataclass(frozen=True)
class Section:
    """Page section.

    Args:
        key: section anchor.
        title: heading.
        texts: paragraphs.
        tables: tables below the paragraphs.
        pictures: figures below the tables.
        facts: names and values.
        commands: pairs of a description and a command line.
        more: whether the section is collapsed, below the first screens.
    """

    key: str
    title: str
    texts: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    more: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether the section has no content."""
        return not (self.texts or self.tables or self.pictures or self.facts or self.commands)

    def typeset(self) -> "Section":
        """Return a copy with typeset paragraphs, and with unbroken intervals in tables."""
        return replace(
            self, texts=tuple(map(typeset, self.texts)), tables=tuple(table.unbroken() for table in self.tables)
        )


@dataclass(frozen=True)
class Report:
    """Complete page content.

    Args:
        study: study name.
        question: question behind the study.
        facts: study settings, in a few words each.
        answer: answer to the question.
        best: best config to copy, or the reason if there is none.
        checks: problems to know before trusting the results, in one line each.
        warnings: caveats in full.
        sections: remaining content.
    """

    study: str
    question: str
    facts: tuple[str, ...]
    answer: Answer
    best: BestLine
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class _Found:
    """Results computed once from the records."""

    configs: Sequence[ConfigSummary]
    shown: Shown
    costs: Mapping[str, ConfigCost]
    confirmed: ConfirmationResult | None
    confirmed_methods: list[ConfigSummary]
    resolution: Resolution | None
    gap: GapAgainstAccuracy
    arms: Sequence[ImposedGap]
    is_imposed: bool
    importances: Sequence[Importance]
    ranges: Sequence[RangeWarning]
    not_judged: str | None
    associations: Sequence[Association]


def make_report(study: StudyFolder, *, thorough: bool = False) -> Report:
    """Assemble the report for a study.

    Args:
        study: study folder.
        thorough: include results with a run time of a minute or more: fANOVA importances, and PED-ANOVA with all draws.
    """
    found = _work_out(study, thorough=thorough)
    sections = (
        _results(study, found),
        _front(study),
        _gap(study, found),
        _slices(study, found),
        _further(study, found),
        _power(study, found),
        _associated(found),
        _curves(study, found),
        _calibration(study, found),
        _cost(study, found),
        _deployment(study),
        _search(study, found),
        _failures(study),
        _plan(study),
        _again(study),
    )
    given = answer(
        study, found.configs, found.confirmed, found.confirmed_methods, found.gap, found.arms, found.resolution
    )
    names = {**found.shown.labels, **{each.config_id: config_label(each) for each in found.configs}}
    return Report(
        study=study.name,
        question=_question(study),
        facts=_facts(study),
        answer=replace(given, verdict=unbroken(given.verdict), detail=unbroken(given.detail)),
        best=best_line(study, found.configs, found.confirmed),
        checks=tuple(health_checks(study, names, found.ranges)),
        warnings=tuple(map(typeset, _warnings(study, found))),
        sections=tuple(section.typeset() for section in sections if not section.is_empty),
    )


def _work_out(study: StudyFolder, *, thorough: bool) -> _Found:
    records, seed = study.records, study.seed
    summarise = compare_methods if study.compares_methods else summarise_configs
    arms = [] if study.compares_methods else imposed_gaps(records, seed=seed)
    gap = compute_gap_against_accuracy(records, seed=seed)
    is_imposed = bool(arms) and gap.is_imposed
    mattered: list[Importance] = []
    ranges: list[RangeWarning] = []
    not_judged = None if study.summary else _NO_BOUNDS
    try:
        mattered = importances(records, study.searched, "PED-ANOVA", seed=seed, draws=None if thorough else _FEW_DRAWS)
        mattered += importances(records, study.searched, "fANOVA", seed=seed) if thorough else []
        ranges = range_warnings(records, study.searched)
    except ValueError as error:  # a config outside the bounds in the summary
        not_judged = f"Importances and ranges cannot be assessed: {error}."
    confirmed = study.confirmation()
    configs, methods = summarise(records.trials, seed=seed), []
    if study.compares_methods and confirmed is not None:
        methods = confirmed_summaries(records.trials, confirmed, seed=seed)
    return _Found(
        configs=configs,
        shown=whom_to_show(configs, confirmed, methods, compares=study.compares_methods),
        costs=config_costs(records),
        confirmed=confirmed,
        confirmed_methods=methods,
        resolution=find_resolution(records.trials, configs, confirmed),
        gap=gap,
        arms=arms,
        is_imposed=is_imposed,
        importances=mattered,
        ranges=ranges,
        not_judged=not_judged,
        associations=[] if study.compares_methods or is_imposed else _associations(study),
    )


def _associations(study: StudyFolder) -> list[Association]:
    """Correlate the gap with accuracy between and within configs, searched and repeated; drop undefined results."""
    named = [each.name for each in study.searched if each.role == "nuisance"]
    varied = varied_fields(study.records.trials)
    held = tuple(name for name in named if name in varied) or nuisance_fields(study.records.trials)
    held += (STUDENT,) if STUDENT in varied and STUDENT not in held else ()
    found = []
    for searched in (True, False):
        landmark = at_landmark(study.records, searched=searched)
        for gap in _ASSOCIATED if landmark.trials.num_rows else ():
            found += [between_configs(landmark, gap, held=each, seed=study.seed) for each in dict.fromkeys(((), held))]
            if not searched:
                found.append(within_configs(landmark, gap, seed=study.seed))
    return [each for each in found if np.isfinite(each.estimate.value)]


def _question(study: StudyFolder) -> str:
    return str(
        study.summary.get("question") or (f"Results of search space {study.space}" if study.space else "A study")
    )


def _facts(study: StudyFolder) -> tuple[str, ...]:
    trials = study.records.trials
    first = trials.slice(0, 1).to_pylist()[0] if trials.num_rows else dict(study.plan.get("base", {}))
    facts = [f"space {study.space}"] if study.space else []
    if first.get("dataset"):
        facts.append(short_name(str(first["dataset"])))
    if first.get("student"):
        known = trials["student"].to_pylist() if trials.num_rows else [first["student"]]
        students = ", ".join(sorted({each for each in known if each}))
        facts.append(f"{first.get('teacher') or 'no teacher'} → {students}")
    epochs = first.get("epochs_planned") or first.get("epochs")
    facts += [counted(int(epochs), "epoch")] if epochs else []
    longer = planned_epochs(trials, confirmed=True) - {epochs}
    facts += [f"{counted(max(longer), 'epoch')} to confirm"] if longer else []
    facts.append(counted(trials.num_rows, "trial"))
    starts = [each for each in trials["started"].to_pylist() if each is not None]
    facts += [f"begun {min(starts):%Y-%m-%d}"] if starts else []
    return tuple(facts)


def _warnings(study: StudyFolder, found: _Found) -> tuple[str, ...]:
    warnings = []
    if study.is_complete is False:
        planned = study.summary.get("trials", {}).get("planned")
        of = f" of {planned:,}" if isinstance(planned, int) else ""
        warnings.append(f"The study is not complete: {study.records.trials.num_rows:,}{of} trials have ended.")
    if study.is_complete is None and study.plan:
        warnings.append("The study has not ended, or summary.json is missing. The results below may be incomplete.")
    if study.chosen and not study.is_confirmed:
        warnings.append("The confirmation is still running. The verdict is shown after the last trial.")
    failed = select(study.records.trials, statuses=["failed"]).num_rows
    if failed:
        warnings.append(f"{counted(failed, 'trial')} failed; see below.")
    warnings += split_warnings(study.records.trials, found.configs, found.confirmed)
    warnings += adapter_warnings(study.records.trials)
    return (*warnings, *(f"{each.message}." for each in found.ranges))


def _results(study: StudyFolder, found: _Found) -> Section:
    """Return the main table: confirmed methods or configs, else repeated configs, with method figures."""
    rows = found.confirmed_methods or found.configs
    shown: list[Table] = []
    if found.confirmed is not None and not found.confirmed_methods:
        shown = tables.confirmed_tables(found.confirmed)[:2]
    elif rows:
        shown = [tables.results_table(study, rows, found.costs, brief=len(rows) > _FEW_ROWS)]
    pictures: tuple[Picture, ...] = ()
    if study.compares_methods and rows:
        pictures = (methods_picture(rows), *_cost_pictures(study, found))
    texts: list[str] = []
    if study.space == adapter_why.SPACE:
        is_confirmed = bool(found.confirmed_methods)
        texts = adapter_why.adapter_why_texts(study.records.trials, confirmed=is_confirmed, seed=study.seed)
    return Section("results", "Results", tuple(texts), tuple(shown), pictures, more=False)


def _further(study: StudyFolder, found: _Found) -> Section:
    """Return all other result tables, and the notes."""
    shown: list[Table] = []
    texts: list[str] = []
    rows = found.confirmed_methods or found.configs
    if found.confirmed_methods:
        shown += [tables.results_table(study, rows, found.costs)] if len(rows) > _FEW_ROWS else []
    if found.confirmed is not None:
        shown += tables.confirmed_tables(found.confirmed)[:1] if found.confirmed_methods else []
        further = (
            tables.samples_table(found.confirmed),
            tables.factors_table(found.confirmed),
            tables.classes_table(study, found.confirmed),
        )
        shown += [table for table in further if table is not None]
        texts += study.summary.get("confirmation", {}).get("sequential", {}).get("texts", [])
        texts += verdict(found.confirmed)
    if found.configs:
        if found.confirmed is not None or len(rows) > _FEW_ROWS:
            shown.append(tables.results_table(study, found.configs, found.costs))
        over_searches = compare_over_searches(study.records.trials, study.searches_per_method)
        shown += [] if over_searches is None else [tables.searches_table(over_searches)]
        above = split_warnings(study.records.trials, found.configs, found.confirmed)
        above += adapter_warnings(study.records.trials)
        notes = [note for note in study.summary.get("notes", []) if not note.startswith(_NOT_REPEATED)]
        notes = [note for note in notes if note not in above]
        texts += [re.sub(r"`([^`]*)`", r"“\1”", note) for note in notes]
        texts += _agreement(study)
    return Section("further", "All tables and notes", tuple(texts), tuple(shown))


def _power(study: StudyFolder, found: _Found) -> Section:
    """Describe the detectable differences with the study's seeds, and the seeds needed for smaller ones."""
    resolution = found.resolution
    texts = resolution_texts(resolution, _command(study, "study.power"))
    shown = (tables.power_table(resolution),) if resolution is not None and resolution.spreads else ()
    return Section(
        "power", "What these seeds can show", tuple(re.sub(r"`([^`]*)`", r"\1", text) for text in texts), shown
    )


def _command(study: StudyFolder, module: str) -> str:
    return shlex.join(["python", "-m", module, study.name, *study.where])


def _agreement(study: StudyFolder) -> list[str]:
    stability = rank_stability(study.records, seed=study.seed)
    agreement = stability.agreement
    if np.isnan(agreement.value):
        return []
    value = format_correlation(agreement)
    return [
        f"Agreement between seeds on the order of configs: {value}{p_clause(agreement.p_value, 'of no agreement')} "
        f"({agreement.method}; {stability.note})."
    ]


def _gap(study: StudyFolder, found: _Found) -> Section:
    pictures = [gap_picture(found.gap)] if len(found.gap.gap) and not found.is_imposed else []
    texts = []
    if found.arms:
        pictures.insert(0, imposed_picture(found.arms, seed=study.seed))
        texts = [
            f"Arm {arm.control}: {arm.objective} changes by {format_slope(arm.effect)} per nat of target, and the gap "
            f"by {format_estimate(arm.reached, 2, signed=True)} nats (1 if targets are fully met); {arm.effect.method}."
            for arm in found.arms
        ]
    if found.is_imposed:
        texts.insert(0, _IMPOSED.format(objective=found.gap.objective))
    title = f"{'Imposed sharpness gap' if found.is_imposed else 'Sharpness gap'} and {found.gap.objective}"
    more = study.compares_methods or _has_front(study)
    return Section("gap", title, tuple(texts), pictures=tuple(pictures), more=more)


def _associated(found: _Found) -> Section:
    words = found.gap.objective
    shown = (tables.association_table(found.associations, words),) if found.associations else ()
    return Section("associations", f"Association of gap and {words}", tables=shown)


def _slices(study: StudyFolder, found: _Found) -> Section:
    varied = () if study.compares_methods else varied_fields(study.records.trials)
    scientific = [each.name for each in study.searched if each.role == "scientific"]
    imposed = {"gap_control", "gap_target"} if found.arms else set()
    wanted = [name for name in dict.fromkeys([*_SLICED, *scientific]) if name in varied and name not in imposed]
    effects = [compute_parameter_effect(study.records, name, seed=study.seed) for name in wanted]
    pictures = tuple(effect_picture(effect) for effect in effects if len(effect.searched))
    more = len(pictures) > _MOST_OPEN or _has_front(study)
    return Section("slices", f"Varied parameters and {found.gap.objective}", pictures=pictures, more=more)


def _curves(study: StudyFolder, found: _Found) -> Section:
    shown = found.shown
    confirmed = shown.labels if shown.is_confirmed else None
    curves = compute_learning_curves(study.records.trials, study.records.epochs, confirmed)
    drawn = [curve for curve in curves if np.isfinite(curve.accuracy).any()]
    pictures = [curves_picture(drawn, baseline=shown.baseline)] if drawn else []
    of_gaps = gap_curves_picture(drawn, baseline=shown.baseline)
    pictures += [] if of_gaps is None else [of_gaps]
    return Section("curves", "Learning curves", _note_on(shown, drawn), pictures=tuple(pictures))


def _note_on(shown: Shown, drawn: Sequence[object]) -> tuple[str, ...]:
    """Return the note on a section's trials, if there is a note and the section shows something."""
    return (shown.note,) if shown.note is not None and drawn else ()


def _calibration(study: StudyFolder, found: _Found) -> Section:
    shown = found.shown
    table = tables.calibration_table(study, shown)
    if table is None:
        return Section("calibration", "Calibration")
    trials, of = study.records.trials, [(config_id, shown.labels[config_id]) for config_id in shown.in_diagrams]
    pictures = []
    for split, columns in (("validation", VALIDATION), *((("test", TEST),) if shown.is_confirmed else ())):
        drawn = compute_reliability(trials, of, stages=shown.stages, on=columns)
        pictures += [reliability_picture(drawn, split, shown.left_out)] if drawn else []
    texts = _note_on(shown, [table]) + (() if pictures else (_NO_PREDICTIONS,))
    return Section("calibration", "Calibration", texts, (table,), tuple(pictures))


def _cost_pictures(study: StudyFolder, found: _Found) -> tuple[Picture, ...]:
    configs, costs = found.shown.configs, found.costs
    known = [each for each in configs if each.config_id in costs and costs[each.config_id].flops_to_ce]
    return (cost_picture(configs, costs, compares=study.compares_methods),) if known else ()


def _cost(study: StudyFolder, found: _Found) -> Section:
    pictures = () if study.compares_methods else _cost_pictures(study, found)
    title = f"{capitalised(found.gap.objective)} against cost"
    return Section("cost", title, _note_on(found.shown, pictures), pictures=pictures)


def _has_front(study: StudyFolder) -> bool:
    """Return whether the first screens show a front for several objectives or limits, which leaves no more room."""
    front = read_front(study.summary)
    return front is not None and bool(front.points)


def _front(study: StudyFolder) -> Section:
    front = read_front(study.summary)
    if front is None or not front.points:
        return Section("front", "Several objectives")
    if not front.on_front:
        return Section("front", front_title(front), tuple(front_notes(front)), more=False)
    pictures = (front_picture(front),) if panels_of(front) else ()
    return Section("front", front_title(front), tables=(front_table(front),), pictures=pictures, more=False)


def _deployment(study: StudyFolder) -> Section:
    table = deployment_table(study)
    return Section("deployment", "Size and latency", tables=() if table is None else (table,))


def _search(study: StudyFolder, found: _Found) -> Section:
    searched = select(study.records.trials, stages=[SEARCH], statuses=None)
    if study.compares_methods or not searched.num_rows:
        return Section("search", "The search")
    pictures = [history_picture(compute_history(study.records.trials))]
    parallel = compute_parallel(study.records)
    pictures += [] if parallel is None else [parallel_picture(parallel)]
    texts = [] if found.not_judged is None else [found.not_judged]
    shown = []
    if found.importances:
        pictures.append(importance_picture(found.importances))
        shown.append(tables.importance_table(found.importances))
    if study.searched and not found.ranges and found.importances:
        texts.append("No parameter has its best values at a bound of the searched range.")
    return Section("search", "The search", tuple(texts), tuple(shown), tuple(pictures))


def _failures(study: StudyFolder) -> Section:
    trials = study.records.trials
    ended = [table for table in (tables.failures_table(trials), tables.pruned_table(trials)) if table is not None]
    if not ended:
        return Section("ended", "Failed and stopped trials")
    note = survivor_note(trials)
    return Section("ended", "Failed and stopped trials", (note,) if note else (), tuple(ended))


def _plan(study: StudyFolder) -> Section:
    counts = tables.trial_counts(study.records.trials)
    facts = [(name.replace("_", " "), shown) for name, value in study.plan.items() if (shown := _in_words(value))]
    return Section("plan", "The plan", tables=(counts,) if counts is not None else (), facts=tuple(facts))


def _in_words(value: Any) -> str:
    """Format a plan value; empty for an open value."""
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, dict) and value.get("kind") in ("float", "int", "categorical"):
        return _bounds_in_words(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown}" for name, each in value.items() if (shown := _in_words(each)))
    if isinstance(value, list):
        named = [each["name"] if isinstance(each, dict) and "name" in each else _in_words(each) for each in value]
        return ", ".join(str(each) for each in named if each != "")
    return str(value)


def _bounds_in_words(bounds: Mapping[str, Any]) -> str:
    """Format bounds from the user, such as `temperature 1 to 32 in logarithms`."""
    if bounds["choices"]:
        return f"{bounds['field']} ({', '.join(map(str, bounds['choices']))})"
    scale = " in logarithms" if bounds["log"] else "" if bounds["step"] is None else f" in steps of {bounds['step']:g}"
    return f"{bounds['field']} {bounds['low']:g} to {bounds['high']:g}{scale}"


def _without_secrets(command: str) -> str:
    return " (passwords in URIs are removed: enter them again)" if REDACTED in command else ""


def _again(study: StudyFolder) -> Section:
    summary = study.summary
    command = summary.get("command")
    commands = [(f"The same study under a new name{_without_secrets(str(command))}", str(command))] if command else []
    if study.is_complete is False and study.has_journal:
        go_on = shlex.join(["python", "-m", "study.launch", "--resume", study.name, *study.where])
        commands.append(("Resume this study", go_on))
    elif study.is_complete and not study.chosen and study.has_journal:
        confirm = shlex.join(["python", "-m", "study.confirm", study.name, *study.where])
        commands.append(("Confirm this study on fresh seeds and the test split", confirm))
    if select(study.records.trials, stages=[SEARCH]).num_rows and study.searched:
        thorough = shlex.join(["python", "-m", "analysis.report", study.name, *study.where, "--thorough"])
        commands.append(("This page with additional importances by fANOVA (a minute or more)", thorough))
    if summary.get("ui"):
        commands.append(("Show the runs in MLflow", str(summary["ui"])))
    facts = [(name.removeprefix("version."), str(value)) for name, value in summary.get("versions", {}).items()]
    if summary.get("seconds"):
        facts.append(("wall time of the last run", format_duration(float(summary["seconds"]))))
    if gpus := summary.get("gpus"):
        facts.append(("GPUs per trial", f"{gpus['per_trial']:g}" + (f": {gpus['words']}" if gpus["words"] else "")))
    if summary.get("plan_digest"):
        facts.append(("plan digest", str(summary["plan_digest"])))
    return Section("again", "Versions and commands", facts=tuple(facts), commands=tuple(commands))
