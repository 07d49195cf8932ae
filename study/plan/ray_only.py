"""Options that not every executor supports."""

from typing import Any, Final

# Execution fields that one process cannot support: the values accepted by --executor in-process, and the reason to
# reject others.
RAY_ONLY: Final[dict[str, tuple[tuple[Any, ...], str]]] = {
    "max_concurrent": ((None, 1), "runs one trial after the other"),
    "pack": ((1, None), "runs one trial after the other, and packs none"),
    "workers_per_trial": ((1,), "has no processes of a trial"),
    "trial_timeout": ((None,), "cannot end a trial that hangs, which would be this process"),
    "address": (("local",), "uses no cluster"),
    "ship_code": ((False,), "uses no nodes that code could be sent to"),
}
