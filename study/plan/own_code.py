"""Code of the user in the options of a study: every name of a file or module becomes a canonical name."""

from collections.abc import Mapping
from typing import Any, Final

from study.plan.user_code import with_canonical_networks
from trainables.process.errors import UsageError
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name
from trainables.user_code.reference import looks_like_reference

_WITH_ADAPTER: Final = "+adapter"


def with_canonical_names(values: Mapping[str, Any], *, dataset: str) -> dict[str, Any]:
    """Return options with code of the user, as `my_method.py:METHOD`, replaced by its canonical name.

    The options are those of networks, --method, --methods and --space. The sources become known to this process.
    Nothing of them is executed.

    Args:
        values: options by name.
        dataset: dataset of the study.

    Raises:
        UsageError: the code cannot be found or read.
    """
    found = with_canonical_networks(values, dataset=dataset)
    for option in ("method", "space"):
        if isinstance(text := found.get(option), str):
            found[option] = _canonical(f"--{option}", text)
    if isinstance(text := found.get("methods"), str):
        found["methods"] = ",".join(_canonical_row(each.strip()) for each in text.split(","))
    return found


def _canonical_row(text: str) -> str:
    name = text.removesuffix(_WITH_ADAPTER)
    return _canonical("--methods", name) + text[len(name) :]


def _canonical(flag: str, text: str) -> str:
    if not looks_like_reference(text):
        return text
    try:
        return canonical_name(text)
    except UserCodeError as error:
        raise UsageError(f"{flag}: {error}") from None
