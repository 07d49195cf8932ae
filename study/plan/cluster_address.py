"""Validation of Ray cluster addresses given by `--address`, without Ray and without network access."""

import os
import re
from typing import Final

from trainables.process.errors import UsageError
from trainables.storage.uris import redact_place

_PORT: Final = re.compile("[0-9]{1,5}")
_HIGHEST_PORT: Final = 65_535


def check_address_form(address: str) -> None:
    """Check that an address is `local`, `auto` or `host:port`, before any work starts.

    Ray Client addresses (`ray://host:port`) are rejected. Ray Client would run the search in a process on the cluster,
    without access to the study's journal and records.

    Args:
        address: address in the plan.

    Raises:
        UsageError: the address has another form.
    """
    if address == "local":
        return
    checked = (os.environ.get("RAY_ADDRESS") or "auto") if address == "auto" else address
    option = "--address auto with RAY_ADDRESS" if address == "auto" else "--address"
    if checked.lower().startswith("ray://"):
        raise UsageError(
            f"{option} {redact_place(checked)}: Ray Client is not supported, because the search would run on the "
            "cluster, without access to the journal. Start the study on a machine of the cluster, with --address auto "
            "or the HOST:PORT printed by `ray start --head`, or with `ray job submit`"
        )
    if checked not in ("auto", "local") and _parts(checked) is None:
        raise UsageError(
            f"{option} {redact_place(checked)!r}: give local, auto, or the HOST:PORT printed by `ray start --head`"
        )


def host_and_port(address: str) -> tuple[str, int]:
    """Return host and port of an address, for example `head:6379` or `[::1]:6379`.

    Raises:
        ValueError: the address has no host or no port.
    """
    parts = _parts(address)
    if parts is None:
        raise ValueError(f"{address!r} has no host and port")
    return parts


def _parts(address: str) -> tuple[str, int] | None:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    known = bool(host) and "/" not in host and _PORT.fullmatch(port) is not None and 0 < int(port) <= _HIGHEST_PORT
    return (host, int(port)) if known else None
