"""Study options as a config file in YAML, with help texts and defaults as comments."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from study.cli.config_file import NOT_IN_A_FILE, key_of
from study.cli.start_command import options_of
from study.plan.options import OPTIONS, Option
from study.plan.plan import StudyPlan
from trainables.storage.uris import redact_place

_WIDTH: Final = 100
_MAPPINGS: Final = ("set", "search", "limit", "prior")
# Given options missing from every plan, or left out by a plan because they apply to one run.
_OF_ONE_RUN: Final = ("name", "time_budget", "download")
_WITHOUT_QUOTES: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*|[0-9]+(\.[0-9]+)?")
_WORDS_OF_YAML: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def config_text(plan: StudyPlan, given: Mapping[str, Any]) -> str:
    """Return a config file for a study with the same question and execution.

    All options that define the study are written with values, because later versions may have other defaults. The
    others are comments with defaults. Secrets in URIs are masked.

    Args:
        plan: study plan.
        given: options given by the user.
    """
    values: dict[str, Any] = {}
    for name, value in options_of(plan):
        if name in _MAPPINGS:
            field, _, text = str(value).partition("=")
            values.setdefault(name, {})[field] = text
        else:
            values[name] = value
    values |= {name: given[name] for name in _OF_ONE_RUN if given.get(name) is not None}
    lines = [
        "# Options of a study, for: python -m study.launch --config FILE",
        "# Options on the command line override those here. Commented options have their defaults.",
    ]
    panel = ""
    for option in OPTIONS.values():
        if option.name in NOT_IN_A_FILE:
            continue
        if option.panel != panel:
            panel = option.panel
            lines += ["", f"# ---- {panel} ----"]
        lines += ["", *textwrap.wrap(option.help, _WIDTH, initial_indent="# ", subsequent_indent="# ")]
        lines += _lines_of(option, values.pop(key_of(option), None))
    assert not values, f"options without a declaration: {', '.join(values)}"
    return "\n".join(lines) + "\n"


def _lines_of(option: Option, value: Any) -> list[str]:
    key = key_of(option)
    if value is None:
        default = "null" if option.default is None else _scalar(option.default)
        return [f"# {key}: {default}"]
    if isinstance(value, dict):
        return [f"{key}:", *(f"  {field}: {_scalar(text)}" for field, text in value.items())]
    return [f"{key}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    """Return a value in YAML, in quotes if YAML might read it as something other than a text or a number."""
    if isinstance(value, bool):
        return str(value).lower()
    text = redact_place(str(value)) if isinstance(value, str | Path) else str(value)
    if isinstance(value, int | float) or (
        _WITHOUT_QUOTES.fullmatch(text) and text.lower() not in _WORDS_OF_YAML and not text.startswith("0")
    ):
        return text
    return "'" + text.replace("'", "''") + "'" if "\n" not in text and text.isprintable() else _escaped(text)


def _escaped(text: str) -> str:
    import json

    return json.dumps(text)
