"""The report at the end of a study: what only the study knows of itself, and the page that is made with it."""

from pathlib import Path
from typing import Any

from search_spaces import SearchSpace
from study.cli.start_command import start_command
from study.plan.plan import StudyPlan
from trainables.process.versions import running_versions


def about_study(plan: StudyPlan) -> dict[str, Any]:
    """What `analysis` cannot know without importing the study: the searched bounds, the command, the versions."""
    space = plan.search_space
    searched = space.parameters if isinstance(space, SearchSpace) else ()
    return {
        "searched": [
            {
                "name": each.name,
                "role": each.role,
                "low": each.low,
                "high": each.high,
                "choices": list(each.choices),
                "log": each.log,
            }
            for each in searched
            if each.role != "fixed"
        ],
        "command": start_command(plan),
        "versions": {name: value for name, value in running_versions().items() if not name.startswith("mlflow.")},
    }


def write_study_report(plan: StudyPlan, notes: list[str]) -> Path | None:
    """Write `report.html` into the study's folder; what goes wrong is a note, as the result stands without it.

    Args:
        plan: of the study, whose records and summary are written.
        notes: of its outcome.
    """
    try:
        from analysis.report.writing import write_report

        return write_report(plan.directory)
    except Exception as error:  # a page is worth no result, whatever is wrong with it
        again = f"python -m analysis.report {plan.name} --output-dir {plan.output_dir}"
        notes.append(f"The report could not be written ({error}); `{again}` tries again.")
        return None
