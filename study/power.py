"""Command line for the planner: `python -m study.power NAME --detect 0.005`.

As in `study.launch`, this module runs as `__main__`, so it must not define anything to be pickled.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from study.cli.app import epilog_of, leave_with_exit_code
from study.cli.options import StudyName, with_options
from trainables.display.numbers import listed
from trainables.process.errors import UsageError

if TYPE_CHECKING:
    from analysis.questions.power import Resolution

_EXAMPLES: Final = (
    ("seeds that show half a point of accuracy", "python -m study.power NAME --detect 0.005"),
    ("seeds for several differences, with power 0.9", "python -m study.power NAME --detect 0.005,0.01 --power 0.9"),
    ("the same for a script", "python -m study.power NAME --json"),
)
_MOST_DIFFERENCES: Final = 20
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog=epilog_of(_EXAMPLES),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(("output_dir", "as_json", "verbose"))
def power_of_study(
    name: StudyName,
    detect: Annotated[
        str,
        typer.Option(
            metavar="DIFFERENCE,...", help="Differences to show, in the objective's unit: 0.005 is half a point."
        ),
    ] = "0.005",
    power: Annotated[
        float, typer.Option(help="Probability of showing a true difference of that size, between 0 and 1.")
    ] = 0.8,
    **values: Any,
) -> None:
    """Plan the number of seeds that shows a difference, from a study's own paired spread.

    The comparisons are those of the confirmation, or else of every repeated config with kd. The number of seeds is
    given for one comparison, and after Holm's correction for all comparisons of the study. The least detectable
    difference of the study's own seeds is shown too. Nothing is run or written. Exit codes: 0 done, 1 error, 2 wrong
    usage.
    """
    differences = differences_in(detect)
    study, found = resolution_of(name, values["output_dir"], power)
    if values["as_json"]:
        typer.echo(json.dumps({"study": study, **found.as_dict(differences, power=power)}, indent=2))
    else:
        typer.echo(_in_words(study, found, differences, power))


def resolution_of(name: str, output_dir: Path, power: float) -> "tuple[str, Resolution]":
    """Return a study's name and resolution.

    Args:
        name: study name.
        output_dir: folder with the studies.
        power: probability of detecting a true difference.

    Raises:
        UsageError: the study does not exist, has no comparison with two paired seeds, or `power` is not a probability.
    """
    if not 0 < power < 1:
        raise UsageError(f"--power {power:g}: give a probability between 0 and 1, such as 0.8")
    from analysis.questions.power import find_resolution
    from analysis.reading.trials import compare_methods, summarise_configs
    from analysis.report.folder import find_folder, read_folder

    study = read_folder(find_folder(name, output_dir))
    summarise = compare_methods if study.compares_methods else summarise_configs
    trials = study.records.trials
    found = find_resolution(trials, summarise(trials, seed=study.seed), study.confirmation())
    if found is None or not found.spreads:
        raise UsageError(
            f"study {name!r} has no comparison on two paired seeds, so the spread of its differences is unknown: "
            "confirm it (python -m study.confirm), or start a study with --replicates 2 or more"
        )
    return study.name, found


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


def differences_in(text: str) -> list[float]:
    """Return the differences given by the user."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    found = []
    for part in parts:
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 < value < 1:
            raise UsageError(
                f"--detect {part}: give differences between 0 and 1 in the objective's unit, such as 0.005 for half a "
                "point of accuracy"
            )
        found.append(value)
    if not 1 <= len(found) <= _MOST_DIFFERENCES:
        raise UsageError(f"--detect {text!r}: give 1 to {_MOST_DIFFERENCES} differences, such as 0.005,0.01")
    return found


def _in_words(name: str, found: "Resolution", differences: list[float], power: float) -> str:
    from analysis.questions.power import spread_in_words
    from analysis.statistics.power import LEVEL

    tests = len(found.compared)
    lines = [
        f"study      {name}: {tests} paired comparison{'' if tests == 1 else 's'} of {found.split} {found.objective} "
        f"on {found.seeds} seeds",
        f"spread     {spread_in_words(found)}",
        f"planned    power {power:g}, two-sided level {LEVEL:g}; after Holm: the first of {tests} steps, a lower bound",
        f"{'difference':>21}{'seeds':>9}{'after Holm':>13}",
    ]
    for difference in differences:
        alone, after = (_seeds(found, difference, corrected=corrected, power=power) for corrected in (False, True))
        lines.append(f"{difference:>21g}{alone:>9}{after:>13}")
    single, all_of_them = (found.detectable(corrected=corrected, power=power) for corrected in (False, True))
    sizes = _size(single, tests=1), _size(all_of_them, tests=tests)
    lines.append(f"at n = {found.seeds:<5}least detectable difference: {sizes[0]}, after Holm {sizes[1]}")
    least = min(differences)
    if unsettled := found.unsettled(least):
        lines.append(
            f"unsettled  {listed(unsettled)}: neither a clear sign nor an interval within ±{least:g}; only more seeds "
            "can settle this"
        )
    return "\n".join(lines)


def _seeds(found: "Resolution", difference: float, *, corrected: bool, power: float) -> str:
    from analysis.statistics.power import MOST_SEEDS

    needed = found.needed(difference, corrected=corrected, power=power)
    return f"> {MOST_SEEDS:,}" if needed is None else f"{needed:,}"


def _size(difference: float, *, tests: int) -> str:
    from analysis.statistics.power import fewest_pairs

    least = fewest_pairs(tests=tests)
    return f"none with fewer than {least} seeds" if math.isinf(difference) else f"{difference:.4f}"


if __name__ == "__main__":
    main()
