"""Plans as the launcher makes them of a command line."""

import shlex
from pathlib import Path

import typer

from study.cli.app import options_with_config
from study.cli.request import new_plan
from study.launch import app
from study.plan.plan import StudyPlan


def plan_of(words: list[str] | str, output_dir: Path | None = None) -> StudyPlan:
    """The plan that the launcher makes of a command line."""
    given = shlex.split(words) if isinstance(words, str) else list(words)
    given += [] if output_dir is None else ["--output-dir", str(output_dir)]
    context = typer.main.get_command(app).make_context("launch", given)
    return new_plan(*options_with_config(context, context.params))
