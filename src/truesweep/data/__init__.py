"""Data: sources of samples, tokenizers, encoded samples, batches."""

from truesweep.data.embedded import Embedded
from truesweep.data.files import Files
from truesweep.data.hub import Hub
from truesweep.data.mixture import Mixture
from truesweep.data.samples import Kind, Labelled, Pair, Splits
from truesweep.data.source import Source

__all__ = ["Embedded", "Files", "Hub", "Kind", "Labelled", "Mixture", "Pair", "Source", "Splits"]
