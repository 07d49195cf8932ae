"""Command line for training a teacher: `python -m trainables.teacher --dataset digits --model cnn_32_64`.

Heavy modules are imported only after the arguments have been checked, so help and errors appear at once. MLflow is
imported only for delivering data.
"""

import json
import signal
import sys
import threading
from enum import IntEnum, StrEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from trainables.data.image_progress import hide_progress
from trainables.data.own.fetch import fetch_for_command
from trainables.process.command_errors import run_app
from trainables.process.errors import UsageError
from trainables.process.standard_streams import prepare_standard_streams, show_result
from trainables.storage.sqlite_uri import SQLitePathError, sqlite_uri
from trainables.storage.uris import redact, redact_tracebacks
from trainables.teacher.card import Proportion, accuracies, with_kept_code

if TYPE_CHECKING:
    from trainables.teacher.job import Result
    from trainables.teacher.progress import TeacherProgress
    from trainables.teacher.request import TeacherRequest
    from trainables.teacher.tracking import TeacherTracker


class ExitCode(IntEnum):
    """The command's exit codes."""

    OK = 0
    ERROR = 1
    USAGE = 2
    INTERRUPTED = 130


class RecipeOption(StrEnum):
    """Named sets of hyperparameters."""

    LITERATURE = "literature"
    ONE_CYCLE = "one_cycle"
    SHORT = "short"


class ScheduleOption(StrEnum):
    """Learning rate schedules."""

    STEP = "step"
    COSINE = "cosine"
    LINEAR = "linear"
    ONE_CYCLE = "one_cycle"
    CONSTANT = "constant"


class AugmentationOption(StrEnum):
    """Training images: augmented views, or the images without change."""

    VIEWS = "views"
    NONE = "none"


_what_option = partial(typer.Option, rich_help_panel="What")
_recipe_option = partial(typer.Option, rich_help_panel="Recipe", show_default=False)
_where_option = partial(typer.Option, rich_help_panel="Where")
_EXAMPLES: Final = (
    (
        "a teacher for digits in seconds",
        "python -m trainables.teacher --dataset digits --model cnn_32_64 --recipe short",
    ),
    (
        "a teacher of the CIFAR-100 literature",
        "python -m trainables.teacher --dataset cifar100 --model resnet56 --data-root DATA --device cuda",
    ),
    (
        "a study with this teacher",
        "python -m study.launch --space adapter_width --teacher-checkpoint FOLDER/teacher.safetensors",
    ),
)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="Examples:\n\n" + "\n\n".join(f"[bold]{command}[/bold]  ({what})" for what, command in _EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def teacher(
    context: typer.Context,
    dataset: Annotated[str, _what_option(help="Dataset: as for study.launch, data of your own included.")],
    model: Annotated[
        str, _what_option(help="Architecture, or a network of your own: FILE.py:NAME or package.module:NAME.")
    ],
    pretrained: Annotated[
        bool,
        _what_option(
            "--pretrained",
            help="Start from the weights published by torchvision or timm, from the library's cache or downloaded.",
        ),
    ] = False,
    data_root: Annotated[
        Path | None,
        _what_option(envvar="PESFKD_DATA_ROOT", help="Folder with the dataset files; not needed for digits."),
    ] = None,
    download: Annotated[
        bool, _what_option("--download", help="Download the dataset to --data-root if it is missing.")
    ] = False,
    seed: Annotated[int, _what_option(min=0, help="Seed of the initial weights and of the batch order.")] = 0,
    split_seed: Annotated[int, _what_option(min=0, help="Seed of the data splits; must equal that of the study.")] = 0,
    recipe: Annotated[
        RecipeOption,
        typer.Option(
            rich_help_panel="Recipe",
            help="literature: SGD at 0.05 (MobileNetV2, ShuffleV1, ShuffleV2: 0.01), momentum 0.9, weight decay 5e-4, "
            "batch 64, 240 epochs, learning rate divided by 10 after epochs 150, 180 and 210 (scaled for other "
            "--epochs). short: the same with a cosine schedule and 10 to 40 epochs, depending on the dataset. "
            "one_cycle: as short, with the one-cycle schedule. "
            "The options below override single values:",
        ),
    ] = RecipeOption.LITERATURE,
    epochs: Annotated[int | None, _recipe_option(help="Number of passes over the train split.")] = None,
    batch_size: Annotated[int | None, _recipe_option(help="Number of samples per step.")] = None,
    learning_rate: Annotated[
        float | None, _recipe_option(help="Learning rate of the first epoch; with one_cycle, the largest one.")
    ] = None,
    momentum: Annotated[
        float | None, _recipe_option(help="Momentum of SGD, without Nesterov; for text, beta 1 of AdamW.")
    ] = None,
    weight_decay: Annotated[float | None, _recipe_option(help="Weight decay of all parameters.")] = None,
    schedule: Annotated[ScheduleOption | None, _recipe_option(help="Learning rate schedule.")] = None,
    augmentation: Annotated[
        AugmentationOption | None,
        _recipe_option(help="Data augmentation: the dataset's augmented views, or the unchanged images."),
    ] = None,
    precision: Annotated[
        str, _where_option(help="fp32, bf16, or auto: bf16 if faster on this machine for a network of this size.")
    ] = "fp32",
    device: Annotated[str, _where_option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[
        int,
        _where_option(
            help="Number of CPU threads. More threads speed up large networks, but change the last bits of the result."
        ),
    ] = 1,
    output_dir: Annotated[
        Path,
        _where_option(help="Output folder. It contains the MLflow store, and the teacher's folder as teachers/NAME."),
    ] = Path("study_results"),
    name: Annotated[
        str | None,
        _where_option(help="Name of the teacher's folder and run; defaults to dataset, model, recipe and seed."),
    ] = None,
    tracking_uri: Annotated[
        str | None, _where_option(help="MLflow store or server; defaults to a file in the output folder.")
    ] = None,
    no_mlflow: Annotated[bool, _where_option("--no-mlflow", help="Log nothing to MLflow.")] = False,
    dry_run: Annotated[
        bool, _where_option("--dry-run", help="Show what would be trained without writing anything.")
    ] = False,
    as_json: Annotated[bool, _where_option("--json", help="Print only one JSON document to stdout.")] = False,
    quiet: Annotated[bool, _where_option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Annotated[bool, _where_option("--verbose", "-v", help="Show a traceback for errors.")] = False,
) -> None:
    """Train a teacher: weights with all that is known of them, a model card, and a run in MLflow.

    The same command again goes on where it was stopped, by Ctrl-C or by kill -9: a checkpoint is kept after every
    epoch, and on CPU the result is the same to the bit. The network is that of the last epoch. Exit codes: 0 done, 1
    error, 2 wrong usage, 130 interrupted.
    """
    if quiet:
        hide_progress()
    values = dict(context.params)
    request, name = request_of(values)
    if dry_run:
        check_model(request, values)
        plan = planned(request, name, output_dir)
        typer.echo(
            json.dumps(plan, indent=2) if as_json else f"trains  {request.description}\nwrites  {plan['folder']}"
        )
        return
    _run(request, values)


def planned(request: "TeacherRequest", name: str, output_dir: Path) -> dict[str, Any]:
    """Return the planned training and the folder as JSON values."""
    folder = output_dir / "teachers" / name
    return {**request.values, "milestones": request.recipe.milestones, "folder": str(folder)}


def request_of(values: dict[str, Any]) -> "tuple[TeacherRequest, str]":
    """Return the checked request for a teacher, and the teacher's name.

    Args:
        values: all option values.

    Raises:
        RequestError: values are out of bounds or contradict each other, or the model does not accept the dataset.
    """
    from trainables.spec.naming import describe_other_text
    from trainables.teacher.request import RequestError, check_name, resolve_request

    if (other := describe_other_text(values)) is not None:
        raise RequestError(other)
    plain: dict[str, Any] = {key: value.value if isinstance(value, StrEnum) else value for key, value in values.items()}
    overrides = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "schedule", "augmentation")
    request_fields = (
        "dataset",
        "model",
        "recipe",
        "seed",
        "split_seed",
        "precision",
        "device",
        "threads",
        "pretrained",
    )
    if values["download"]:
        fetch_for_command(plain["dataset"], dry_run=values["dry_run"])
    request = resolve_request(
        **{key: plain[key] for key in request_fields}, overrides={key: plain[key] for key in overrides}
    )
    name = check_name(values["name"] or request.default_name)
    from trainables.teacher.job import check_images, check_network  # torch is imported from here on

    check_network(request, fetched_later=values["download"])
    check_images(request, keep=not values["dry_run"])
    return request, name


def check_model(request: "TeacherRequest", values: dict[str, Any]) -> None:
    """Reject an unusable language model in a dry run, except with `--download`, when it may still be missing."""
    from trainables.spec.architectures import is_pretrained_text_name
    from trainables.spec.modality import is_text
    from trainables.teacher.request import RequestError

    if values["download"] or not (is_text(request.dataset) and is_pretrained_text_name(request.model)):
        return
    from trainables.models.pretrained import find_folder  # imports torch
    from trainables.teacher.job import check_fits

    try:
        check_fits(request, find_folder(request.model), values["data_root"])
    except ValueError as error:
        raise RequestError(str(error)) from error


def main() -> None:
    """Run the command line and end the process with the exit code."""
    prepare_standard_streams()
    redact_tracebacks()
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    try:
        run_app(app, "python -m trainables.teacher")
    except (ValueError, RuntimeError, OSError) as error:
        if verbose or not (isinstance(error, OSError) or is_own_error(error)):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.ERROR)


def is_own_error(error: Exception) -> bool:
    """Return whether an error has a type of this package. The message is then sufficient for the user."""
    return type(error).__module__.partition(".")[0] == "trainables"


def _run(request: "TeacherRequest", values: dict[str, Any]) -> None:
    from trainables.teacher.progress import TeacherProgress

    progress = TeacherProgress(request, quiet=values["quiet"])
    try:
        result = train(request, values, progress)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted after {progress.done} of {request.recipe.epochs} epochs; run the same command to resume",
            err=True,
        )
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _show(result, as_json=values["as_json"])


def train(request: "TeacherRequest", values: dict[str, Any], progress: "TeacherProgress") -> "Result":
    """Train a teacher, or finish an interrupted training.

    Args:
        request: checked request.
        values: all option values.
        progress: progress display for the user.

    Raises:
        RequestError: the data, the folder or MLflow cannot be used.
        KeyboardInterrupt: the user interrupted the training. An equal request resumes it.
    """
    from trainables.storage.atomic import locked
    from trainables.teacher.job import open_data, open_folder, refuse_other_data, set_up, train_into
    from trainables.teacher.request import RequestError

    set_up(request)
    if not values["no_mlflow"]:
        _check_mlflow(values)
    progress.say(f"reading {request.dataset}")
    dataset, model = open_data(request, values["data_root"], download=values["download"])
    name = values["name"] or request.default_name
    folder = values["output_dir"] / "teachers" / name
    teacher_id = open_folder(request, folder)
    refuse_other_data(folder, request, dataset)
    tracker: TeacherTracker | None = None
    try:
        with locked(folder / ".lock", wait=False), _terminable():
            tracker = None if values["no_mlflow"] else _open_tracker(request, values, folder, teacher_id)
            with progress:
                return train_into(
                    folder, request, dataset, tracker=tracker, initial=model if request.pretrained else None,
                    begun=progress.begun, epoch_done=progress.epoch_done, warn=progress.warn,
                )  # fmt: skip
    except BlockingIOError:
        raise RequestError(f"another process is using {folder}: wait for it, or end it first") from None
    except KeyboardInterrupt:
        _end_tracking(tracker, "KILLED")
        raise
    except Exception:
        _end_tracking(tracker, "FAILED")
        raise


def _check_mlflow(values: dict[str, Any]) -> None:
    try:
        from trainables.storage.mlflow_store import check_tracking_uri
    except ImportError:
        from trainables.teacher.request import RequestError

        raise RequestError("MLflow is not installed: pip install mlflow, or add --no-mlflow") from None
    # A new store is created only after the request has been checked, so a mistake leaves no folder behind.
    if values["tracking_uri"] or (values["output_dir"] / "mlflow.db").exists():
        check_tracking_uri(_tracking_uri(values))


def _tracking_uri(values: dict[str, Any]) -> str:
    try:
        return values["tracking_uri"] or sqlite_uri(values["output_dir"] / "mlflow.db")
    except SQLitePathError as error:
        from trainables.teacher.request import RequestError

        raise RequestError(f"--output-dir: {error}") from None


def _open_tracker(request: "TeacherRequest", values: dict[str, Any], folder: Path, teacher_id: str) -> "TeacherTracker":
    from trainables.process.versions import running_versions
    from trainables.teacher.tracking import TeacherTracker

    return TeacherTracker(
        _tracking_uri(values),
        artifacts=values["output_dir"] / "mlartifacts",
        teacher_id=teacher_id,
        name=folder.name,
        params=request.values,
        tags={
            "kind": "teacher",
            "command": redact(with_kept_code(request.command, f"{folder}/")),
            "mlflow.source.name": "trainables.teacher",
            "mlflow.source.type": "LOCAL",
            **running_versions(),
        },
    )


def _end_tracking(tracker: "TeacherTracker | None", status: str) -> None:
    if tracker is None:
        return
    from trainables.storage.mlflow_store import TrackingError

    try:
        tracker.finish(status)
    except TrackingError as error:
        typer.echo(f"warning: {error}", err=True)


class _terminable:  # noqa: N801
    """Context in which SIGTERM has the effect of Ctrl-C. Only the main thread receives signals."""

    def __enter__(self) -> None:
        self._before: Any = None
        if threading.current_thread() is not threading.main_thread():
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        self._before = signal.signal(signal.SIGTERM, interrupt)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


def _show(result: "Result", *, as_json: bool) -> None:
    summary = result.summary
    lines = [json.dumps(summary, indent=2)] if as_json else _summary_lines(summary, accuracies(result.metadata))
    show_result("\n".join(lines) + "\n", sys.stdout, elsewhere=f"the teacher is in {summary['checkpoint']}")
    if result.tracking_error is not None:
        typer.echo(f"error: {result.tracking_error}. Run the same command to log it again.", err=True)
        raise typer.Exit(ExitCode.ERROR)
    raise typer.Exit(ExitCode.OK)


def _summary_lines(summary: dict[str, Any], shares: dict[str, Proportion]) -> list[str]:
    lines = [f"{split:<11} {share} (Wilson, 95%), n = {share.samples:,}" for split, share in shares.items()]
    return [
        *lines,
        f"{'checkpoint':<11} {summary['checkpoint']}",
        f"{'model card':<11} {summary['card']}",
        f"{'in a study':<11} {summary['teacher_options']}",
    ]
