"""Rows of a table as samples: which columns are needed, and what may stand in them."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truesweep.data.conversations import COLUMNS, conversation
from truesweep.data.samples import Kind, Labelled, Pair, Sample
from truesweep.data.similarity import normalise
from truesweep.data.source import Source
from truesweep.errors import ConfigError, DataError

Rows = Iterable[tuple[int, Sequence[Any]]]
"""Values of columns, each row with its place."""
Located = tuple[int, Sample]  # line or row, counted from 1, and the sample that stands there


@dataclass(kw_only=True)
class Columns(Source):
    """A source whose samples can stand in the columns of a table.

    Args:
        source: Language to translate from, or the column that holds it; of conversations, the
            column of questions.
        target: Language to translate into, or the column that holds it; of conversations, the
            column of answers.
        text_column: Column of the text, for language models and classification.
        label_column: Column of the class, for classification.
    """

    source: str | None = None
    target: str | None = None
    text_column: str = "text"
    label_column: str = "label"

    def columns(self, kind: Kind) -> list[str]:
        """The columns that make up a sample, in the order of its fields.

        Raises:
            ConfigError: Pairs are wanted, and the two sides are not named, or named alike.
        """
        if kind == "text":
            return [self.text_column]
        if kind == "labelled":
            return [self.text_column, self.label_column]
        if kind == "chats" and self.source is None and self.target is None:
            return list(COLUMNS)
        if self.source is None or self.target is None:
            raise ConfigError(
                f"data.source={self.source} and data.target={self.target}: pairs need both. "
                "Set data.source=de data.target=en, say."
            )
        if self.source == self.target:
            raise ConfigError(f"data.source and data.target are both {self.source!r}. Change one.")
        return [self.source, self.target]


BLANK: dict[Kind, str] = {
    "text": "rows without a text were left out",
    "pairs": "rows that are blank on both sides were left out",
}
SPACES = "labels with spaces around them were taken without these"
LINES = "its rows are the lines of a text, some of them blank, and were joined"


def to_samples(
    kind: Kind,
    columns: Sequence[str],
    rows: Rows,
    where: Callable[[int], str],
    notes: Counter[str],
) -> Iterator[Located]:
    """Check the values of rows and make samples of them.

    Rows that are blank are none, and a label has no spaces around it.

    Args:
        kind: What to make.
        columns: Names of the columns, as `Columns.columns` gives them.
        rows: Their values, each row with its place.
        where: Words for a place, for messages.
        notes: Is told what was done to how many rows.

    Raises:
        DataError: A value is missing, empty, or not of a type that can be used.
    """
    for place, values in rows:
        if kind in BLANK and all(isinstance(v, str) and not v.strip() for v in values):
            notes[BLANK[kind]] += 1
            continue
        try:
            sample = _sample(kind, columns, values)
        except ValueError as error:
            raise DataError(
                f"{where(place)}: {error}. Mend the value or remove the sample."
            ) from None
        if isinstance(sample, Labelled) and sample.label != str(values[1]):
            notes[SPACES] += 1
        yield place, sample


def alike(labels: Sequence[str]) -> list[str]:
    """A sentence for each set of labels that read the same and yet are classes of their own."""
    sets: dict[str, list[str]] = {}
    for label in labels:
        seen = "".join(c for c in label if unicodedata.category(c) != "Cf")  # takes no room
        sets.setdefault(normalise(seen), []).append(label)
    return [
        f"the labels {', '.join(map(_shown(one), one))} differ in case, white space or the form of "
        "a character only, and are classes of their own"
        for one in sets.values()
        if len(one) > 1
    ]


def _shown(labels: Sequence[str]) -> Callable[[str], str]:
    """What tells labels apart; as they are written, unless they look the same."""
    looks = {unicodedata.normalize("NFC", label) for label in labels}
    return repr if len(looks) == len(labels) else ascii


def are_lines(rows: Rows) -> bool:
    """Whether rows are the lines of a text: some are blank, and the others end as lines do."""
    blank = False
    for _, (value,) in rows:
        text = str(value)
        if not text.strip():
            blank = True
        elif not text.endswith("\n"):
            return False
    return blank


def ended(line: str) -> str:
    """A line with its end."""
    return line if line.endswith("\n") else f"{line}\n"


def told(notes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Sentences for what was done to data, by where they stand."""
    return [
        f"{where}: {what}" + (f" ({count:,} of them)" if count else "")
        for where, counts in notes.items()
        for what, count in counts.items()
    ]


def _sample(kind: Kind, columns: Sequence[str], values: Sequence[Any]) -> Sample:
    if kind == "chats":
        return conversation(columns, values)
    make: dict[Kind, Callable[..., Sample]] = {"text": str, "pairs": Pair, "labelled": Labelled}
    checks = (_text, _label) if kind == "labelled" else (_text, _text)
    cells = zip(checks, columns, values, strict=False)
    return make[kind](*[check(column, value) for check, column, value in cells])


def _text(column: str, value: Any) -> str:
    """A text that is not blank and can be written as UTF-8."""
    if not isinstance(value, str):
        found = "null" if value is None else f"a {type(value).__name__}, not a text"
        raise ValueError(f"{column!r} is {found}")
    if not value.strip():
        raise ValueError(f"{column!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell it as \ud800
        raise ValueError(
            f"{column!r} holds half a surrogate pair at character {error.start}"
        ) from None
    return value


def _label(column: str, value: Any) -> str:
    """The name of a class, which files without types cannot tell from a number."""
    return _text(column, str(value) if isinstance(value, int) else value).strip()
