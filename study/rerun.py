"""Command line to run a recorded trial again: `python -m study.rerun TRIAL_ID`.

As in `study.launch`, this module runs as `__main__`, so it must not define anything to be pickled.
"""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from study.cli.app import epilog_of, leave_with_exit_code
from study.cli.options import with_options
from trainables.data.image_progress import hide_progress
from trainables.process.environment import restart_as_worker
from trainables.process.errors import ExitCode
from trainables.process.standard_streams import show_result

if TYPE_CHECKING:
    from study.result.reproduction import Difference, Reproduction

_EXAMPLES: Final = (
    ("run a trial of the study NAME again, by its identifier in the records", "python -m study.rerun NAME-0007"),
    ("run a trial of a study in another folder again", "python -m study.rerun NAME-0007 --output-dir /shared/studies"),
    ("use it in a script: exit code 0 means that all bits match", "python -m study.rerun NAME-0007 --quiet --json"),
)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

TrialId = Annotated[
    str,
    typer.Argument(
        metavar="TRIAL_ID",
        help="Trial identifier, as in the column `trial_id` of the records, such as NAME-0007.",
        show_default=False,
    ),
]
Study = Annotated[
    str | None, typer.Option("--name", metavar="STUDY", help="Study of the trial. Default: the first part of TRIAL_ID.")
]


@app.command(
    epilog=epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(("output_dir", "data_root", "as_json", "quiet", "verbose"))
def rerun(
    trial_id: TrialId,
    name: Study = None,
    **values: Any,
) -> None:
    """Run a recorded trial again, and report whether the results match bit for bit.

    The trial runs in this process on one thread, with the study's config, data, teacher and teacher outputs. Nothing is
    written to the study. All recorded train/ and val/ measures are compared, epoch by epoch. Costs are not compared,
    and the test split is not read again. Exit codes: 0 all bits match, 1 some differ (or an error), 2 wrong usage,
    130 interrupted.
    """
    if values["quiet"]:
        hide_progress()
    if __name__ == "__main__":  # not when called by a test
        restart_as_worker()
    from study.plan.checks import check_data_root
    from study.result.reproduction import device_of, find_trial, reasons_to_differ, reproduce

    plan, entry = find_trial(trial_id, name, values["output_dir"])
    if values["data_root"] is not None:
        plan = plan.model_copy(update={"data_root": values["data_root"].absolute()})
    check_data_root(plan)
    from trainables.process.threads import use_one_thread  # imports torch

    use_one_thread()
    try:
        found = reproduce(plan, entry, lambda text: None if values["quiet"] else typer.echo(text, err=True))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    reasons = [] if found.matches else reasons_to_differ(plan, device_of(plan, entry), entry)
    text = json.dumps(_as_json(found, reasons), indent=2) if values["as_json"] else _in_words(found, reasons)
    show_result(f"{text}\n", sys.stdout, elsewhere="the exit code is 0 if all bits match, 1 if they differ")
    raise typer.Exit(ExitCode.OK if found.matches else ExitCode.ERROR)


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


def _as_json(found: "Reproduction", reasons: list[str]) -> dict[str, Any]:
    first = found.differences[0] if found.differences else None
    return {
        "trial_id": found.entry.trial_id,
        "matches": found.matches,
        "epochs": len(found.entry.epochs),
        "numbers": found.numbers,
        "different": len(found.differences),
        "first_difference": _difference_json(first),
        "largest_difference": _difference_json(found.largest),
        "error_recorded": found.entry.error,
        "error_now": found.error,
        "reasons": reasons,
    }


def _difference_json(each: "Difference | None") -> dict[str, Any] | None:
    if each is None:
        return None
    size = None if each.again is None else each.size
    return {
        "epoch": each.epoch,
        "measure": each.measure,
        "recorded": each.recorded,
        "again": each.again,
        "difference": size,
    }


def _in_words(found: "Reproduction", reasons: list[str]) -> str:
    entry, epochs = found.entry, len(found.entry.epochs)
    what = f"{entry.trial_id} ({entry.name}): {found.numbers} numbers of {epochs} epoch{'' if epochs == 1 else 's'}"
    if entry.status is None:
        what += ", recorded so far (the trial has not ended)"
    lines = [f"{what}: {'all bits match' if found.matches else f'{len(found.differences)} differ'}"]
    if found.differences:
        lines.append(f"first     {_difference_in_words(found.differences[0])}")
    if found.largest is not None:
        lines.append(f"largest   {_difference_in_words(found.largest)}")
    if found.error_compared:
        lines += [f"failed    {entry.error}", f"again     {found.error or 'did not fail'}"]
    return "\n".join([*lines, *reasons])


def _difference_in_words(each: "Difference") -> str:
    now = "no longer measured" if each.again is None else f"{each.again!r} now, difference {each.size:.2g}"
    return f"epoch {each.epoch}, {each.measure}: {each.recorded!r} recorded, {now}"


if __name__ == "__main__":
    main()
