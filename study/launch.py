"""Command line for a study: `python -m study.launch --space adapter_width`.

This module runs as `__main__`, which workers cannot import, so it must not define anything to be pickled. Slow imports
happen only after checking the arguments, so --help and errors appear at once.
"""

import json
from typing import TYPE_CHECKING, Any, Final

import typer

from search_spaces import COMPARISONS, OWN, SPACES, space_names
from study.cli.app import epilog_of, leave_with_exit_code, options_with_config
from study.cli.options import with_options
from study.cli.request import new_plan, resumed_plan
from study.plan.options import OPTIONS
from study.running.session import run_plan
from trainables.data.image_progress import hide_progress
from trainables.process.errors import UsageError
from trainables.process.leaving import run_and_leave

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan

_EXAMPLES: Final = (
    ("run the default study, about a minute on two cores", "python -m study.launch --space adapter_width"),
    ("show what a study would do, without running it", "python -m study.launch --space joint --trials 60 --dry-run"),
    ("resume a study that was stopped or killed", "python -m study.launch --resume NAME"),
)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog=epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(OPTIONS)
def launch(context: typer.Context, **values: Any) -> None:
    """Find the teacher adapter, temperature and loss weights that produce the best student.

    A study proposes configs, trains each once, repeats the most promising ones and two controls (cross-entropy,
    plain KD) on fresh seeds, and prints a table of means and intervals. Exit codes: 0 done, 1 error, 2 wrong usage,
    3 done but trials failed or MLflow did not receive everything, 4 not done within --time-budget, 130 interrupted.
    --space method and method_tuned compare distillation methods instead, on the same seeds: all methods with published
    settings, or all tuned with the same number of trials. --space adapter_why compares PESF-KD with its controls.
    The best configs of a search are selected by their own scores, so these scores are biased upwards. --confirm runs
    the best configs again on fresh seeds and evaluates them on the test split.
    """
    start(*options_with_config(context, values))


def start(values: dict[str, Any], given: dict[str, Any]) -> None:
    """Start or resume a study, or handle a request that needs no study.

    Args:
        values: values of all options.
        given: options given by the user.
    """
    if values["quiet"]:
        hide_progress()
    resume, as_json = values["resume"], values["as_json"]
    if values["version"]:
        from study import __version__

        typer.echo(f"pesfkd {__version__}")
    elif values["list_spaces"]:
        _show_spaces(as_json=as_json)
    elif values["retry_failed"] and resume is None:
        raise UsageError("--retry-failed needs an existing study: give --resume NAME too")
    elif values["set_aside_records"] and resume is None:
        raise UsageError("--set-aside-records needs an existing study: give --resume NAME too")
    else:
        if resume is None:
            check_question(values)
        plan = new_plan(values, given) if resume is None else resumed_plan(resume, values["output_dir"], given)
        if values["print_config"]:
            _print_config(plan, given)
        elif values["dry_run"]:
            ended = None if resume is None else ended_trials(plan, sets_aside=values["set_aside_records"])
            _show_plan(plan, ended, as_json=as_json)
        else:
            if resume is None and values["methods"] is None:
                _show_left_out(plan)
            if resume is None and not values["quiet"]:
                _show_repeated_seeds(plan)
            run_plan(plan, values, resumed=resume is not None)


def check_question(values: dict[str, Any]) -> None:
    """Check that a new study has a question.

    Raises:
        UsageError: no space is given.
    """
    if values["space"] is None:
        raise UsageError(f"give --space (one of {', '.join(space_names())}) or --resume NAME")


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


def spaces_as_dict() -> dict[str, Any]:
    """Return every space with question and parameters, as JSON values."""
    return {
        name: {
            "question": space.question,
            "parameters": {p.name: {"role": p.role, "values": p.domain, "why": p.why} for p in space.parameters},
        }
        for name, space in {**SPACES, OWN.name: OWN}.items()
    } | {
        name: {
            "question": comparison.question,
            "parameters": {p.name: {"role": "nuisance", "values": p.domain, "why": p.why} for p in comparison.tuned},
        }
        for name, comparison in COMPARISONS.items()
    }


def _show_spaces(*, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(spaces_as_dict(), indent=2))
        return
    for name, space in {**SPACES, OWN.name: OWN}.items():
        typer.echo(f"{name}\n  {space.question}")
        for parameter in space.parameters:
            if parameter.role != "fixed":
                typer.echo(f"    {parameter.name:24} {parameter.domain:28} {parameter.role}: {parameter.why}")
        fixed = [f"{p.name}={p.value}" for p in space.parameters if p.role == "fixed"]
        if fixed:
            typer.echo(f"    fixed: {', '.join(fixed)}")
    for name, comparison in COMPARISONS.items():
        typer.echo(f"{name}\n  {comparison.question}")
        methods = ", ".join(comparison.arms) or "all, or --methods"
        settings = "settings of the space" if comparison.arms else "published settings"
        typer.echo(f"    {'method':24} {methods:28} scientific: {settings}, same seeds for all")
        for tuned in comparison.tuned:
            typer.echo(f"    {tuned.name:24} {tuned.domain:28} nuisance, if the method uses it: {tuned.why}")


def _print_config(plan: "StudyPlan", given: dict[str, Any]) -> None:
    from study.cli.config_text import config_text

    typer.echo(config_text(plan, given), nl=False)


def _show_left_out(plan: "StudyPlan") -> None:
    from study.plan.notes import left_out_lines

    for line in left_out_lines(plan):
        typer.echo(f"left out {line}", err=True)


def _show_repeated_seeds(plan: "StudyPlan") -> None:
    from study.plan.siblings import repeated_seed_note

    note = repeated_seed_note(plan)
    if note is not None:
        typer.echo(note, err=True)


def ended_trials(plan: "StudyPlan", *, sets_aside: bool) -> int:
    """Return an existing study's number of ended trials.

    Args:
        plan: the study.
        sets_aside: whether records missing from the journal will be moved away, so they are no error.

    Raises:
        UsageError: the journal has lost trials.
    """
    from study.ledger.derivable import check_records
    from study.ledger.ledger import StudyLedger

    ledger = StudyLedger(plan, read_only=True, sets_aside=sets_aside)
    if not sets_aside:
        check_records(ledger)
    return ledger.ended


def _show_plan(plan: "StudyPlan", ended: int | None, *, as_json: bool) -> None:
    from study.cli.preview import describe_plan
    from study.search.preview import first_configs

    if as_json:
        typer.echo(json.dumps(plan_summary(plan, ended), indent=2))
    else:
        typer.echo(describe_plan(plan, first_configs(plan), ended))


def plan_summary(plan: "StudyPlan", ended: int | None) -> dict[str, Any]:
    """Return all facts known before a study runs, as JSON values.

    Args:
        plan: the study.
        ended: number of ended trials; None for a new study.
    """
    from study.cli.data_preview import class_names, data_warnings
    from study.cli.image_preview import images_summary
    from study.cli.preview import count_plan_sources, gpu_notes, planned_resolution
    from study.plan.beliefs import belief_notes
    from study.plan.notes import confirmation_notes, left_out, sampler_notes
    from study.plan.size import confirm_trials, epochs_total
    from study.plan.teacher_storage import reckon_teacher_storage
    from study.plan.warm_start import warm_start_notes
    from study.search.preview import first_configs

    images, storage = images_summary(plan), reckon_teacher_storage(plan)
    return {
        "plan": plan.without_secrets().model_dump(mode="json"),
        "first_configs": first_configs(plan),
        **({} if images is None else {"images": images}),
        "classes": class_names(plan),
        "warnings": data_warnings(plan),
        "trials": plan.total_trials + confirm_trials(plan),
        **({} if ended is None else {"ended": ended}),
        "epochs": epochs_total(plan),
        "teacher_seeds": plan.teacher_seeds,
        "splits": 1 if plan.confirmation is None else plan.confirmation.splits,
        "detectable": planned_resolution(plan),
        **count_plan_sources(plan),
        "notes": [
            *gpu_notes(plan),
            *warm_start_notes(plan.warm_start),
            *belief_notes(plan),
            *sampler_notes(plan),
            *confirmation_notes(plan),
        ],
        **({"left_out": left_out(plan)} if plan.compared else {}),
        "teacher_outputs": {**storage._asdict(), "passes_saved": storage.passes_saved},
    }


if __name__ == "__main__":
    run_and_leave(main)
