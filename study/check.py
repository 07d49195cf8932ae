"""Command line of the checks: `python -m study.check my_method.py:METHOD`.

As in `study.launch`, this module runs as `__main__`, so it must not define anything to be pickled.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from study.cli.app import epilog_of, leave_with_exit_code
from study.cli.options import with_options
from trainables.process.errors import ExitCode, UsageError
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.modality import is_text

if TYPE_CHECKING:
    from trainables.conformance.running import CheckResult

_EXAMPLES: Final = (
    ("a method in a file", "python -m study.check my_method.py:METHOD"),
    ("on other images", "python -m study.check my_method.py:METHOD --dataset cifar10 --data-root data"),
    ("a network in a file", "python -m study.check my_net.py:make"),
)
_PASSED, _FAILED = "passed", "failed"
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog=epilog_of(_EXAMPLES), context_settings={"help_option_names": ["-h", "--help"]})
@with_options(("dataset", "data_root", "as_json", "verbose"))
def check_code(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:OBJECT",
            help="Method or network of your own, also as package.module:OBJECT or by a name of an installed package.",
        ),
    ],
    **values: Any,
) -> None:
    """Check a method or a network of your own before a study.

    A method has to pass the checks that every method of this package passes: on small trials, its losses are finite and
    train what they should, equal seeds give equal bits, a resumed trial equals one never stopped, and costs are
    counted. Each check prints one line, with the reason and your line if it failed. Nothing is written. Exit codes: 0
    all checks passed, 1 some failed, 2 wrong usage.
    """
    dataset = _dataset(values["dataset"], values["data_root"])
    found, kind = _find(name)
    passed = True
    results = []
    for result in _results(found, kind, dataset, values["data_root"]):
        passed &= result.passed
        results.append(result)
        if not values["as_json"]:
            typer.echo(_line(result))
    if values["as_json"]:
        checks = [{"check": each.check, "case": each.case, "passed": each.passed, "reason": each.reason}
                  for each in results]  # fmt: skip
        typer.echo(json.dumps({"name": found, "kind": kind, "dataset": dataset, "passed": passed, "checks": checks}))
    else:
        failed = sum(not each.passed for each in results)
        typer.echo(f"{len(results) - failed} checks of {found} passed" + (f", {failed} failed" if failed else ""))
    if not passed:
        raise typer.Exit(ExitCode.ERROR)


def _line(result: "CheckResult") -> str:
    words = result.check + (f" ({result.case})" if result.case else "")
    return f"{_PASSED}  {words}" if result.passed else f"{_FAILED}  {words}: {result.reason}"


def _dataset(name: str, root: Path | None) -> str:
    """Return the canonical name of a dataset of images whose files are there."""
    from trainables.data.registry import dataset_info
    from trainables.spec.datasets import check_files

    if is_text(name):
        raise UsageError(f"--dataset {name}: methods and networks are checked on images: give a dataset of images")
    if name.startswith(FOLDER_PREFIX):
        name = f"{FOLDER_PREFIX}{Path(name.removeprefix(FOLDER_PREFIX)).absolute()}"
    try:
        check_files(dataset_info(name), root)
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None
    return name


def _find(text: str) -> tuple[str, str]:
    """Return the name of a method or network, and which of the two it is.

    Raises:
        UsageError: there is no such code, it cannot be loaded, or it is neither.
    """
    from study.plan.own_code import canonical_object
    from trainables.spec.methods import METHOD_SPECS, method_spec
    from trainables.user_code.errors import UserCodeError
    from trainables.user_code.loading import load

    if text in METHOD_SPECS:
        name, kind = text, "method"
    else:
        name = canonical_object(text, ("method", "model"))
        try:
            found = load(name)
            is_method = hasattr(found, "spec") or hasattr(found, "losses") or not callable(found)
            kind = "method" if is_method else "network"
            _ = method_spec(name) if is_method else None
        except UserCodeError as error:
            raise UsageError(str(error)) from None
    if kind == "method" and method_spec(name).modality == "text":
        raise UsageError(f"{text} is a method for text, and methods are checked on images")
    return name, kind


def _results(name: str, kind: str, dataset: str, root: Path | None) -> "Iterator[CheckResult]":
    from trainables.conformance.running import check_user_method, check_user_network

    return check_user_method(name, dataset, root) if kind == "method" else check_user_network(name, dataset)


def main() -> None:
    """Run the command line, then exit with the code of the command."""
    leave_with_exit_code(app)


if __name__ == "__main__":
    main()
