"""Runs compared: a ranking, a page that shows them, the differences of two."""

from truesweep.report.comparison import Comparison, compare
from truesweep.report.html import write_report
from truesweep.report.run import Run, read_run

__all__ = [
    "Comparison",
    "Run",
    "compare",
    "read_run",
    "write_report",
]
