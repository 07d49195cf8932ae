"""Functions of the package: start, plan, resume, open and list studies."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pesfkd.handle import Study, is_study
from pesfkd.listing import list_studies
from pesfkd.messages import python_errors
from pesfkd.options import as_arguments, checked_options, option_names, with_keywords
from pesfkd.own_code import refuse_inside_user_code
from pesfkd.running import conduct
from pesfkd.surroundings import restored_process
from study.cluster_files import CLUSTER_FILES, read_cluster_file
from trainables.data.image_progress import hide_progress
from trainables.process.errors import UsageError
from trainables.spec.naming import unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from study.plan.plan import StudyPlan

_RESULTS: Final = Path("study_results")


@with_keywords()
def run(space: str | None = None, *, quiet: bool = False, **options: Any) -> Study:
    """Run a study, then return it.

    Every option of the command line is a keyword here: `--teacher-epochs 10` is `teacher_epochs=10`, and `--set` is
    `hold={"ce_weight": 0.5}`. `pesfkd.resume` continues an interrupted study, or one with a used-up time budget.

    Args:
        space: search space; see `pesfkd.spaces()`.
        quiet: show no progress.
        options: further options.

    Raises:
        UsageError: an option is unknown or out of bounds, or options contradict each other.
        StudyError: the study failed.
        StudyInterrupted: the user interrupted the study. It can be resumed.

    Examples:
        >>> study = pesfkd.run(
        ...     space="temperature", smoke=True, executor="in-process", name="warm", output_dir=folder, quiet=True
        ... )
        >>> study
        <Study warm: temperature on digits, 5 of 5 trials>
    """
    with python_errors(), restored_process():
        if quiet:
            hide_progress()
        refuse_inside_user_code("pesfkd.run")
        planned, given = _new_plan("pesfkd.run", space, options)
        conduct(planned, resumed=False, call=f"pesfkd.run({as_arguments(given)})", quiet=quiet)
    return Study(planned.directory)


@dataclass(frozen=True)
class PlannedStudy:
    """A planned study that has not run.

    Args:
        plan: the checked plan.
        facts: trials, epochs, first configs, teacher passes and notes, as printed by `--dry-run --json`.
        text: the plan in words.
    """

    plan: "StudyPlan"
    facts: dict[str, Any] = field(repr=False)
    text: str

    def __repr__(self) -> str:
        return self.text


@with_keywords("quiet")
def plan(space: str | None = None, *, resume: str | Path | None = None, **options: Any) -> PlannedStudy:
    """Return a study's plan and cost. Nothing is run or written.

    Args:
        space: search space.
        resume: name or folder of an existing study, to plan the remaining work, as `pesfkd.resume` would run it.
        options: further options, as for `pesfkd.run`.

    Raises:
        UsageError: as for `pesfkd.run`.

    Examples:
        >>> pesfkd.plan(space="joint", trials=60).facts["trials"]
        120
    """
    from study.cli.preview import describe_plan
    from study.launch import ended_trials, plan_summary
    from study.search.preview import first_configs

    with python_errors(), restored_process():
        ended = None
        if resume is None:
            planned, _ = _new_plan("pesfkd.plan", space, options, dry_run=True)
        else:
            planned, _ = _resumed_plan("pesfkd.plan", resume, {"space": space, **options}, {"dry_run": True})
            ended = ended_trials(planned, sets_aside=False)
        text = describe_plan(planned, first_configs(planned), ended)
        return PlannedStudy(planned, plan_summary(planned, ended), text)


@with_keywords("smoke", "list_spaces")
def resume(
    name: str | Path,
    *,
    retry_failed: bool = False,
    set_aside_records: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Study:
    """Run a study's remaining work and return the study.

    Args:
        name: study name in `output_dir`, or path to the study folder.
        retry_failed: run each failed trial once more.
        set_aside_records: if the journal has lost trials, move the records away, and continue from the journal.
        quiet: show no progress.
        options: options that may change, e.g. `executor`, and a confirmation.

    Raises:
        UsageError: the study does not exist, or an option contradicts the study's plan.
        StudyError: the study failed.
        StudyInterrupted: the user interrupted the study again.

    Examples:
        >>> pesfkd.resume("ran", output_dir=folder, quiet=True).complete
        True
    """
    with python_errors(), restored_process():
        if quiet:
            hide_progress()
        refuse_inside_user_code("pesfkd.resume")
        own = {"set_aside_records": True} if set_aside_records else {}
        planned, given = _resumed_plan("pesfkd.resume", name, options, own)
        call = f"pesfkd.resume({as_arguments({'name': str(name), **given}).removeprefix('name=')})"
        conduct(planned, resumed=True, call=call, quiet=quiet, retry_failed=retry_failed, sets_aside=set_aside_records)
    return Study(planned.directory)


def open_study(name: str | Path, output_dir: str | Path = _RESULTS) -> Study:
    """Open a finished or unfinished study. Nothing is run.

    Args:
        name: path to the study folder, or study name in `output_dir`.
        output_dir: studies folder.

    Raises:
        UsageError: the study does not exist.
    """
    with python_errors():
        return Study(_directory_of(name, Path(output_dir).expanduser()))


def studies(output_dir: str | Path = _RESULTS) -> "pd.DataFrame":
    """Return a table with one row per study in a folder, oldest first.

    Args:
        output_dir: studies folder.

    Raises:
        UsageError: the folder does not exist.
    """
    import pandas as pd

    columns = ("name", "space", "dataset", "method", "trials", "planned", "complete", "score", "directory")
    with python_errors():
        return pd.DataFrame(list_studies(Path(output_dir).expanduser()), columns=list(columns))


def spaces() -> dict[str, Any]:
    """Return every search space with question and parameters.

    Examples:
        >>> sorted(pesfkd.spaces())[:2]
        ['adapter_training', 'adapter_why']
    """
    from study.launch import spaces_as_dict

    return spaces_as_dict()


def cluster_file(name: str) -> str:
    """Return a template for starting a cluster and a study on this cluster.

    Args:
        name: `slurm` or another template name; the error message lists all names.

    Raises:
        UsageError: the template does not exist.
    """
    if name not in CLUSTER_FILES:
        raise UsageError(unknown_name("cluster file", str(name), CLUSTER_FILES))
    return read_cluster_file(name)


def _new_plan(
    call: str, space: str | None, options: dict[str, Any], *, dry_run: bool = False
) -> "tuple[StudyPlan, dict[str, Any]]":
    from study.cli.request import new_plan
    from study.launch import check_question

    values, given = checked_options({"space": space, **options}, accepted=option_names(), call=call)
    values["dry_run"] = dry_run
    check_question(values)
    return new_plan(values, given), given


def _resumed_plan(
    call: str, name: str | Path, options: dict[str, Any], own: dict[str, Any]
) -> "tuple[StudyPlan, dict[str, Any]]":
    from study.cli.request import resumed_plan

    values, given = checked_options(options, accepted=option_names("smoke", "name"), call=call)
    directory = _directory_of(name, values["output_dir"])
    return resumed_plan(directory.name, directory.parent, given | own), given


def _directory_of(name: str | Path, output_dir: Path) -> Path:
    """Return a study's folder, given the path, or the name in the output folder.

    Raises:
        UsageError: the name is neither a text nor a path.
    """
    if not isinstance(name, str | os.PathLike) or not str(name):
        raise UsageError(f"{name!r}: give the name of a study, or the path of its folder")
    path = Path(name).expanduser()
    if path.name != str(name) or (is_study(path) and not is_study(output_dir / path)):
        return path if path.name not in ("", "..") else path.absolute()
    return output_dir / path
