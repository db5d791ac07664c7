"""`truesweep diff`."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from truesweep import text
from truesweep.analysis.differences import ABSENT, Difference
from truesweep.jobs.directory import RunDirectory
from truesweep.record.files import dump_json
from truesweep.report import read_run
from truesweep.report.sides import sides
from truesweep.terminal import print_wide


def diff(first: Path, second: Path, as_json: bool) -> int:
    """Print in what two runs differ: configuration, versions, data, results."""
    a, b = (read_run(RunDirectory.open(path)) for path in (first, second))
    groups = sides(a, b)
    if as_json:
        print(dump_json({name: _plain(found) for name, found in groups.items()}, indent=2))
        return 0
    table = Table(title=f"{a.id} and {b.id}", title_justify="left", title_style="bold")
    for name in ("", a.id, b.id):
        table.add_column(name, overflow="fold")
    for name, found in groups.items():
        table.add_row(Text(name, style="bold"), *([] if found else [Text("the same", "dim")]))
        for one in found:
            table.add_row(f"  {one.key}", *(_shown(v) for v in (one.a, one.b)))
        table.add_section()
    print_wide(table)
    return 0


def _shown(value: Any) -> str:
    return "—" if value is ABSENT else text.value(value, digits=None)


def _plain(found: list[Difference]) -> dict[str, dict[str, Any]]:
    """What one side lacks is left out there, and so is no null."""
    return {
        one.key: {
            side: value for side, value in (("a", one.a), ("b", one.b)) if value is not ABSENT
        }
        for one in found
    }
