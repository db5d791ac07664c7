"""Runs compared: a ranking, a page that shows them, the differences of two."""

from truesweep.report.comparison import Comparison, compare
from truesweep.report.html import write_report

__all__ = [
    "Comparison",
    "compare",
    "write_report",
]
