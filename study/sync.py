"""Command line to deliver a study to MLflow again: `python -m study.sync NAME`.

The study folder's content is sent to a tracking server unreachable at the end of the study, or to another server.
Nothing is run.
"""

from typing import TYPE_CHECKING, Any, Final

import typer

from study.cli.app import command_line, epilog_of, leave_with_exit_code, stdout_for_results_only
from study.cli.options import StudyName, with_options
from study.cli.request import resumed_plan
from study.running.conduct import deliver_study, undelivered

if TYPE_CHECKING:
    from study.plan.plan import StudyPlan

_EXAMPLES: Final = (
    ("deliver what the server missed, once it is reachable again", "python -m study.sync NAME"),
    ("deliver a study in another output folder", "python -m study.sync NAME --output-dir runs"),
    ("deliver to another server", "python -m study.sync NAME --tracking-uri http://127.0.0.1:5000"),
)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog=epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(("tracking_uri", "output_dir", "set_aside_records", "quiet", "verbose"))
def sync(name: StudyName, **values: Any) -> None:
    """Deliver the trials, result and files of a study to MLflow, if they are missing there.

    Repeated calls create no duplicate runs. An unfinished study is delivered up to its current state and can still be
    resumed. Exit codes: 0 everything is delivered, 1 error, 2 wrong usage, 3 MLflow did not accept everything.
    """
    given = {} if values["tracking_uri"] is None else {"tracking_uri": values["tracking_uri"]}
    plan = resumed_plan(name, values["output_dir"], given, runs=False)
    _deliver(plan, sets_aside=values["set_aside_records"], quiet=values["quiet"], verbose=values["verbose"])


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


def _deliver(plan: "StudyPlan", *, sets_aside: bool, quiet: bool, verbose: bool) -> None:
    with stdout_for_results_only(verbose=verbose) as stdout:
        from study.cli.progress import StudyProgress
        from trainables.process.errors import ExitCode
        from trainables.process.standard_streams import show_result

        progress = StudyProgress(plan, quiet=quiet)
        run, outcome = deliver_study(plan, progress, command=command_line("study.sync"), sets_aside=sets_aside)
        if outcome.tracking_error is not None:
            typer.echo(undelivered(plan, outcome.tracking_error), err=True)
            raise typer.Exit(ExitCode.UNDELIVERED)
        ended = sum(entry.status is not None for entry in run.ledger.entries.values())
        text = f"MLflow has all {ended} ended trials of {plan.name} and the result\n"
        show_result(text, stdout, elsewhere="everything is delivered")


if __name__ == "__main__":
    main()
