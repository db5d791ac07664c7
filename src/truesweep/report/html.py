"""`report.html`: one file that opens anywhere and asks nothing of the network."""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from truesweep.record.files import dump_json, write_atomic
from truesweep.report.comparison import Comparison
from truesweep.report.payload import payload

SCRIPTS = (
    "base",
    "text",
    "state",
    "colour",
    "chart",
    "curves",
    "curves_focus",
    "parallel",
    "scatter",
    "importance",
    "scaling",
    "table",
    "pair",
    "details",
    "main",
)
"""In the order of their use; together they are one script."""


def write_report(comparison: Comparison, path: Path, filters: Sequence[str] = ()) -> None:
    """Write the page, whole or not at all.

    Args:
        comparison: What it shows.
        path: The file.
        filters: The conditions that left the runs it shows.
    """
    write_atomic(path, render(comparison, filters))


def render(comparison: Comparison, filters: Sequence[str] = ()) -> str:
    """The page."""
    style, script = _part("style.css"), _script()
    # What the page may do: run this one script, and nothing from anywhere else.
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(f"{comparison.title} · truesweep"),
        "style": style,
        "data": embedded(dump_json(payload(comparison, filters))),
        "script": script,
    }
    return re.sub(r"@(\w+)@", lambda place: parts[place[1]], _part("page.html"))


def embedded(json_text: str) -> str:
    """JSON that can stand within a `script` element, whatever its texts hold."""
    return re.sub("[<>&\u2028\u2029]", lambda sign: f"\\u{ord(sign[0]):04x}", json_text)


@cache
def _script() -> str:
    parts = "\n".join(_part(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


@cache
def _part(name: str) -> str:
    return files("truesweep.report").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
