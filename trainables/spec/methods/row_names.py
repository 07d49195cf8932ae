"""Method names in tables and figures, derived from the fields in a trial's config or record."""

from collections.abc import Mapping
from typing import Any, Final

from trainables.user_code.reference import canonical, is_canonical

_USUAL_OBJECT: Final = "METHOD"
_DIGITS: Final = 6

# Fields that change the name of a method with an adapter, each with the value that adds nothing to the name.
_OF_ADAPTERS: Final[dict[str, str | int]] = {"pesf_variant": "paper", "adapter_training": "joint", "adapter_count": 1}
NAMING_FIELDS: Final = ("method", "adapter", *_OF_ADAPTERS)


def short_name(method: str) -> str:
    """Return a method's name in tables: the name in the config or, for a user method, file and digest.

    `my_method.py:METHOD@0123456789abcdef` becomes `my_method-012345`, and `my_method.py:OTHER@...` becomes
    `my_method:OTHER-012345`.
    """
    if not is_canonical(method):
        return method
    own = canonical(method)
    name = "" if own.name == _USUAL_OBJECT else f":{own.name}"
    return f"{own.title.removesuffix('.py')}{name}-{own.digest[:_DIGITS]}"


def method_name(fields: Mapping[str, Any]) -> str:
    """Return a method's name in tables and figures, such as `dkd+adapter` or `pesf_kd+frozen`.

    Args:
        fields: `NAMING_FIELDS` from a config or record by name. Fields other than `method` may be missing or None, as
            in records from earlier versions.
    """
    method = short_name(str(fields["method"]))
    if method != "pesf_kd" and not fields.get("adapter"):
        return method
    parts = [method] if method == "pesf_kd" else [method, "adapter"]
    own = {name: fields.get(name) or plain for name, plain in _OF_ADAPTERS.items()}
    changed = {name: str(value) for name, value in own.items() if value != _OF_ADAPTERS[name]}
    if "adapter_count" in changed:
        changed["adapter_count"] = f"average-of-{changed['adapter_count']}"
    return "+".join([*parts, *changed.values()])
