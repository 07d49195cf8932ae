"""The command line: `python -m study.launch --space adapter_width`.

Nothing picklable lives here: run as a program, this module is `__main__`, and a worker could not import it. Nothing
heavy is imported before the arguments are known to be good, so that help and mistakes answer at once.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from search_spaces import SPACES
from study.errors import ExitCode, StudyError, UsageError

if TYPE_CHECKING:
    from study.plan import StudyPlan

_EXAMPLES: Final = (
    ("the default study, about a minute on two cores", "python -m study.launch --space adapter_width"),
    ("what a study would do, without doing it", "python -m study.launch --space joint --trials 60 --dry-run"),
    ("go on with a study that was stopped or killed", "python -m study.launch --resume NAME"),
)
# Each option of a plan: its flag's parameter, and where its value goes.
_CONFIG_FLAGS: Final = ("method", "dataset", "student", "teacher", "epochs")
_PLAN_FLAGS: Final = (
    "space",
    "trials",
    "promising",
    "replicates",
    "sampler",
    "scheduler",
    "seed",
    "max_concurrent",
    "cpus_per_trial",
    "gpus_per_trial",
    "time_budget",
    "address",
    "data_root",
    "tracking_uri",
    "teacher_outputs",
    "teacher_outputs_dtype",
    "teacher_outputs_limit",
    "teacher_outputs_path",
)
_SMOKE: Final = {"trials": 2, "promising": 1, "replicates": 1}


class SamplerName(StrEnum):
    """Optuna's samplers."""

    TPE = "tpe"
    RANDOM = "random"
    QMC = "qmc"
    GP = "gp"
    CMAES = "cmaes"
    NSGA2 = "nsga2"


class SchedulerName(StrEnum):
    """What stops unpromising trials early."""

    NONE = "none"
    ASHA = "asha"


class OutputsModeName(StrEnum):
    """Where trials get the frozen teacher's outputs from."""

    AUTO = "auto"
    STORED = "stored"
    LIVE = "live"


class OutputsDtypeName(StrEnum):
    """In which type they are stored."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="Examples:\n\n" + "\n\n".join(f"[bold]{command}[/bold]  ({what})" for what, command in _EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def launch(
    context: typer.Context,
    space: Annotated[
        str | None, typer.Option(help="What to search; see --list-spaces.", rich_help_panel="What")
    ] = None,
    list_spaces: Annotated[
        bool, typer.Option("--list-spaces", help="Show the search spaces and leave.", rich_help_panel="What")
    ] = False,
    method: Annotated[str, typer.Option(help="Distillation method.", rich_help_panel="What")] = "pesf_kd",
    dataset: Annotated[str, typer.Option(help="Dataset.", rich_help_panel="What")] = "digits",
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="PESFKD_DATA_ROOT",
            help="Folder with the dataset's files; digits needs none.",
            rich_help_panel="What",
        ),
    ] = None,
    student: Annotated[str, typer.Option(help="Student architecture.", rich_help_panel="What")] = "cnn_3_4",
    teacher: Annotated[str, typer.Option(help="Teacher architecture.", rich_help_panel="What")] = "cnn_32_64",
    temperature: Annotated[
        float | None, typer.Option(help="Hold the temperature at this value.", rich_help_panel="What")
    ] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Hold a field of the trial's config; repeatable.",
            rich_help_panel="What",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Configs that the search proposes.", rich_help_panel="How much")] = 24,
    promising: Annotated[
        int,
        typer.Option(help="Best configs of the search to repeat on fresh seeds.", rich_help_panel="How much"),
    ] = 3,
    replicates: Annotated[
        int,
        typer.Option(help="Fresh seeds for each promising config and each control.", rich_help_panel="How much"),
    ] = 3,
    epochs: Annotated[int, typer.Option(help="Epochs per trial.", rich_help_panel="How much")] = 15,
    time_budget: Annotated[
        float | None,
        typer.Option(help="Stop after so many seconds; --resume goes on.", rich_help_panel="How much"),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Two configs, one seed, one epoch: does it run?", rich_help_panel="How much"),
    ] = False,
    sampler: Annotated[SamplerName, typer.Option(help="Optuna sampler.", rich_help_panel="Search")] = SamplerName.TPE,
    scheduler: Annotated[
        SchedulerName,
        typer.Option(
            help="asha stops unpromising configs early. With none, every trial is trained to its end, so that the "
            "gap is compared with accuracies that nothing selected.",
            rich_help_panel="Search",
        ),
    ] = SchedulerName.NONE,
    seed: Annotated[int, typer.Option(help="Study seed.", rich_help_panel="Search")] = 0,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Trials at once; as many as fit if not given.", rich_help_panel="Where")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="Cores a trial.", rich_help_panel="Where")] = 1.0,
    gpus_per_trial: Annotated[
        float, typer.Option(help="GPUs a trial; 0.25 puts four on one.", rich_help_panel="Where")
    ] = 0.0,
    address: Annotated[
        str,
        typer.Option(help="Ray: local, auto, host:port or ray://host:port.", rich_help_panel="Where"),
    ] = "local",
    output_dir: Annotated[
        Path, typer.Option(help="Folder for studies, teachers and the MLflow store.", rich_help_panel="Where")
    ] = Path("study_results"),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the study; space and time if not given.", rich_help_panel="Where"),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow store or server; a file in the output folder if not given.", rich_help_panel="Where"),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="auto, fp32 or bf16: arithmetic of the convolutions in training. auto is bf16 where this machine and "
            "the student's size gain by it; the plan says which.",
            rich_help_panel="Where",
        ),
    ] = "auto",
    teacher_outputs: Annotated[
        OutputsModeName,
        typer.Option(
            help="Compute the frozen teacher's outputs once and store them, or live in every epoch; auto stores them "
            "if they stay within the limit.",
            rich_help_panel="Teacher",
        ),
    ] = OutputsModeName.AUTO,
    teacher_outputs_dtype: Annotated[
        OutputsDtypeName, typer.Option(help="How stored outputs are rounded.", rich_help_panel="Teacher")
    ] = OutputsDtypeName.FLOAT16,
    teacher_outputs_limit: Annotated[
        str, typer.Option(help="Most bytes that a study may store, such as 4GiB.", rich_help_panel="Teacher")
    ] = "20GiB",
    teacher_outputs_path: Annotated[
        Path | None,
        typer.Option(
            help="Local folder for them; teacher_outputs in the output folder if not given.", rich_help_panel="Teacher"
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with that study.", rich_help_panel="How to run")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the plan and its cost, write nothing.", rich_help_panel="How to run"),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document on stdout, nothing else.", rich_help_panel="How to run"),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel="How to run")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say more when something fails.", rich_help_panel="How to run"),
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", rich_help_panel="How to run")] = False,
) -> None:
    """Study which teacher adapter, temperature and loss weights make the best student.

    A study proposes configs, trains each once, repeats the most promising ones and two controls (cross-entropy,
    plain KD) on fresh seeds, and ends with a table of means and intervals. Exit codes: 0 done, 1 error, 2 wrong
    usage, 3 done with failed trials, 130 interrupted.
    """
    values = dict(context.params)
    given = {
        flag: value
        for flag, value in values.items()
        if (source := context.get_parameter_source(flag)) is not None and source.name != "DEFAULT"
    }
    if version:
        from study import __version__

        typer.echo(f"pesfkd {__version__}")
    elif list_spaces:
        _show_spaces(as_json=as_json)
    elif resume is not None:
        _run(_resumed_plan(resume, output_dir, given), values, resumed=True)
    elif space is None:
        raise UsageError(f"give --space (one of {', '.join(SPACES)}) or --resume NAME")
    else:
        plan = _new_plan(values, given)
        if dry_run:
            _show_plan(plan, as_json=as_json)
        else:
            _run(plan, values, resumed=False)


def main() -> None:
    """Run the command line and leave with its exit code."""
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    try:
        app()
    except (UsageError, StudyError) as error:
        if verbose:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.ERROR)


def _plan_values(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {k: v.value if isinstance(v, StrEnum) else v for k, v in values.items()}
    hold: list[str] = plain.get("hold") or []
    overrides = _overrides(hold, plain.get("temperature"))
    return {
        **({"overrides": overrides} if overrides else {}),
        **{flag: plain[flag] for flag in _PLAN_FLAGS if flag in plain},
        "base": {flag: plain[flag] for flag in _CONFIG_FLAGS if flag in plain},
    }


def _overrides(settings: list[str], temperature: float | None) -> dict[str, Any]:
    """Fields to hold, checked one by one and in their own type."""
    from pydantic import ValidationError

    from study.plan import describe_validation
    from trainables.trial import TrialConfig

    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    for setting in settings:
        field, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"--set {setting!r}: write it as FIELD=VALUE, such as --set ce_weight=0.5")
        given[field.strip()] = value.strip()
    flags = sorted(given.keys() & {*_CONFIG_FLAGS, "precision"})
    if flags:
        raise UsageError(f"--set {flags[0]}: there is a flag for it, --{flags[0]}")
    try:
        config = TrialConfig(**given)
    except ValidationError as error:
        raise UsageError(describe_validation(error)) from None
    return {field: getattr(config, field) for field in given}


def _precision(values: dict[str, Any]) -> str:
    """`fp32` or `bf16`, settled before the plan: a trial means the same on every machine."""
    from trainables.data.registry import DATASETS
    from trainables.precision import resolve_precision

    info = DATASETS.get(values["dataset"])  # an unknown one is refused by the plan, with the nearest name
    device = "cuda" if values["gpus_per_trial"] > 0 else "cpu"
    try:
        size = info.image_size if info is not None else 0
        return resolve_precision(values["precision"], student=values["student"], image_size=size, device=device)
    except ValueError as error:
        raise UsageError(f"--precision: {error}") from None


def _new_plan(values: dict[str, Any], given: dict[str, Any]) -> "StudyPlan":
    from study.plan import check_data_root, check_space_fits_method, resolve_plan

    output_dir: Path = values["output_dir"]
    asked = _plan_values(values)
    if values["smoke"]:
        asked |= {flag: number for flag, number in _SMOKE.items() if flag not in given}
        asked["base"] |= {} if "epochs" in given else {"epochs": 1}
    asked["base"]["precision"] = _precision(values)
    asked["name"] = values["name"] or f"{values['space']}-{time.strftime('%Y%m%d-%H%M%S')}"
    asked["output_dir"] = output_dir
    asked["tracking_uri"] = values["tracking_uri"] or f"sqlite:///{(output_dir / 'mlflow.db').absolute()}"
    plan = resolve_plan(asked)
    check_space_fits_method(plan)
    check_data_root(plan)
    if plan.directory.exists():
        raise UsageError(
            f"a study named {plan.name!r} exists under {output_dir}. Go on with it: "
            f"{_resume_command(plan)}; or give another --name."
        )
    return plan


def _resumed_plan(name: str, output_dir: Path, given: dict[str, Any]) -> "StudyPlan":
    from study.plan import (
        EXECUTION_FIELDS,
        NAME_PATTERN,
        REDACTED,
        check_data_root,
        load_plan,
        refuse_differences,
        resolve_plan,
    )

    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a study")
    plan = load_plan(output_dir / name)
    asked = _plan_values(given)
    if given.get("name") not in (None, name):
        raise UsageError(f"--name {given['name']} and --resume {name} differ: a study keeps its name")
    if given.get("smoke"):
        raise UsageError("--smoke is for a new study: a resumed one keeps its plan")
    if given.get("precision") not in (None, "auto"):
        asked["base"]["precision"] = given["precision"]
    refuse_differences(plan, asked)
    # A budget is for one run: the next goes to the end unless it is given one of its own.
    execution = {"time_budget": None, **{field: asked[field] for field in EXECUTION_FIELDS & asked.keys()}}
    plan = resolve_plan({**plan.model_dump(), **execution})
    if REDACTED in plan.tracking_uri:
        raise UsageError("give --tracking-uri again: a plan does not keep the user and password of a URI")
    check_data_root(plan)
    return plan


def _run(plan: "StudyPlan", values: dict[str, Any], *, resumed: bool) -> None:
    _make_folder(plan.output_dir)
    with _stdout_for_results_only(verbose=values["verbose"]) as stdout:
        # Ray, Optuna, MLflow and pyarrow are imported from here on.
        from study.outcome import conclude, print_outcome
        from study.progress import StudyProgress
        from study.runner import check_services, run_study
        from study.versions import running_versions

        check_services(plan)
        if not resumed:
            _make_folder(plan.directory)
            plan.save()
        progress = StudyProgress(plan, quiet=values["quiet"])
        run, tracker = run_study(plan, progress=progress, command=_command_line(), versions=running_versions())
        outcome = conclude(plan, run, tracker, progress)
        if values["as_json"]:
            print(json.dumps(outcome.summary, indent=2), file=stdout)
        else:
            print_outcome(outcome, stdout)
        stdout.flush()
    if run.interrupted:
        typer.echo(f"interrupted; to go on:\n  {_resume_command(plan)}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED)
    if outcome.tracking_error:
        raise StudyError(
            f"MLflow did not take everything: {outcome.tracking_error}. Run {_resume_command(plan)} again."
        )
    raise typer.Exit(ExitCode.FAILED_TRIALS if outcome.summary["trials"]["failed"] else ExitCode.OK)


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
def _stdout_for_results_only(*, verbose: bool) -> Iterator[TextIO]:
    """The real stdout; what else is written to descriptor 1 meanwhile (by Ray) goes to stderr or nowhere."""
    sys.stdout.flush()
    real = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(2 if verbose else nowhere.fileno(), 1)
    try:
        with os.fdopen(os.dup(real), "w", encoding="utf-8") as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def _command_line() -> str:
    from study.plan import redact

    return redact(shlex.join(["python", "-m", "study.launch", *sys.argv[1:]]))


def _resume_command(plan: "StudyPlan") -> str:
    command = ["python", "-m", "study.launch", "--resume", plan.name]
    if plan.output_dir != Path("study_results"):
        command += ["--output-dir", str(plan.output_dir)]
    return shlex.join(command)


def _show_spaces(*, as_json: bool) -> None:
    if as_json:
        spaces = {
            name: {
                "question": space.question,
                "parameters": {p.name: {"role": p.role, "values": p.domain, "why": p.why} for p in space.parameters},
            }
            for name, space in SPACES.items()
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


def _show_plan(plan: "StudyPlan", *, as_json: bool) -> None:
    from study.preview import describe_plan, first_configs

    configs = first_configs(plan)
    if as_json:
        summary = {
            "plan": plan.model_dump(mode="json"),
            "first_configs": configs,
            "trials": plan.total_trials,
            "epochs": plan.epochs_total(),
            "teacher_outputs": {
                **plan.teacher_storage._asdict(),
                "passes_saved": plan.teacher_storage.passes_saved,
            },
        }
        typer.echo(json.dumps(summary, indent=2))
    else:
        typer.echo(describe_plan(plan, configs))


if __name__ == "__main__":
    main()
