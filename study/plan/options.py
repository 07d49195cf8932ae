"""Options of a study: flag, type, default and help text of each, declared once.

The command line, the plan, resume and the printed start command are derived from this table. The module imports neither
Typer nor pydantic, so that help is fast.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

Panel = Literal["What", "How much", "Search", "Where", "Teacher", "How to run"]
# What an option belongs to: the question of the study, the execution, which may change on resume, or one command.
Part = Literal["question", "execution", "command"]


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        panel: panel of the help.
        name: name in Python, and name of the plan's field, if the plan has one.
        type: type of a value on the command line.
        default: default value.
        part: what the option belongs to.
        help: help text.
        into: where the value goes unchanged: a field of the plan, a field of all trial configs, or neither.
        flag: flag, if it is not the name with hyphens.
        short: one-letter flag.
        metavar: placeholder of the value in the help.
        envvar: environment variable with a default.
        least: smallest value.
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


_what = partial(Option, "What")
_how_much = partial(Option, "How much")
_search = partial(Option, "Search")
_where = partial(Option, "Where")
_teacher = partial(Option, "Teacher")
_how = partial(Option, "How to run")

# fmt: off
OPTIONS: Final[dict[str, Option]] = {
    option.name: option
    for option in (
        _what("space", str | None, None, "question",
            "What to search; see --list-spaces.",
            into="plan"),
        _what("list_spaces", bool, False, "command",
            "Show the search spaces and leave."),
        _what("method", str, "pesf_kd", "question",
            "Distillation method.",
            into="config"),
        _what("methods", str | None, None, "question",
            "For --space method and method_tuned: the methods to compare, such as ce,kd,dkd+adapter; kd is "
            "always among them. If not given, all that can run with these nets.",
            metavar="NAME,..."),
        _what("adapter", bool, False, "question",
            "Train an adapter beside dkd, dist or logit_standardisation, with the method alone as a third "
            "control; pesf_kd always has one.",
            into="config"),
        _what("dataset", str, "digits", "question",
            "digits, fashion_mnist, mnist, cifar10, cifar100, tiny_imagenet, image_folder:PATH for images in "
            "PATH/train/CLASS/ (with test/ or val/ beside train/, or both) or PATH/CLASS/, or a task of GLUE, "
            "such as glue:sst2.",
            into="config"),
        _what("data_root", Path | None, None, "execution",
            "Folder with the dataset's files; digits needs none.",
            into="plan", envvar="PESFKD_DATA_ROOT"),
        _what("download", bool, False, "command",
            "Fetch the dataset's files to the data root if they are missing."),
        _what("student", str, "cnn_3_4", "question",
            "Student architecture; of text bert_L_H, or bert:N for N layers of the teacher.",
            into="config"),
        _what("teacher", str, "cnn_32_64", "question",
            "Teacher architecture; a --teacher-checkpoint that says what it is need not be told.",
            into="config"),
        _what("student_layers", Literal["skip", "first", "last"], "skip", "question",
            "Which layers of the teacher a student bert:N of text begins with: evenly spaced, first or last "
            "ones.",
            into="config"),
        _what("temperature", float | None, None, "question",
            "Hold the temperature at this value."),
        _what("hold", list[str] | None, None, "question",
            "Hold a field of the trial's config; repeatable.",
            flag="--set", metavar="FIELD=VALUE"),
        _how_much("trials", int, 24, "question",
            "Configs that the search proposes; of each method for --space method_tuned.",
            into="plan"),
        _how_much("promising", int, 3, "question",
            "Best configs of the search to repeat on fresh seeds.",
            into="plan"),
        _how_much("replicates", int, 3, "question",
            "Fresh seeds for each promising config and each control, or for each method that is compared (5).",
            into="plan"),
        _how_much("confirm", int | None, None, "question",
            "When all has run, run the N best configs (by a lower confidence bound) and the controls again on "
            "fresh seeds, and read the test split for them, once; of a comparison the N best methods, ce and "
            "kd.",
            metavar="N"),
        _how_much("seeds", int | None, None, "question",
            "Fresh seeds for each config that is confirmed; 10 if not given.",
            metavar="N"),
        _how_much("epochs", int, 15, "question",
            "Epochs per trial.",
            into="config"),
        _how_much("time_budget", float | None, None, "execution",
            "Stop after so many seconds, with exit code 4 if the study is not done; --resume goes on.",
            into="plan"),
        _how_much("trial_timeout", float | None, None, "execution",
            "End a trial that has not reported for so long, as failed; more than its longest epoch and the "
            "loading of its data take.",
            into="plan", metavar="SECONDS"),
        _how_much("smoke", bool, False, "command",
            "Two configs, one seed, one epoch: does it run?"),
        _search("sampler", Literal["tpe", "random", "qmc", "gp", "cmaes", "nsga2"], "tpe", "question",
            "Optuna sampler. cmaes draws categorical parameters at random. With --scheduler asha, gp, cmaes and "
            "nsga2 learn from a stopped trial by its value at its last epoch.",
            into="plan"),
        _search("scheduler", Literal["none", "asha"], "none", "question",
            "asha stops unpromising configs early. With none, every trial is trained to its end, so that the "
            "gap is compared with accuracies that nothing selected.",
            into="plan"),
        _search("seed", int, 0, "question",
            "Study seed.",
            into="plan"),
        _where("max_concurrent", int | None, None, "execution",
            "Trials at once; as many as fit if not given.",
            into="plan"),
        _where("cpus_per_trial", float, 1.0, "execution",
            "Cores a trial.",
            into="plan"),
        _where("pack", str, "1", "execution",
            "Train so many trials as one where a trial's cores are, which small students gain by; auto tries "
            "out how many. Equal to trials apart but for rounding.",
            into="plan", metavar="K|auto"),
        _where("gpus_per_trial", float, 0.0, "execution",
            "GPUs a trial; 0.25 puts four on one.",
            into="plan"),
        _where("workers_per_trial", int, 1, "execution",
            "Processes that train a trial together, data-parallel, each with --cpus-per-trial and "
            "--gpus-per-trial. Equal to one but for rounding.",
            into="plan"),
        _where("address", str, "local", "execution",
            "Ray: local, auto or host:port.",
            into="plan"),
        _where("ship_code", bool, False, "execution",
            "Send this package to the nodes, which then need its dependencies alone; if not given, it has to be "
            "installed on them.",
            into="plan"),
        _where("output_dir", Path, Path("study_results"), "execution",
            "Folder for studies, teachers and the MLflow store."),
        _where("storage_path", str | None, None, "execution",
            "Where trials that run keep their checkpoints: a folder that all nodes see, or storage (s3://, "
            "gs://, abfs://, hdfs://, file://); the study's own folder if not given.",
            into="plan"),
        _where("name", str | None, None, "question",
            "Name of the study; space and time if not given."),
        _where("tracking_uri", str | None, None, "execution",
            "MLflow store or server; a file in the output folder if not given.",
            into="plan"),
        _where("optuna_storage", Path | None, None, "execution",
            "Mirror the search into this file while it runs, for `optuna-dashboard FILE`; one file can hold "
            "many studies.",
            into="plan", metavar="FILE"),
        _where("precision", str, "auto", "question",
            "auto, fp32 or bf16: arithmetic of the convolutions in training. auto is bf16 where this machine "
            "and the student's size gain by it; the plan says which."),
        _teacher("teacher_checkpoint", Path | None, None, "execution",
            "A trained teacher, instead of training one: teacher.safetensors of `python -m trainables.teacher`, "
            "or weights of another code base (.pth, .safetensors), for which --teacher names the architecture; "
            "of text, a folder in Hugging Face's layout."),
        _teacher("teacher_weights", str | None, None, "execution",
            "Which weights of --teacher-checkpoint, where it has several: raw, their running average (ema), or "
            "those under a key, such as best_state_dict; if not given, raw ones before averages. The plan says "
            "which were taken.",
            metavar="raw|ema|KEY"),
        _teacher("teacher_normalisation", str | None, None, "question",
            "What the images of a foreign checkpoint were normalised by, such as "
            "0.5071,0.4867,0.4408/0.2675,0.2565,0.2761; if not given, what is usual for the dataset, if "
            "something is.",
            metavar="MEANS/STDS"),
        _teacher("teacher_recipe", Literal["short", "literature"], "short", "question",
            "How to train one, as in `python -m trainables.teacher`.",
            into="config"),
        _teacher("teacher_epochs", int | None, None, "question",
            "How long; as the recipe says if not given.",
            into="config", least=1),
        _teacher("teacher_outputs", Literal["auto", "stored", "live"], "auto", "question",
            "Compute the frozen teacher's outputs once and store them, or live in every epoch; auto stores them "
            "if they stay within the limit and the method neither needs maps of the nets (fitnet, at, sp, vid, "
            "pkd) nor trains the teacher (full_teacher).",
            into="plan"),
        _teacher("teacher_outputs_dtype", Literal["float16", "bfloat16", "float32"], "float16", "question",
            "How stored outputs are rounded.",
            into="plan"),
        _teacher("teacher_outputs_limit", str, "20GiB", "execution",
            "Most bytes that a study may store, such as 4GiB.",
            into="plan"),
        _teacher("teacher_outputs_path", str | None, None, "execution",
            "Folder for them, or storage that all nodes reach (s3://, gs://, abfs://, hdfs://, file://), of "
            "which each node keeps a copy; teacher_outputs in the output folder if not given.",
            into="plan"),
        _how("resume", str | None, None, "command",
            "Go on with that study.",
            metavar="NAME"),
        _how("retry_failed", bool, False, "command",
            "With --resume: run the trials that failed again, each once; nothing else again."),
        _how("set_aside_records", bool, False, "command",
            "For a study whose journal has lost trials: move the records that it does not account for to "
            "set-aside in the study's folder, and go on from the journal."),
        _how("dry_run", bool, False, "command",
            "Show the plan and its cost; run and write nothing."),
        _how("as_json", bool, False, "command",
            "One JSON document on stdout, nothing else.",
            flag="--json"),
        _how("quiet", bool, False, "command",
            "No progress.",
            short="-q"),
        _how("verbose", bool, False, "command",
            "Say more when something fails.",
            short="-v"),
        _how("version", bool, False, "command",
            "Show the version."),
    )
}
# fmt: on


def names_of(part: Part) -> tuple[str, ...]:
    """Return the names of the options that belong to a part, in the order of the help."""
    return tuple(option.name for option in OPTIONS.values() if option.part == part)


def names_into(place: Literal["plan", "config"]) -> tuple[str, ...]:
    """Return the names of the options whose values go unchanged into the plan or into all trial configs."""
    return tuple(option.name for option in OPTIONS.values() if option.into == place)


def default_of(name: str) -> Any:
    """Return the default of an option."""
    return OPTIONS[name].default
