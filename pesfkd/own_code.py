"""User code given as an object: a function or class is replaced by a reference to the defining file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.process.errors import UsageError
from trainables.user_code.loading import is_executing

_ADVICE = "put it into a file and give the text 'FILE.py:NAME'; in a notebook, the magic %%writefile FILE.py does this"


def reference_to(found: Callable[..., Any]) -> str:
    """Return the text that names a function or class, such as `/there/net.py:make`.

    Trials run in other processes, which read the file. An object without a file is refused.

    Args:
        found: function or class in a module.

    Raises:
        UsageError: the object is defined in a notebook or script, inside a function, or without a name.
    """
    name, module = getattr(found, "__qualname__", ""), str(getattr(found, "__module__", ""))
    if not name.isidentifier():
        raise UsageError(
            f"{name or found!r} cannot be named by other processes, because it is a lambda, a method, an object or "
            f"defined inside a function: define it by `def` or `class` at the top of a file, and {_ADVICE}"
        )
    if module == "__main__":
        raise UsageError(
            f"{name} is defined in the running notebook or script, which the processes of a study cannot import: "
            f"{_ADVICE}"
        )
    file = getattr(sys.modules.get(module), "__file__", None)
    if getattr(sys.modules.get(module), name, None) is not found or file is None or not Path(file).is_file():
        raise UsageError(f"{name} is not what the module {module} defines under this name: {_ADVICE}")
    return f"{module}:{name}" if "." in module else f"{file}:{name}"


def refuse_inside_user_code(call: str) -> None:
    """Check that a file imported by a study does not start a study itself.

    Args:
        call: name of the called function.

    Raises:
        UsageError: the file calls the function during import, and would start a study within a study.
    """
    if is_executing():
        raise UsageError(
            f'this file calls {call} when a study imports it: put the call below `if __name__ == "__main__":`, or into '
            "another file"
        )
