"""Options of the study commands: type, help text and panel. Each command's signature holds the defaults."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trainables.process.errors import UsageError


class SamplerName(StrEnum):
    """Optuna samplers."""

    TPE = "tpe"
    RANDOM = "random"
    QMC = "qmc"
    GP = "gp"
    CMAES = "cmaes"
    NSGA2 = "nsga2"


class SchedulerName(StrEnum):
    """Schedulers for stopping unpromising trials early."""

    NONE = "none"
    ASHA = "asha"


class OutputsModeName(StrEnum):
    """Sources of the frozen teacher's outputs."""

    AUTO = "auto"
    STORED = "stored"
    LIVE = "live"


class OutputsDtypeName(StrEnum):
    """Data types of stored teacher outputs."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class TeacherRecipeName(StrEnum):
    """Training recipes for a teacher."""

    SHORT = "short"
    LITERATURE = "literature"


class StudentLayersName(StrEnum):
    """Choices of the teacher layers used to initialise a student."""

    SKIP = "skip"
    FIRST = "first"
    LAST = "last"


def _in_home(dataset: str) -> str:
    """Return the dataset name with `~` in an image folder's path expanded."""
    if "~" not in dataset:
        return dataset
    from trainables.spec.datasets import expand_home

    try:
        return expand_home(dataset)
    except ValueError as error:
        raise UsageError(f"--dataset {error}") from None


_what = partial(typer.Option, rich_help_panel="What")
_how_much = partial(typer.Option, rich_help_panel="How much")
_search = partial(typer.Option, rich_help_panel="Search")
_where = partial(typer.Option, rich_help_panel="Where")
_teacher = partial(typer.Option, rich_help_panel="Teacher")
_how = partial(typer.Option, rich_help_panel="How to run")

Space = Annotated[str | None, _what(help="What to search; see --list-spaces.")]
ListSpaces = Annotated[bool, _what("--list-spaces", help="Show the search spaces and leave.")]
Method = Annotated[str, _what(help="Distillation method.")]
Methods = Annotated[
    str | None,
    _what(
        metavar="NAME,...",
        help="For --space method and method_tuned: the methods to compare, such as ce,kd,dkd+adapter; kd is always "
        "among them. If not given, all that can run with these nets.",
    ),
]
Adapter = Annotated[
    bool,
    _what(
        "--adapter",
        help="Train an adapter beside dkd, dist or logit_standardisation, with the method alone as a third control; "
        "pesf_kd always has one.",
    ),
]
Dataset = Annotated[
    str,
    _what(
        callback=_in_home,
        help="digits, fashion_mnist, mnist, cifar10, cifar100, tiny_imagenet, image_folder:PATH for images in "
        "PATH/train/CLASS/ (with test/ or val/ beside train/, or both) or PATH/CLASS/, or a task of GLUE, such as "
        "glue:sst2.",
    ),
]
DataRoot = Annotated[
    Path | None, _what(envvar="PESFKD_DATA_ROOT", help="Folder with the dataset's files; digits needs none.")
]
Download = Annotated[bool, _what("--download", help="Fetch the dataset's files to the data root if they are missing.")]
Student = Annotated[str, _what(help="Student architecture; of text bert_L_H, or bert:N for N layers of the teacher.")]
Teacher = Annotated[
    str, _what(help="Teacher architecture; a --teacher-checkpoint that says what it is need not be told.")
]
StudentLayers = Annotated[
    StudentLayersName,
    _what(help="Which layers of the teacher a student bert:N of text begins with: evenly spaced, first or last ones."),
]
Temperature = Annotated[float | None, _what(help="Hold the temperature at this value.")]
Hold = Annotated[
    list[str] | None, _what("--set", metavar="FIELD=VALUE", help="Hold a field of the trial's config; repeatable.")
]

Trials = Annotated[int, _how_much(help="Configs that the search proposes; of each method for --space method_tuned.")]
Promising = Annotated[int, _how_much(help="Best configs of the search to repeat on fresh seeds.")]
Replicates = Annotated[
    int,
    _how_much(help="Fresh seeds for each promising config and each control, or for each method that is compared (5)."),
]
Confirm = Annotated[
    int | None,
    _how_much(
        metavar="N",
        help="When all has run, run the N best configs (by a lower confidence bound) and the controls again on fresh "
        "seeds, and read the test split for them, once; of a comparison the N best methods, ce and kd.",
    ),
]
Seeds = Annotated[
    int | None, _how_much(metavar="N", help="Fresh seeds for each config that is confirmed; 10 if not given.")
]
Epochs = Annotated[int, _how_much(help="Epochs per trial.")]
TrialTimeout = Annotated[
    float | None,
    _how_much(
        metavar="SECONDS",
        help="End a trial that has not reported for so long, as failed; more than its longest epoch and the loading of "
        "its data take.",
    ),
]
TimeBudget = Annotated[
    float | None,
    _how_much(help="Stop after so many seconds, with exit code 4 if the study is not done; --resume goes on."),
]
Smoke = Annotated[bool, _how_much("--smoke", help="Two configs, one seed, one epoch: does it run?")]

Sampler = Annotated[
    SamplerName,
    _search(
        help="Optuna sampler. cmaes draws categorical parameters at random. With --scheduler asha, gp, cmaes and nsga2 "
        "learn from a stopped trial by its value at its last epoch."
    ),
]
Scheduler = Annotated[
    SchedulerName,
    _search(
        help="asha stops unpromising configs early. With none, every trial is trained to its end, so that the gap "
        "is compared with accuracies that nothing selected."
    ),
]
Seed = Annotated[int, _search(help="Study seed.")]

MaxConcurrent = Annotated[int | None, _where(help="Trials at once; as many as fit if not given.")]
CpusPerTrial = Annotated[float, _where(help="Cores a trial.")]
GpusPerTrial = Annotated[float, _where(help="GPUs a trial; 0.25 puts four on one.")]
Address = Annotated[str, _where(help="Ray: local, auto or host:port.")]
ShipCode = Annotated[
    bool,
    _where(
        "--ship-code",
        help="Send this package to the nodes, which then need its dependencies alone; if not given, it has to be "
        "installed on them.",
    ),
]
OutputDir = Annotated[Path, _where(help="Folder for studies, teachers and the MLflow store.")]
StoragePath = Annotated[
    str | None,
    _where(
        help="Where trials that run keep their checkpoints: a folder that all nodes see, or storage (s3://, gs://, "
        "abfs://, hdfs://, file://); the study's own folder if not given."
    ),
]
Name = Annotated[str | None, _where(help="Name of the study; space and time if not given.")]
TrackingUri = Annotated[str | None, _where(help="MLflow store or server; a file in the output folder if not given.")]
OptunaStorage = Annotated[
    Path | None,
    _where(
        metavar="FILE",
        help="Mirror the search into this file while it runs, for `optuna-dashboard FILE`; one file can hold many "
        "studies.",
    ),
]
Precision = Annotated[
    str,
    _where(
        help="auto, fp32 or bf16: arithmetic of the convolutions in training. auto is bf16 where this machine and "
        "the student's size gain by it; the plan says which."
    ),
]

TeacherCheckpoint = Annotated[
    Path | None,
    _teacher(
        help="A trained teacher, instead of training one: teacher.safetensors of `python -m trainables.teacher`, or "
        "weights of another code base (.pth, .safetensors), for which --teacher names the architecture; of text, a "
        "folder in Hugging Face's layout."
    ),
]
TeacherNormalisation = Annotated[
    str | None,
    _teacher(
        metavar="MEANS/STDS",
        help="What the images of a foreign checkpoint were normalised by, such as "
        "0.5071,0.4867,0.4408/0.2675,0.2565,0.2761; if not given, what is usual for the dataset, if something is.",
    ),
]
TeacherWeights = Annotated[
    str | None,
    _teacher(
        metavar="raw|ema|KEY",
        help="Which weights of --teacher-checkpoint, where it has several: raw, their running average (ema), or those "
        "under a key, such as best_state_dict; if not given, raw ones before averages. The plan says which were taken.",
    ),
]
TeacherRecipe = Annotated[TeacherRecipeName, _teacher(help="How to train one, as in `python -m trainables.teacher`.")]
TeacherEpochs = Annotated[int | None, _teacher(min=1, help="How long; as the recipe says if not given.")]
TeacherOutputs = Annotated[
    OutputsModeName,
    _teacher(
        help="Compute the frozen teacher's outputs once and store them, or live in every epoch; auto stores them "
        "if they stay within the limit and the method neither needs maps of the nets (fitnet, at, sp, vid, pkd) nor "
        "trains the teacher (full_teacher)."
    ),
]
TeacherOutputsDtype = Annotated[OutputsDtypeName, _teacher(help="How stored outputs are rounded.")]
TeacherOutputsLimit = Annotated[str, _teacher(help="Most bytes that a study may store, such as 4GiB.")]
TeacherOutputsPath = Annotated[
    str | None,
    _teacher(
        help="Folder for them, or storage that all nodes reach (s3://, gs://, abfs://, hdfs://, file://), of which "
        "each node keeps a copy; teacher_outputs in the output folder if not given."
    ),
]

WorkersPerTrial = Annotated[
    int,
    _where(
        help="Processes that train a trial together, data-parallel, each with --cpus-per-trial and --gpus-per-trial. "
        "Equal to one but for rounding."
    ),
]
Pack = Annotated[
    str,
    _where(
        metavar="K|auto",
        help="Train so many trials as one where a trial's cores are, which small students gain by; auto tries out how "
        "many. Equal to trials apart but for rounding.",
    ),
]

Resume = Annotated[str | None, _how(metavar="NAME", help="Go on with that study.")]
RetryFailed = Annotated[
    bool, _how("--retry-failed", help="With --resume: run the trials that failed again, each once; nothing else again.")
]
SetAsideRecords = Annotated[
    bool,
    _how(
        "--set-aside-records",
        help="For a study whose journal has lost trials: move the records that it does not account for to set-aside "
        "in the study's folder, and go on from the journal.",
    ),
]
DryRun = Annotated[bool, _how("--dry-run", help="Show the plan and its cost; run and write nothing.")]
AsJson = Annotated[bool, _how("--json", help="One JSON document on stdout, nothing else.")]
Quiet = Annotated[bool, _how("--quiet", "-q", help="No progress.")]
Verbose = Annotated[bool, _how("--verbose", "-v", help="Say more when something fails.")]
Version = Annotated[bool, _how("--version", help="Show the version.")]
Synced = Annotated[str, typer.Argument(metavar="NAME", help="A study, finished or not.", show_default=False)]
Confirmed = Annotated[str, typer.Argument(metavar="NAME", help="A study that has finished.", show_default=False)]
