"""Study options: flag, type, default and help text of each, declared once.

The command line, the plan, resume and the printed start command are derived from this table. The module imports neither
Typer nor pydantic, to keep help fast.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from study.plan.until import RULE

Panel = Literal["Question", "Size", "Search", "Resources and storage", "Teacher", "Command"]
# Part of an option: the study's question, the execution (may change on resume), or one command.
Part = Literal["question", "execution", "command"]


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        panel: help panel.
        name: name in Python, and name of the plan's field, if the plan has one.
        type: type of a command-line value.
        default: default value.
        part: question of the study, execution, or one command.
        help: help text.
        into: destination of the unchanged value: a plan field, a field in all trial configs, or neither.
        flag: flag, if different from the name with hyphens.
        short: one-letter flag.
        metavar: placeholder for the value in the help.
        envvar: environment variable with a default.
        least: smallest allowed value.
    """

    panel: Panel
    name: str
    type: Any
    default: Any
    part: Part
    help: str
    into: Literal["plan", "config", ""] = ""
    flag: str = ""
    short: str = ""
    metavar: str | None = None
    envvar: str | None = None
    least: int | None = None

    @property
    def long_flag(self) -> str:
        """The flag with two hyphens."""
        return self.flag or f"--{self.name.replace('_', '-')}"


_question = partial(Option, "Question")
_size = partial(Option, "Size")
_search = partial(Option, "Search")
_resources = partial(Option, "Resources and storage")
_teacher = partial(Option, "Teacher")
_command = partial(Option, "Command")

# fmt: off
OPTIONS: Final[dict[str, Option]] = {
    option.name: option
    for option in (
        _question("space", str | None, None, "question",
            "Search space, or one of your own, FILE.py:SPACE; --list-spaces shows all.",
            into="plan"),
        _question("list_spaces", bool, False, "command",
            "Show the search spaces and exit."),
        _question("method", str, "pesf_kd", "question",
            "Distillation method, or one of your own, FILE.py:METHOD.",
            into="config"),
        _question("methods", str | None, None, "question",
            "Methods to compare with --space method or method_tuned, such as ce,kd,dkd+adapter,FILE.py:METHOD; kd is "
            "always included. Default: all methods that can run with these networks.",
            metavar="NAME,..."),
        _question("adapter", bool, False, "question",
            "Train a teacher adapter with atkd, dkd, dtkd, dist, logit_standardisation, ctkd, ttm, wttm, nkd, rld, "
            "mlkd, wkd_l or pkd, or with crd, pkt, rkd, fitnet, at, sp or vid; the method without it becomes a third "
            "control. pesf_kd always has an adapter.",
            into="config"),
        _question("dataset", str, "digits", "question",
            "Dataset: digits, fashion_mnist, mnist, cifar10, cifar100, tiny_imagenet, image_folder:PATH for images "
            "in PATH/train/CLASS/ (and PATH/test/ or PATH/val/, or both) or PATH/CLASS/, a GLUE task such as glue:sst2,"
            " or data of your own: arrays:PATH (.npz, .npy, Parquet, Arrow), hf:NAME, or FILE.py:NAME, a "
            "callable that returns train, test and optionally validation.",
            into="config"),
        _question("data_root", Path | None, None, "execution",
            "Folder with the dataset's files; not needed for digits.",
            into="plan", envvar="PESFKD_DATA_ROOT"),
        _question("download", bool, False, "command",
            "Download missing files of the dataset to --data-root."),
        _question("student", str, "cnn_3_4", "question",
            "Student architecture, or a network of your own: FILE.py:NAME or package.module:NAME, a callable that "
            "takes num_classes and in_channels and returns a torch.nn.Module; for text, bert_L_H, or bert:N for N "
            "layers of the teacher.",
            into="config"),
        _question("teacher", str, "cnn_32_64", "question",
            "Teacher architecture, or a network of your own, as for --student; not needed if --teacher-checkpoint "
            "contains it.",
            into="config"),
        _question("student_layers", Literal["skip", "first", "last"], "skip", "question",
            "Teacher layers that initialise a text student bert:N: evenly spaced (skip), first or last ones.",
            into="config"),
        _question("temperature", float | None, None, "question",
            "Fix the temperature at this value."),
        _question("hold", list[str] | None, None, "question",
            "Fix a field of all trial configs; repeatable.",
            flag="--set", metavar="FIELD=VALUE"),
        _question("search", list[str] | None, None, "question",
            "Search a field of all trial configs: within LOW:HIGH, with :log for a log scale or :STEP for steps, or "
            "among the values A,B,... Replaces the bounds of the space, or adds the field; repeatable. With --space "
            "none, nothing else is searched.",
            metavar="FIELD=BOUNDS"),
        _size("trials", int, 24, "question",
            "Number of configs that the search proposes; per method for --space method_tuned.",
            into="plan"),
        _size("promising", int, 3, "question",
            "Number of best configs of the search to repeat on fresh seeds.",
            into="plan"),
        _size("searches_per_method", int, 1, "question",
            "With --space method_tuned: number of independent searches per method, of --trials configs each. The best "
            "config of each is repeated, so that the luck of a search shows (2 if not given).",
            into="plan", flag="--searches", metavar="N"),
        _size("budget", Literal["trials", "flops"], "trials", "question",
            "With --space method_tuned: the budget that is equal for all searches, trials or FLOPs. With flops, "
            "--trials is the number for cross-entropy, and a method with a step K times as expensive gets 1/K of it.",
            into="plan"),
        _size("replicates", str, 12, "question",
            "Number of fresh seeds for each promising config and each control, or for each compared method "
            "(10 if not given). python -m study.power NAME says how many a difference needs; auto adds seeds until "
            "every comparison with kd is decided, in a study without --confirm.",
            into="plan", metavar="N|auto"),
        _size("confirm", int | None, None, "question",
            "After all trials, run the N best configs (by a lower confidence bound) and the controls again on fresh "
            "seeds, and evaluate them once on the test split; in a comparison, the N best methods, ce and kd, each by "
            "the best config of every search.",
            metavar="N"),
        _size("seeds", str | None, None, "question",
            "Number of fresh seeds for each confirmed config; auto adds seeds until every comparison is decided. "
            "Default: 10.",
            metavar="N|auto"),
        _size("detect", float | None, None, "question",
            "With --seeds auto or --replicates auto: the difference that matters, in the objective's unit. Comparisons "
            "stop when their sign is clear or the difference is smaller. Default: 0.005, half a point of accuracy.",
            metavar="DIFFERENCE"),
        _size("most_seeds", int | None, None, "question",
            "With --seeds auto or --replicates auto: the largest number of seeds. Default: 60.",
            metavar="N"),
        _size("confirm_epochs", int | None, None, "question",
            "Training epochs of the confirmed trials. Configs are still chosen, and kd's temperature is still tuned, "
            "with --epochs. Default: as --epochs.",
            metavar="N"),
        _size("teachers", int | None, None, "question",
            "Number of teachers for --confirm: trained with seeds that follow the study's, and --seeds divided over "
            "them, alike for every config. Intervals then cover new teachers too. Default: 1.",
            metavar="N"),
        _size("splits", int | None, None, "question",
            "Number of splits into train and validation for --confirm, with teachers trained on each; the test split "
            "stays. Intervals then cover new splits too. Default: 1.",
            metavar="N"),
        _size("epochs", int, 15, "question",
            "Training epochs per trial.",
            into="config"),
        _size("time_budget", float | None, None, "execution",
            "Stop after this many seconds, with exit code 4 if trials remain; --resume continues.",
            into="plan"),
        _size("trial_timeout", float | None, None, "execution",
            "Stop a trial that has not reported for this long and record it as failed; must exceed the time for "
            "loading the data and the longest epoch.",
            into="plan", metavar="SECONDS"),
        _size("smoke", bool, False, "command",
            "Quick test with two configs, one seed and one epoch."),
        _search("sampler", Literal["tpe", "random", "qmc", "gp", "cmaes", "nsga2"], "tpe", "question",
            "Optuna sampler. cmaes draws categorical parameters at random. With --scheduler asha, gp, cmaes and "
            "nsga2 use the value of a stopped trial at its last epoch.",
            into="plan"),
        _search("scheduler", Literal["none", "asha"], "none", "question",
            "asha stops unpromising configs early. With none, every trial is trained for all epochs, so the gap is "
            "compared with accuracies free of selection.",
            into="plan"),
        _search("objectives", str | None, None, "question",
            "Several objectives, such as val/accuracy,latency: the dataset's objective and latency, size, flops, "
            "parameters, val/ece or gap. The study then finds the Pareto front, by --sampler tpe or nsga2.",
            metavar="NAME,..."),
        _search("limit", list[str] | None, None, "question",
            "Upper limit of a quantity, as a constraint of the search, such as latency=5ms or size=2MB; also flops, "
            "parameters, val/ece and gap; repeatable.",
            metavar="NAME=VALUE"),
        _search("latency", int | None, None, "question",
            "Measure size and latency of each student architecture as an ONNX program before the trials, on this "
            "number of threads of this machine. Needs pesfkd[export]. Default: 1 if latency or size is an objective or "
            "has a limit, else not measured.",
            into="plan", metavar="THREADS", least=1),
        _search("warm_start", str | None, None, "question",
            "Earlier studies, by name or folder. Their trials of the same question go to the sampler with their "
            "values; of other studies, the best configs are proposed first.",
            metavar="NAME,..."),
        _search("prior", list[str] | None, None, "question",
            "Belief that a value of a searched field is good, such as temperature=4 or temperature=4:2. SPREAD is a "
            "standard deviation, or a factor on a log scale. The value is proposed first, and proposals near it become "
            "rare later; repeatable.",
            metavar="FIELD=VALUE[:SPREAD]"),
        _search("until", Literal["no-gain"] | None, None, "question",
            f"no-gain ends the search {RULE}. --trials is then the largest number.",
            into="plan", metavar="no-gain"),
        _search("seed", int, 0, "question",
            "Seed of the study, for the sampler and for the seeds of all trials.",
            into="plan"),
        _resources("executor", Literal["auto", "ray", "processes", "in-process"], "ray", "execution",
            "What runs the trials: Ray; worker processes of this machine; or this process, one trial after the other, "
            "for debuggers, notebooks and tests. auto takes worker processes on one machine without GPUs, otherwise "
            "Ray.",
            into="plan"),
        _resources("max_concurrent", int | None, None, "execution",
            "Maximum number of trials at once. Default: as many as fit.",
            into="plan"),
        _resources("cpus_per_trial", float, 1.0, "execution",
            "CPU cores per trial.",
            into="plan"),
        _resources("pack", str | None, None, "execution",
            "Number of trials trained together as one model on the cores of one trial, which is faster for small "
            "students. Results equal separate trials up to rounding. auto, the default for worker processes, packs "
            "small students, and no proposal that waits for results. On Ray, auto measures the best number.",
            into="plan", metavar="K|auto"),
        _resources("gpus_per_trial", str, 0.0, "execution",
            "GPUs per trial; 0.25 places four trials on one GPU. auto uses the GPUs of all nodes, and measures how "
            "many trials share one.",
            into="plan", metavar="GPUS|auto"),
        _resources("workers_per_trial", int, 1, "execution",
            "Number of data-parallel processes per trial, each with --cpus-per-trial and --gpus-per-trial. Results "
            "equal one process up to rounding.",
            into="plan"),
        _resources("address", str, "local", "execution",
            "Ray cluster: local, auto or host:port.",
            into="plan"),
        _resources("ship_code", bool, False, "execution",
            "Send this package to the nodes, which then need only its dependencies. Otherwise the package must be "
            "installed on them.",
            into="plan"),
        _resources("output_dir", Path, Path("study_results"), "execution",
            "Folder for studies, teachers and the MLflow store."),
        _resources("storage_path", str | None, None, "execution",
            "Storage for checkpoints of running trials: a folder shared by all nodes, or a URI (s3://, gs://, "
            "abfs://, hdfs://, file://). Default: the study's folder.",
            into="plan"),
        _resources("name", str | None, None, "question",
            "Name of the study. Default: space and time."),
        _resources("tracking_uri", str | None, None, "execution",
            "MLflow store or server. Default: a file in the output folder.",
            into="plan"),
        _resources("optuna_storage", Path | None, None, "execution",
            "Optuna journal that mirrors the running search, for `optuna-dashboard FILE`; one file can hold many "
            "studies.",
            into="plan", metavar="FILE"),
        _resources("tensorboard", bool, False, "execution",
            "Also write the trials as TensorBoard event files, into tensorboard in the study's folder. Needs "
            "pesfkd[tensorboard].",
            into="plan"),
        _resources("wandb_offline", bool, False, "execution",
            "Also write the trials as offline runs of Weights & Biases, into wandb in the study's folder, for `wandb "
            "sync`. Nothing is uploaded. Needs pesfkd[wandb].",
            into="plan"),
        _resources("precision", str, "auto", "question",
            "Precision of the convolutions in training: auto, fp32 or bf16. auto selects bf16 if it is faster for "
            "this machine and student size; the plan shows the choice."),
        _teacher("teacher_checkpoint", Path | None, None, "execution",
            "Trained teacher to use instead of training one: teacher.safetensors from `python -m "
            "trainables.teacher`, or weights from another code base (.pth, .safetensors) with --teacher as "
            "architecture; for text, a folder in Hugging Face's layout. A,B,C gives an ensemble of teachers of images: "
            "the mean of their probabilities.",
            metavar="PATH[,...]"),
        _teacher("teacher_weights", str | None, None, "execution",
            "Weights to take from a --teacher-checkpoint with several: raw, their running average (ema), or those "
            "under a key, such as best_state_dict. Default: raw weights before averages. The plan shows the choice.",
            metavar="raw|ema|KEY"),
        _teacher("teacher_normalisation", str | None, None, "question",
            "Normalisation of the images for a checkpoint from another code base, such as "
            "0.5071,0.4867,0.4408/0.2675,0.2565,0.2761. Default: the usual values for the dataset, if there are any.",
            metavar="MEANS/STDS"),
        _teacher("teacher_recipe", Literal["short", "literature", "one_cycle"], "short", "question",
            "Recipe for training the teacher, as in `python -m trainables.teacher`.",
            into="config"),
        _teacher("teacher_epochs", int | None, None, "question",
            "Training epochs of the teacher. Default: set by the recipe.",
            into="config", least=1),
        _teacher("teacher_outputs", Literal["auto", "stored", "live"], "auto", "question",
            "Compute the frozen teacher's outputs once and store them, or compute them live in every epoch. auto "
            "stores them if they stay within the limit and the method neither needs feature maps (fitnet, at, sp, "
            "vid, pkd) nor trains the teacher (full_teacher).",
            into="plan"),
        _teacher("teacher_outputs_dtype", Literal["float16", "bfloat16", "float32"], "float16", "question",
            "Data type of stored outputs.",
            into="plan"),
        _teacher("teacher_outputs_limit", str, "20GiB", "execution",
            "Maximum size of a study's stored outputs, such as 4GiB.",
            into="plan"),
        _teacher("teacher_outputs_path", str | None, None, "execution",
            "Folder for stored outputs, or a URI reachable from all nodes (s3://, gs://, abfs://, hdfs://, file://), "
            "copied to each node. Default: teacher_outputs in the output folder.",
            into="plan"),
        _command("config", Path | None, None, "command",
            "File with options by name: YAML, TOML or JSON, or the plan.json of another study. Options on the command "
            "line override it.",
            metavar="FILE"),
        _command("print_config", bool, False, "command",
            "Print the options of the study as a config file, and exit."),
        _command("resume", str | None, None, "command",
            "Resume this study.",
            metavar="NAME"),
        _command("retry_failed", bool, False, "command",
            "With --resume: run each failed trial once more. Other trials are not repeated."),
        _command("set_aside_records", bool, False, "command",
            "If the journal has lost trials: move the records to set-aside in the study's folder, and continue from "
            "the journal."),
        _command("dry_run", bool, False, "command",
            "Show the plan and the cost without running or writing anything."),
        _command("as_json", bool, False, "command",
            "Print one JSON document on stdout and nothing else.",
            flag="--json"),
        _command("quiet", bool, False, "command",
            "Show no progress.",
            short="-q"),
        _command("verbose", bool, False, "command",
            "Show more details of errors.",
            short="-v"),
        _command("version", bool, False, "command",
            "Show the version."),
    )
}
# fmt: on


def names_of(part: Part) -> tuple[str, ...]:
    """Return the names of the options belonging to a part, in help order."""
    return tuple(option.name for option in OPTIONS.values() if option.part == part)


def names_into(place: Literal["plan", "config"]) -> tuple[str, ...]:
    """Return the names of options with values copied unchanged into the plan or into all trial configs."""
    return tuple(option.name for option in OPTIONS.values() if option.into == place)


def default_of(name: str) -> Any:
    """Return an option's default."""
    return OPTIONS[name].default
