"""Runs compared: a ranking, a page that shows them, the differences of two."""

from truesweep.report.comparison import Comparison, compare
from truesweep.report.html import write_report
from truesweep.report.run import Run, read_run
from truesweep.report.words import duration, short_number, si

__all__ = [
    "Comparison",
    "Run",
    "compare",
    "duration",
    "read_run",
    "short_number",
    "si",
    "write_report",
]
