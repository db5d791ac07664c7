"""What a source loads: samples of one kind, in three splits."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "pairs", "labelled"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence and its translation."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the name of its class."""

    text: str
    label: str


Sample = str | Pair | Labelled


@dataclass(frozen=True)
class Splits:
    """Training, validation and test samples, all of one kind.

    Attributes:
        train: Training samples, in the order of the data.
        val: Validation samples: what the best checkpoint is chosen by.
        test: Test samples: scored once, at the end.
        kind: `text` (each sample a `str`), `pairs` (a `Pair`) or `labelled` (a `Labelled`).
        fingerprint: SHA-256 (hexadecimal) over the content of the three splits, order included.
        origin: Where the samples came from, as plain JSON values, for the run's provenance.
    """

    train: list[Sample]
    val: list[Sample]
    test: list[Sample]
    kind: Kind
    fingerprint: str
    origin: dict[str, Any]

    @classmethod
    def of(
        cls,
        kind: Kind,
        train: Iterable[Sample],
        val: Iterable[Sample],
        test: Iterable[Sample],
        origin: dict[str, Any],
    ) -> "Splits":
        """Gather three splits and take their fingerprint."""
        parts = list(train), list(val), list(test)
        return cls(*parts, kind=kind, fingerprint=hash_splits(parts), origin=origin)


def content(sample: Sample) -> bytes:
    """The whole content of a sample as bytes, unambiguous: equal bytes only for equal samples."""
    if isinstance(sample, str):
        return sample.encode()
    first, second = (
        (sample.source, sample.target) if isinstance(sample, Pair) else (sample.text, sample.label)
    )
    head = first.encode()
    return b"%d:%b%b" % (len(head), head, second.encode())


def hash_splits(parts: Iterable[list[Sample]]) -> str:
    """SHA-256 (hexadecimal) over the content of samples, order and division included."""
    digest = hashlib.sha256()
    for samples in parts:
        digest.update(b"%d\n" % len(samples))
        for sample in samples:
            data = content(sample)
            digest.update(b"%d:" % len(data))
            digest.update(data)
    return digest.hexdigest()
