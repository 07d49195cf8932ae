"""Command line for the checks: `python -m study.check my_method.py:METHOD`, or `--dataset my_data.py:make`.

As in `study.launch`, this module runs as `__main__`, so it must not define anything to be pickled.
"""

import json
from collections.abc import Iterator
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from study.cli.app import epilog_of, leave_with_exit_code
from study.cli.options import with_options
from study.plan.options import default_of
from trainables.process.errors import ExitCode, UsageError
from trainables.spec.datasets import DATASETS, FOLDER_PREFIX, check_dataset_name, check_files, expand_home
from trainables.spec.modality import is_text

if TYPE_CHECKING:
    from trainables.conformance.running import CheckResult

_EXAMPLES: Final = (
    ("a method in a file", "python -m study.check my_method.py:METHOD"),
    ("on other images", "python -m study.check my_method.py:METHOD --dataset cifar10 --data-root data"),
    ("a network in a file", "python -m study.check my_net.py:make"),
    ("a dataset in a file", "python -m study.check --dataset my_data.py:make"),
)
_PASSED, _FAILED = "passed", "failed"
_BUILT_IN: Final = tuple(DATASETS)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog=epilog_of(_EXAMPLES), context_settings={"help_option_names": ["-h", "--help"]})
@with_options(("dataset", "data_root", "as_json", "verbose"))
def check_code(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE.py:OBJECT",
            help="Method, network or dataset of your own, also as package.module:OBJECT or by a name of an installed "
            "package. It can be left out to check the dataset of --dataset.",
        ),
    ] = None,
    **values: Any,
) -> None:
    """Check a method, a network or a dataset of your own before a study.

    A method has to pass the checks that every method of this package passes: on small trials, its losses are finite and
    train what they should, equal seeds give equal bits, a resumed trial equals one never stopped, and costs are
    counted. A dataset has to give the same images and labels in every call. Each check prints one line, with the reason
    and your line if it failed. Nothing is written. Exit codes: 0 all checks passed, 1 some failed, 2 wrong usage.
    """
    dataset, root = _dataset(values["dataset"]), values["data_root"]
    found, kind = (None, "dataset") if name is None else _find(name)
    if kind == "dataset":
        if found is not None and dataset != default_of("dataset"):
            raise UsageError(f"{name} is a dataset, and so is --dataset {values['dataset']}: name one of them")
        dataset = found or dataset
    if found is None and dataset in _BUILT_IN:
        raise UsageError(
            "nothing to check: name a method or network, such as my_method.py:METHOD, or a dataset of your own, as in "
            "--dataset my_data.py:make"
        )
    passed = True
    results = []
    for result in _results(found, kind, dataset, root):
        passed &= result.passed
        results.append(result)
        if not values["as_json"]:
            typer.echo(_line(result))
    checked = found or dataset
    if values["as_json"]:
        checks = [{"check": each.check, "case": each.case, "passed": each.passed, "reason": each.reason}
                  for each in results]  # fmt: skip
        typer.echo(json.dumps({"name": checked, "kind": kind, "dataset": dataset, "passed": passed, "checks": checks}))
    else:
        failed = sum(not each.passed for each in results)
        typer.echo(f"{len(results) - failed} checks of {checked} passed" + (f", {failed} failed" if failed else ""))
    if not passed:
        raise typer.Exit(ExitCode.ERROR)


def _line(result: "CheckResult") -> str:
    words = result.check + (f" ({result.case})" if result.case else "")
    return f"{_PASSED}  {words}" if result.passed else f"{_FAILED}  {words}: {result.reason}"


def _dataset(name: str) -> str:
    """Return the canonical name of an image dataset."""
    from study.plan.own_code import with_canonical_code

    if is_text(name):
        raise UsageError(f"--dataset {name}: methods and networks are checked on images: give a dataset of images")
    if name.startswith(FOLDER_PREFIX):
        name = f"{FOLDER_PREFIX}{Path(name.removeprefix(FOLDER_PREFIX)).absolute()}"
    try:
        found = check_dataset_name(with_canonical_code({"dataset": expand_home(name)}, dataset=name)["dataset"])
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None
    return found


def _check_files(dataset: str, root: Path | None) -> None:
    from trainables.data.registry import dataset_info

    try:
        check_files(dataset_info(dataset), root)
    except ValueError as error:
        raise UsageError(f"--dataset: {error}") from None


def _find(text: str) -> tuple[str, str]:
    """Return the name and kind of user code: method, network or dataset.

    Raises:
        UsageError: the code does not exist, cannot be loaded, or is of no known kind.
    """
    from study.plan.own_code import canonical_object
    from trainables.spec.methods import METHOD_SPECS, method_spec
    from trainables.user_code.errors import UserCodeError
    from trainables.user_code.loading import load

    if text in METHOD_SPECS:
        name, kind = text, "method"
    else:
        name = canonical_object(text, ("method", "model", "dataset"))
        try:
            kind = _kind(load(name))
            _ = method_spec(name) if kind == "method" else None
        except UserCodeError as error:
            raise UsageError(str(error)) from None
    if kind == "method" and method_spec(name).modality == "text":
        raise UsageError(f"{text} is a method for text, and methods are checked on images")
    return name, kind


def _kind(found: object) -> str:
    """Return the kind of user object. A network factory takes a number of classes, a dataset factory no arguments."""
    if hasattr(found, "spec") or hasattr(found, "losses") or not callable(found):
        return "method"
    try:
        parameters = signature(found)
    except (TypeError, ValueError):  # builtins have no signature
        return "network"
    return "dataset" if _takes(parameters) and not _takes(parameters, num_classes=2, in_channels=1) else "network"


def _takes(parameters: Signature, **arguments: int) -> bool:
    try:
        parameters.bind(**arguments)
    except TypeError:
        return False
    return True


def _results(name: str | None, kind: str, dataset: str, root: Path | None) -> "Iterator[CheckResult]":
    from trainables.conformance.running import check_user_dataset, check_user_method, check_user_network

    if dataset not in _BUILT_IN:
        for result in check_user_dataset(dataset, root):
            yield result
            if not result.passed:
                return
    _check_files(dataset, root)
    if name is not None and kind == "method":
        yield from check_user_method(name, dataset, root)
    elif name is not None and kind == "network":
        yield from check_user_network(name, dataset)


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app)


if __name__ == "__main__":
    main()
