"""Data: sources of samples, tokenizers, encoded samples, batches."""

from truesweep.data.files import Files
from truesweep.data.samples import Kind, Labelled, Pair, Splits
from truesweep.data.source import Source

__all__ = ["Files", "Kind", "Labelled", "Pair", "Source", "Splits"]
