"""Runs compared: a ranking, a page that shows them, the differences of two."""

from truesweep.report.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
