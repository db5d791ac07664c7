"""`report.html`: one file that opens anywhere and asks nothing of the network."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
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
    style, script = part("style.css"), _script()
    parts = {
        "policy": html.escape(policy(style, script)),
        "title": html.escape(f"{comparison.title} · truesweep"),
        "style": style,
        "data": embedded(dump_json(payload(comparison, filters))),
        "script": script,
    }
    return put_into("page.html", parts)


def put_into(template: str, parts: Mapping[str, str]) -> str:
    """A page from its template, whose `@name@` stands for a part."""
    return re.sub(r"@(\w+)@", lambda place: parts[place[1]], part(template))


def policy(style: str, script: str = "") -> str:
    """What a page may do: run this one script, if any, and nothing from anywhere else."""
    scripts = f"script-src {_digest(script)}; " if script else ""
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; {scripts}"
        "base-uri 'none'; form-action 'none'"
    )


def embedded(json_text: str) -> str:
    """JSON that can stand within a `script` element, whatever its texts hold."""
    return re.sub("[<>&\u2028\u2029]", lambda sign: f"\\u{ord(sign[0]):04x}", json_text)


@cache
def _script() -> str:
    parts = "\n".join(part(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


@cache
def part(name: str) -> str:
    """A file of the pages."""
    return files("truesweep.report").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
