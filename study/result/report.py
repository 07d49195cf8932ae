"""HTML report at the end of a study, and facts about the study not derivable in `analysis`."""

from pathlib import Path
from typing import Any

from search_spaces import Bounds, MethodComparison, SearchSpace
from study.cli.start_command import start_command
from study.plan.plan import StudyPlan
from trainables.process.versions import running_versions


def about_study(plan: StudyPlan) -> dict[str, Any]:
    """Return the search bounds, the fields searched on a logarithmic scale, the command and the library versions.

    The package `analysis` does not import `study`, and therefore cannot find these facts itself.
    """
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
                **({} if each.step is None else {"step": each.step}),
            }
            for each in searched
            if each.role != "fixed"
        ],
        "log_fields": sorted(_log_fields(space)),
        "command": start_command(plan),
        "versions": {name: value for name, value in running_versions().items() if not name.startswith("mlflow.")},
    }


def _log_fields(space: SearchSpace | MethodComparison) -> set[str]:
    """Return the fields sampled on a logarithmic scale, including the tuned fields of a comparison."""
    if isinstance(space, MethodComparison):
        return {each.name for each in space.tuned if not isinstance(each, Bounds) or each.log}
    return {each.name for each in space.parameters if each.log}


def write_study_report(plan: StudyPlan, notes: list[str]) -> Path | None:
    """Write `report.html` to the study folder. An error becomes a note, because the result is valid without it.

    Args:
        plan: the study. The records and the summary must exist.
        notes: the outcome's notes. Receives a note if the report cannot be written.

    Returns:
        Path to the report, or None if writing failed.
    """
    try:
        from analysis.report.writing import write_report

        return write_report(plan.directory)
    except Exception as error:  # a report failure must not lose the result
        again = f"python -m analysis.report {plan.name} --output-dir {plan.output_dir}"
        notes.append(f"The report could not be written ({error}); try again with `{again}`.")
        return None
