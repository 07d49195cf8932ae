"""Command line for the templates: `python -m study.cluster_files slurm > study.sbatch`."""

from typing import Annotated

import typer

from study.cli.app import leave_with_exit_code
from study.cluster_files import CLUSTER_FILES, read_cluster_file
from trainables.process.errors import UsageError
from trainables.spec.naming import unknown_name

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="|".join(CLUSTER_FILES), help="Template to print.", show_default=False)
    ] = None,
) -> None:
    """Print a template that starts a cluster and a study on it. Adapt the lines marked CHANGE.

    Without NAME, list the templates.
    """
    if name is None:
        for each, (file, what) in CLUSTER_FILES.items():
            typer.echo(f"{each:12} {file:18} {what}")
        return
    if name not in CLUSTER_FILES:
        raise UsageError(unknown_name("cluster file", name, CLUSTER_FILES))
    typer.echo(read_cluster_file(name), nl=False)


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app, "python -m study.cluster_files")


if __name__ == "__main__":
    main()
