"""The command line: `python -m study.launch --space adapter_width`.

Nothing picklable lives here: run as a program, this module is `__main__`, and a worker could not import it. Nothing
heavy is imported before the arguments are known to be good, so that help and mistakes answer at once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import typer

from search_spaces import COMPARISONS, SPACES, space_names
from study import options
from study.errors import ClusterLostError, ExitCode, StudyError, UsageError, leave_at_once
from study.request import keep_confirmation, new_plan, resume_command, resumed_plan, sync_command
from trainables.data.image_progress import hide_progress
from trainables.standard_streams import prepare_standard_streams, show_result
from trainables.uris import redact_tracebacks

if TYPE_CHECKING:
    from study.plan import StudyPlan

_EXAMPLES: Final = (
    ("the default study, about a minute on two cores", "python -m study.launch --space adapter_width"),
    ("what a study would do, without doing it", "python -m study.launch --space joint --trials 60 --dry-run"),
    ("go on with a study that was stopped or killed", "python -m study.launch --resume NAME"),
)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog=options.epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def launch(
    context: typer.Context,
    space: options.Space = None,
    list_spaces: options.ListSpaces = False,
    method: options.Method = "pesf_kd",
    methods: options.Methods = None,
    adapter: options.Adapter = False,
    dataset: options.Dataset = "digits",
    data_root: options.DataRoot = None,
    download: options.Download = False,
    student: options.Student = "cnn_3_4",
    teacher: options.Teacher = "cnn_32_64",
    student_layers: options.StudentLayers = options.StudentLayersName.SKIP,
    temperature: options.Temperature = None,
    hold: options.Hold = None,
    trials: options.Trials = 24,
    promising: options.Promising = 3,
    replicates: options.Replicates = 3,
    confirm: options.Confirm = None,
    seeds: options.Seeds = None,
    epochs: options.Epochs = 15,
    time_budget: options.TimeBudget = None,
    trial_timeout: options.TrialTimeout = None,
    smoke: options.Smoke = False,
    sampler: options.Sampler = options.SamplerName.TPE,
    scheduler: options.Scheduler = options.SchedulerName.NONE,
    seed: options.Seed = 0,
    max_concurrent: options.MaxConcurrent = None,
    cpus_per_trial: options.CpusPerTrial = 1.0,
    pack: options.Pack = "1",
    gpus_per_trial: options.GpusPerTrial = 0.0,
    workers_per_trial: options.WorkersPerTrial = 1,
    address: options.Address = "local",
    ship_code: options.ShipCode = False,
    output_dir: options.OutputDir = Path("study_results"),
    storage_path: options.StoragePath = None,
    name: options.Name = None,
    tracking_uri: options.TrackingUri = None,
    optuna_storage: options.OptunaStorage = None,
    precision: options.Precision = "auto",
    teacher_checkpoint: options.TeacherCheckpoint = None,
    teacher_weights: options.TeacherWeights = None,
    teacher_normalisation: options.TeacherNormalisation = None,
    teacher_recipe: options.TeacherRecipe = options.TeacherRecipeName.SHORT,
    teacher_epochs: options.TeacherEpochs = None,
    teacher_outputs: options.TeacherOutputs = options.OutputsModeName.AUTO,
    teacher_outputs_dtype: options.TeacherOutputsDtype = options.OutputsDtypeName.FLOAT16,
    teacher_outputs_limit: options.TeacherOutputsLimit = "20GiB",
    teacher_outputs_path: options.TeacherOutputsPath = None,
    resume: options.Resume = None,
    retry_failed: options.RetryFailed = False,
    set_aside_records: options.SetAsideRecords = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    version: options.Version = False,
) -> None:
    """Study which teacher adapter, temperature and loss weights make the best student.

    A study proposes configs, trains each once, repeats the most promising ones and two controls (cross-entropy,
    plain KD) on fresh seeds, and ends with a table of means and intervals. Exit codes: 0 done, 1 error, 2 wrong
    usage, 3 done but trials failed or MLflow has not all of it, 4 not done within --time-budget, 130 interrupted.
    --space method and method_tuned compare distillation methods instead: every one of them, as published or each
    tuned equally long, on equal seeds.
    What is found so is chosen by its own score; --confirm runs the best again on fresh seeds and on the test split.
    """
    if quiet:
        hide_progress()
    values = dict(context.params)
    given = options.given_options(context)
    if version:
        from study import __version__

        typer.echo(f"pesfkd {__version__}")
    elif list_spaces:
        _show_spaces(as_json=as_json)
    elif retry_failed and resume is None:
        raise UsageError("--retry-failed is for a study that exists: give --resume NAME too")
    elif set_aside_records and resume is None:
        raise UsageError("--set-aside-records is for a study that exists: give --resume NAME too")
    elif resume is None and space is None:
        raise UsageError(f"give --space (one of {', '.join(space_names())}) or --resume NAME")
    else:
        plan = new_plan(values, given) if resume is None else resumed_plan(resume, output_dir, given)
        if dry_run:
            ended = None if resume is None else _ended_trials(plan, sets_aside=set_aside_records)
            _show_plan(plan, ended, as_json=as_json)
        else:
            if resume is None and methods is None:
                _show_left_out(plan)
            run_plan(plan, values, resumed=resume is not None)


def main() -> None:
    """Run the command line and leave with its exit code."""
    leave_with_exit_code(app)


def leave_with_exit_code(command: Callable[[], object]) -> None:
    """Run a command, its mistakes and failures told in a line."""
    prepare_standard_streams()
    redact_tracebacks()
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    try:
        command()
    except ClusterLostError as error:
        leave_at_once(str(error))
    except (UsageError, StudyError) as error:
        if verbose:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.ERROR)
    except OSError as error:  # a disk that is full, a folder that went away
        if verbose:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.ERROR)


def run_plan(plan: "StudyPlan", values: dict[str, Any], *, resumed: bool, command: str = "study.launch") -> None:
    """Run what is left of a study, and show and keep its result.

    Args:
        plan: the study.
        values: of the options `quiet`, `verbose` and `as_json`.
        resumed: whether the study is there already.
        command: the module that was run, for the record.

    Raises:
        typer.Exit: always, with the exit code.
    """
    _make_folder(plan.output_dir)
    with _told_how_to_go_on(plan), stdout_for_results_only(verbose=values["verbose"]) as stdout:
        # Ray, Optuna, MLflow and pyarrow are imported from here on.
        from study.data_preview import data_warnings
        from study.outcome import conclude, outcome_in_words
        from study.places import begin_study
        from study.progress import StudyProgress
        from study.runner import check_services, run_study
        from trainables.versions import running_versions

        check_services(plan)
        if resumed:
            keep_confirmation(plan)
        else:
            begin_study(plan, resume_command(plan))
        progress = StudyProgress(plan, quiet=values["quiet"])
        for warning in data_warnings(plan):
            progress.warn(warning)
        typed = command_line(command)
        run, tracker = run_study(
            plan,
            progress=progress,
            command=typed,
            versions=running_versions(),
            retry_failed=values.get("retry_failed", False),
            sets_aside=values.get("set_aside_records", False),
        )
        outcome = conclude(plan, run, tracker, progress)
        as_json = values["as_json"]
        text = json.dumps(outcome.summary, indent=2) + "\n" if as_json else outcome_in_words(outcome, stdout)
        show_result(text, stdout, elsewhere=f"it is in {plan.directory / 'summary.json'}")
    if run.interrupted:
        typer.echo(f"interrupted; to go on:\n  {resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED)
    if outcome.tracking_error:
        typer.echo(undelivered(plan, outcome.tracking_error), err=True)
    if run.out_of_time:
        typer.echo(f"out of time (--time-budget {plan.time_budget:g}); to go on:\n  {resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.OUT_OF_TIME)
    if outcome.tracking_error:
        raise typer.Exit(ExitCode.UNDELIVERED)
    raise typer.Exit(ExitCode.FAILED_TRIALS if outcome.summary["trials"]["failed"] else ExitCode.OK)


@contextmanager
def _told_how_to_go_on(plan: "StudyPlan") -> Iterator[None]:
    """What is needed after Ctrl-C that ends everything at once."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted at once; to go on:\n  {resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def undelivered(plan: "StudyPlan", error: Exception) -> str:
    """What to tell, and to do, where MLflow has not all of a study."""
    from study.delivery import first_line

    return (
        f"MLflow does not have everything ({first_line(error)}); the study's own records do. To deliver it "
        f"later:\n  {sync_command(plan)}"
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"--output-dir: cannot write in {folder} ({error.strerror}); name a folder that you may write"
        ) from None


@contextmanager
def stdout_for_results_only(*, verbose: bool) -> Iterator[TextIO]:
    """The real stdout; what else is written to descriptor 1 meanwhile (by Ray) goes to stderr or nowhere."""
    sys.stdout.flush()
    real = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(2 if verbose else nowhere.fileno(), 1)
    try:
        with os.fdopen(os.dup(real), "w", encoding="utf-8", errors="backslashreplace") as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def command_line(module: str) -> str:
    """What the user typed, without the secrets of a URI."""
    from trainables.uris import redact_command

    return redact_command(["python", "-m", module, *sys.argv[1:]])


def _show_spaces(*, as_json: bool) -> None:
    if as_json:
        spaces = {
            name: {
                "question": space.question,
                "parameters": {p.name: {"role": p.role, "values": p.domain, "why": p.why} for p in space.parameters},
            }
            for name, space in SPACES.items()
        } | {
            name: {
                "question": comparison.question,
                "parameters": {
                    p.name: {"role": "nuisance", "values": p.domain, "why": p.why} for p in comparison.tuned
                },
            }
            for name, comparison in COMPARISONS.items()
        }
        typer.echo(json.dumps(spaces, indent=2))
        return
    for name, space in SPACES.items():
        typer.echo(f"{name}\n  {space.question}")
        for parameter in space.parameters:
            if parameter.role != "fixed":
                typer.echo(f"    {parameter.name:24} {parameter.domain:28} {parameter.role}: {parameter.why}")
        fixed = [f"{p.name}={p.value}" for p in space.parameters if p.role == "fixed"]
        if fixed:
            typer.echo(f"    fixed: {', '.join(fixed)}")
    for name, comparison in COMPARISONS.items():
        typer.echo(f"{name}\n  {comparison.question}")
        typer.echo(f"    {'method':24} {'every one, or --methods':28} scientific: each as published, on equal seeds")
        for tuned in comparison.tuned:
            typer.echo(f"    {tuned.name:24} {tuned.domain:28} nuisance, where read: {tuned.why}")


def _show_left_out(plan: "StudyPlan") -> None:
    from study.comparison import left_out_lines

    for line in left_out_lines(plan):
        typer.echo(f"left out {line}", err=True)


def _ended_trials(plan: "StudyPlan", *, sets_aside: bool) -> int:
    from study.derivable import check_records
    from study.ledger import StudyLedger

    ledger = StudyLedger(plan, read_only=True, sets_aside=sets_aside)
    if not sets_aside:
        check_records(ledger)
    return ledger.ended


def _show_plan(plan: "StudyPlan", ended: int | None, *, as_json: bool) -> None:
    from study.comparison import left_out
    from study.data_preview import class_names, data_warnings
    from study.image_preview import images_summary
    from study.preview import count_plan_sources, describe_plan, first_configs
    from study.samplers import sampler_notes

    configs = first_configs(plan)
    images = images_summary(plan)
    if as_json:
        summary = {
            "plan": plan.without_secrets().model_dump(mode="json"),
            "first_configs": configs,
            **({} if images is None else {"images": images}),
            "classes": class_names(plan),
            "warnings": data_warnings(plan),
            "trials": plan.total_trials + plan.confirm_trials,
            **({} if ended is None else {"ended": ended}),
            "epochs": plan.epochs_total(),
            **count_plan_sources(plan),
            "notes": sampler_notes(plan),
            **({"left_out": left_out(plan)} if plan.compared else {}),
            "teacher_outputs": {
                **plan.teacher_storage._asdict(),
                "passes_saved": plan.teacher_storage.passes_saved,
            },
        }
        typer.echo(json.dumps(summary, indent=2))
    else:
        typer.echo(describe_plan(plan, configs, ended))


if __name__ == "__main__":
    main()
