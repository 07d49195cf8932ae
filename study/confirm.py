"""Command line for a confirmation: `python -m study.confirm NAME`.

As in `study.launch`, this module runs as `__main__`, so it must not define anything to be pickled.
"""

import json
import math
from typing import TYPE_CHECKING, Any, Final

import typer

from study.cli.app import epilog_of, leave_with_exit_code, options_with_config
from study.cli.options import FinishedStudyName, with_options
from study.cli.request import resumed_plan
from study.plan.options import names_of
from study.running.session import run_plan
from trainables.data.image_progress import hide_progress
from trainables.display.numbers import format_number

if TYPE_CHECKING:
    from study.ledger.confirmation import Confirmation
    from study.ledger.ledger import StudyLedger
    from study.plan.plan import StudyPlan

_EXAMPLES: Final = (
    ("show what would be confirmed, and the cost", "python -m study.confirm NAME --dry-run"),
    ("confirm the three best configs and the controls on ten seeds each", "python -m study.confirm NAME"),
    ("run a quick confirmation", "python -m study.confirm NAME --confirm 1 --seeds 5"),
)
OPTIONS_OF_CONFIRM: Final = (
    "confirm", "seeds", "detect", "most_seeds", "confirm_epochs", "teachers", "splits", *names_of("execution"),
    "config", "set_aside_records", "dry_run", "as_json", "quiet", "verbose",
)  # fmt: skip
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog=epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(OPTIONS_OF_CONFIRM)
def confirm_study(context: typer.Context, name: FinishedStudyName, **values: Any) -> None:
    """Train the best configs of a finished study and the controls on fresh seeds, and compare them on the test split.

    The configs are chosen by a lower confidence bound and recorded in the study's journal. The test split is read once,
    for these configs only, and differences are paired by seed. An interrupted confirmation is resumed, and a completed
    one is shown again. A different choice is rejected. Exit codes: as for study.launch.
    """
    values, given = options_with_config(context, values)
    if values["quiet"]:
        hide_progress()
    plan = resumed_plan(name, values["output_dir"], given, confirms=True)
    if values["dry_run"]:
        _show(plan, as_json=values["as_json"])
    else:
        run_plan(plan, values, resumed=True, command="study.confirm")


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


def preview_confirmation(plan: "StudyPlan") -> dict[str, Any]:
    """Return the trials and settings of a requested confirmation, as JSON values. Nothing is written.

    Args:
        plan: study with the requested confirmation.
    """
    from study.ledger.ledger import StudyLedger

    return _preview(plan, StudyLedger(plan, read_only=True))[1]


def _preview(plan: "StudyPlan", ledger: "StudyLedger") -> "tuple[Confirmation, dict[str, Any]]":
    from study.plan.control_tuning import tuning_trials
    from study.stages.choosing import choose

    confirmation = ledger.confirmation or choose(ledger)
    assert confirmation is not None  # `resumed_plan` has rejected all other cases
    tuning = 0 if ledger.confirmation else sum(1 for _ in tuning_trials(plan)) - len(ledger.in_stage("tune"))
    return confirmation, {
        "study": plan.name,
        "confirmation": confirmation.model_dump(mode="json"),
        "trials": confirmation.size,
        "tuning_trials": tuning,
        "begun": len(ledger.in_stage("confirm")),
        "epochs": confirmation.size * plan.confirm_epochs + tuning * plan.base.epochs,
        "teacher_seeds": plan.teacher_seeds,
        "splits": confirmation.request.splits,
        "detectable": _detectable(plan, confirmation.request.seeds),
    }


def _show(plan: "StudyPlan", *, as_json: bool) -> None:
    from study.cli.preview import factor_texts
    from study.ledger.ledger import StudyLedger
    from study.plan.siblings import readings_note
    from study.plan.teacher_choice import describe_teacher

    ledger = StudyLedger(plan, read_only=True)
    confirmation, shown = _preview(plan, ledger)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    begun, tuning, epochs, detectable = (shown[name] for name in ("begun", "tuning_trials", "epochs", "detectable"))
    trials = confirmation.size + tuning
    request, last = confirmation.request, confirmation.first_replicate + confirmation.request.seeds - 1
    readings = readings_note(plan)
    lines = [
        f"study      {plan.name}  (nothing has been written)",
        f"confirms   {_configs(confirmation)} on {request.seeds_in_words} fresh seeds each (replicates "
        f"{confirmation.first_replicate} to {last}); the test split is read once, for these configs",
        *(f"divides    {text}" for text in factor_texts(request)),
        *([] if detectable is None else [f"detects    {_in_words(detectable, request.seeds)}{_of_spread(plan)}"]),
        f"cost       {'' if request.detect is None else 'at most '}{trials} trials, {begun} of them already started; "
        f"{epochs} student epochs{_schedules(plan)}",
        *([f"teacher    {describe_teacher(plan)}"] if request.cells > 1 else []),
        *([f"note       {readings}"] if readings is not None else []),
        *(
            [f"tunes      first the temperature of kd, with {tuning} of these trials on the validation split"]
            if tuning
            else []
        ),
        "chosen" if ledger.confirmation is None else "chosen before (final)",
    ]
    for choice in confirmation.choices:
        role = f"choice {choice.rank}" if choice.rank is not None else "control" if choice.control else "winner"
        score = "" if choice.search_score is None else f", score {format_number(choice.search_score)}"
        bound = ""
        if choice.bound is not None:
            low = (
                "no lower bound" if choice.bound["low"] is None else f"lower bound {format_number(choice.bound['low'])}"
            )
            bound = f", estimate {format_number(choice.bound['value'])}, {low} ({choice.bound['method']})"
        lines.append(f"           {role}: {choice.label}{score}{bound}")
    typer.echo("\n".join(lines))


def _schedules(plan: "StudyPlan") -> str:
    """Return a clause on the numbers of epochs, if the confirmation and the choice use different ones."""
    if plan.confirm_epochs == plan.base.epochs:
        return ""
    return (
        f" ({plan.confirm_epochs} per confirmed trial; the scores and bounds below are those of {plan.base.epochs} "
        "epochs)"
    )


def _configs(confirmation: "Confirmation") -> str:
    """Describe the number of configs, and of methods if each has configs from several searches."""
    configs, methods = len(confirmation.choices), {choice.method for choice in confirmation.choices}
    searches = max(sum(len(choice.searches) for choice in confirmation.choices if choice.method == m) for m in methods)
    of = f", of {len(methods)} methods with {searches} searches each" if searches > 1 else ""
    return f"{configs} configs{of}"


def _detectable(plan: "StudyPlan", seeds: int) -> dict[str, float] | None:
    """Return the least detectable differences at a number of seeds, from the study's paired spread in repetitions."""
    from analysis.questions.power import find_resolution
    from analysis.reading.trials import compare_methods, open_study, summarise_configs

    try:
        trials = open_study(plan.directory).trials
    except FileNotFoundError:  # the study's next run writes the records again
        return None
    summarise = compare_methods if plan.compared else summarise_configs
    found = find_resolution(trials, summarise(trials, seed=plan.seed), None)
    if found is None or not found.spreads:
        return None
    alone, after = (found.detectable(corrected=corrected, seeds=seeds) for corrected in (False, True))
    return {"spread": found.spread, **({"difference": alone} if math.isfinite(alone) else {}),
            **({"difference_after_holm": after} if math.isfinite(after) else {})}  # fmt: skip


def _of_spread(plan: "StudyPlan") -> str:
    longer = plan.confirm_epochs != plan.base.epochs
    return f" of {plan.base.epochs} epochs; that of {plan.confirm_epochs} is unknown" if longer else ""


def _in_words(detectable: dict[str, float], seeds: int) -> str:
    alone, after = detectable.get("difference"), detectable.get("difference_after_holm")
    if alone is None:
        return f"no difference: {seeds} seeds cannot reach p < 0.05; only more seeds can settle the question"
    corrected = "none" if after is None else f"{after:.4f}"
    return (
        f"at n = {seeds} seeds, with power 0.8, differences of {alone:.4f} ({corrected} after Holm's correction for "
        f"the study's comparisons), by the paired spread of its repetitions, {detectable['spread']:.4f}"
    )


if __name__ == "__main__":
    main()
