"""One study run by a command, from a checked plan to the exit code."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer

from study.cli.app import command_line, stdout_for_results_only
from study.cli.commands import interrupted_at_once, resume_command
from study.running.conduct import check_folder, conduct_study, undelivered
from trainables.process.errors import ExitCode
from trainables.process.standard_streams import show_result

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan


def run_plan(plan: "StudyPlan", values: dict[str, Any], *, resumed: bool, command: str = "study.launch") -> None:
    """Run a study's remaining work, then show and store the result.

    Args:
        plan: the study.
        values: command-line options: `quiet`, `verbose`, `as_json` and, if given, `retry_failed` and
            `set_aside_records`.
        resumed: whether the study exists already.
        command: name of the module started by the user, for the record.

    Raises:
        typer.Exit: always, with the exit code.
    """
    check_folder(plan.output_dir)
    shows_all = values["verbose"] or plan.executor == "in-process"  # trial output, including a debugger's
    with _resume_command_shown(plan), stdout_for_results_only(verbose=shows_all) as stdout, ExitStack() as stack:
        from study.running.template import template_ahead

        stack.enter_context(template_ahead(plan, shows_output=values["verbose"]) if not resumed else nullcontext())
        from study.cli.progress import StudyProgress
        from study.running.same_failure import ended_by_same_failure

        run, outcome = conduct_study(
            plan,
            StudyProgress(plan, quiet=values["quiet"]),
            resumed=resumed,
            command=command_line(command),
            retry_failed=values.get("retry_failed", False),
            sets_aside=values.get("set_aside_records", False),
        )
        from study.result.terminal import outcome_in_words

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
    if run.failed_alike:
        message = ended_by_same_failure(run.ledger, with_traceback=values["quiet"])
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(ExitCode.ERROR)
    if outcome.tracking_error:
        raise typer.Exit(ExitCode.UNDELIVERED)
    raise typer.Exit(ExitCode.FAILED_TRIALS if outcome.summary["trials"]["failed"] else ExitCode.OK)


@contextmanager
def _resume_command_shown(plan: "StudyPlan") -> Iterator[None]:
    """On KeyboardInterrupt, print the resume command and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(interrupted_at_once(plan), err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
