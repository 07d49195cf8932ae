"""User code in the options of a study: every file, module or package name is replaced by a canonical name."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from search_spaces import space_names
from study.plan.user_code import with_canonical_names
from trainables.process.errors import UsageError
from trainables.spec.architectures import check_model_name
from trainables.spec.datasets import check_dataset_name
from trainables.spec.methods import METHOD_SPECS
from trainables.spec.naming import unknown_name
from trainables.user_code.errors import UserCodeError
from trainables.user_code.installed import Kind, explain, installed_names, installed_reference
from trainables.user_code.loading import canonical_name
from trainables.user_code.reference import FORMS, looks_like_reference

_WITH_ADAPTER: Final = "+adapter"
_KINDS: Final[Mapping[str, Kind]] = {
    "method": "method",
    "space": "space",
    "student": "model",
    "teacher": "model",
    "dataset": "dataset",
}


def with_canonical_code(values: Mapping[str, Any], *, dataset: str) -> dict[str, Any]:
    """Return options with user code, for example `my_method.py:METHOD`, replaced by canonical names.

    The options are networks, --method, --methods and --space. They may also have names declared by installed packages.
    The sources are registered in this process and are not executed.

    Args:
        values: options by name.
        dataset: study dataset.

    Raises:
        UsageError: the code cannot be found or read, or a name has two meanings.
    """
    found = dict(values)
    for option, kind in _KINDS.items():
        if isinstance(text := found.get(option), str):
            found[option] = _without_package(f"--{option}", kind, text)
    for option in ("search", "prior"):
        if found.get(option):
            found[option] = [_by_field(option, argument) for argument in found[option]]
    found = with_canonical_names(found, dataset=dataset)
    for option in ("method", "space"):
        if isinstance(text := found.get(option), str):
            found[option] = _canonical(f"--{option}", text)
    if isinstance(text := found.get("methods"), str):
        found["methods"] = ",".join(_row(each.strip()) for each in text.split(","))
    return found


def canonical_object(text: str, kinds: Sequence[Kind]) -> str:
    """Return the canonical name of an object in a file, a module or an installed package.

    Args:
        text: reference or name, as typed.
        kinds: kinds to look up, if the text is a name declared by an installed package.

    Raises:
        UsageError: the object does not exist.
    """
    for kind in kinds:
        if not looks_like_reference(name := _without_package(text, kind, text)):
            continue
        return _canonical(text, name)
    names = [each for kind in kinds for each in installed_names(kind)]
    added = f", or a name that an installed package adds ({', '.join(names)})" if names else ""
    raise UsageError(f"{text!r} names no object: give {FORMS}{added}")


def _without_package(flag: str, kind: Kind, name: str) -> str:
    """Return the canonical name of an object declared by an installed package; other names unchanged."""
    try:
        reference = installed_reference(kind, name, is_ours=lambda each: _is_ours(kind, each))
    except UserCodeError as error:
        raise UsageError(f"{flag}: {error}") from None
    if reference is None:
        _refuse_unknown(flag, kind, name)
        return name
    try:
        return canonical_name(reference)
    except UserCodeError as error:
        raise UsageError(f"{flag}: {explain(kind, name, error)}") from None


def _refuse_unknown(flag: str, kind: Kind, name: str) -> None:
    """Reject a misspelt name from an installed package. Without packages, other checks reject unknown names."""
    names = installed_names(kind)
    if difflib.get_close_matches(name, names, n=1, cutoff=0.6) and not _is_ours(kind, name):
        raise UsageError(f"{flag}: {unknown_name(f'{kind} of an installed package', name, names)}")


def _is_ours(kind: Kind, name: str) -> bool:
    if kind in ("method", "space"):
        return name in (METHOD_SPECS if kind == "method" else space_names())
    try:
        _ = check_model_name(name) if kind == "model" else check_dataset_name(name)
    except ValueError:
        return False
    return True


def _by_field(option: str, argument: str) -> str:
    field, separator, text = argument.partition("=")
    if field.strip() != "student":
        return argument
    flag = f"--{option} {argument}"
    return f"{field}{separator}{','.join(_without_package(flag, 'model', each.strip()) for each in text.split(','))}"


def _row(text: str) -> str:
    name = text.removesuffix(_WITH_ADAPTER)
    return _canonical("--methods", _without_package("--methods", "method", name)) + text[len(name) :]


def _canonical(flag: str, text: str) -> str:
    if not looks_like_reference(text):
        return text
    try:
        return canonical_name(text)
    except UserCodeError as error:
        raise UsageError(f"{flag}: {error}") from None
