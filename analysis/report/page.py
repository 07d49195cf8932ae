"""Render a report as one HTML file without network requests.

All text from records passes the template's escaping. In addition, the page's content security policy forbids all
requests, and allows only the page's two scripts, identified by their digests.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.report.content import Report
from trainables.storage.files import replace_file

_JOINT: Final = re.compile(r"([_+/,:=])(?=\w)")
_LONG_WORD: Final = 24  # letters in a breakable word
_TEMPLATES: Final = Path(__file__).parent / "template"
# In JSON these escapes denote the same characters. In a page they cannot end a script or begin a comment.
_AS_ESCAPES: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}


def page(report: Report) -> str:
    """Render the report as HTML; a report without figures and tables contains no script."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "breakable": _breakable,
        "as_json": _as_json,
        "base64": _as_base64,
    }
    drawn = any(section.pictures for section in report.sections)
    live = drawn or bool(report.best.line) or any(section.tables for section in report.sections)
    library, script = _library() if drawn else "", _read("page.js") if live else ""
    return environment.get_template("page.html").render(
        report=report,
        style=Markup(_read("page.css")),  # noqa: S704 - ours
        library=Markup(library),  # noqa: S704 - plotly's
        script=Markup(script),  # noqa: S704 - ours
        policy=_policy([each for each in (library, script) if each]),
    )


def write_page(report: Report, path: Path) -> None:
    """Write the page atomically.

    Raises:
        OSError: the page cannot be written.
    """
    replace_file(path, page(report).encode())


def _policy(scripts: Sequence[str]) -> str:
    """Build the content security policy: only content of the page itself, and only the given scripts."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _library() -> str:
    """Load plotly's JavaScript from the installed package."""
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    # The library is embedded between script tags, so it must contain no closing tag.
    assert "</script" not in text.lower()
    return text


@cache
def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _breakable(name: str) -> Markup:
    """Escape a name, with possible breaks at spaces, and in a long word after the characters that join its parts."""
    words = (
        _JOINT.sub(r"\1<wbr>", str(escape(word))) if len(word) > _LONG_WORD else str(escape(word))
        for word in name.split(" ")
    )
    return Markup(" ".join(words))  # noqa: S704 - escaped


def _as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _as_json(value: Any) -> Markup:
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_AS_ESCAPES))  # noqa: S704
