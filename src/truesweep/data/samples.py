"""What a source loads: samples of one kind, in three splits."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal, overload

from truesweep.data.texts import Text, Texts

Kind = Literal["text", "pairs", "labelled", "chats"]

UNCLEANED = "uncleaned"
"""Of the origin of splits that were cleaned: their fingerprint before that."""

Message = dict[str, Any]
"""A `role`, a `content`, and what else a chat template may read, such as `tool_calls`."""


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


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation with at least one answer.

    Args:
        text: A JSON object of its `messages`, of `tools` where it has any, and of those messages,
            as `rejected`, which it is preferred to.
    """

    text: str

    @classmethod
    def of(
        cls,
        messages: Sequence[Message],
        tools: Sequence[Any] | None = None,
        rejected: Sequence[Message] | None = None,
    ) -> "Chat":
        """A conversation of messages, the last `assistant` one of which is its last answer."""
        parts = {"messages": messages, "tools": tools, "rejected": rejected}
        kept = {name: list(part) for name, part in parts.items() if part}
        return cls(json.dumps(kept, ensure_ascii=False))

    @property
    def messages(self) -> list[Message]:
        """Its messages, in their order."""
        return list(json.loads(self.text)["messages"])

    @property
    def tools(self) -> list[Any] | None:
        """Descriptions of the tools that may be called; None without any."""
        tools: list[Any] | None = json.loads(self.text).get("tools")
        return tools

    @property
    def rejected(self) -> "Chat | None":
        """The conversation that it is preferred to; None without one."""
        parts = json.loads(self.text)
        return Chat.of(parts["rejected"], parts.get("tools")) if "rejected" in parts else None

    @property
    def source(self) -> str:
        """The text of all that its last answer is an answer to."""
        messages = self.messages
        return "\n".join(map(text_of, messages[: answers(messages)[-1]]))

    @property
    def target(self) -> str:
        """The text of its last answer."""
        messages = self.messages
        return text_of(messages[answers(messages)[-1]])


def answers(messages: Sequence[Message]) -> list[int]:
    """The places of the answers among messages."""
    return [i for i, message in enumerate(messages) if message["role"] == "assistant"]


def text_of(message: Message) -> str:
    """The text of a message; what it has besides is left out."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


Sample = str | Pair | Labelled | Chat


class Joint(Sequence[Sample]):
    """The samples of several sources one behind the other, which stay where they are.

    Args:
        parts: Those of each.
    """

    def __init__(self, parts: Sequence[Sequence[Sample]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        """All of them."""
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Sample]:
        """All of them."""
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """One of them, or some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


EXAMPLES = 20
"""Of what a rule of cleaning leaves out, or what leaks, how much is kept to be shown."""


@dataclass
class Account:
    """What cleaning has made of a split.

    Attributes:
        samples: What was looked at: samples, or paragraphs of texts.
        unit: Which of these.
        dropped: How many each rule has left out.
        changed: How many each rule has changed.
        examples: Some of them by rule, as they were.
    """

    samples: int = 0
    unit: str = "samples"
    dropped: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, rule: str, example: str) -> None:
        """Count a sample that is left out."""
        self.dropped[rule] = self.dropped.get(rule, 0) + 1
        self._show(rule, example)

    def change(self, rule: str, example: str) -> None:
        """Count a sample that is changed."""
        self.changed[rule] = self.changed.get(rule, 0) + 1
        self._show(rule, example)

    def _show(self, rule: str, text: str) -> None:
        found = self.examples.setdefault(rule, [])
        if len(found) < EXAMPLES:
            found.append(text)

    @classmethod
    def joined(cls, accounts: "Sequence[Account]") -> "Account":
        """One account of the same split of several sources."""
        units = {account.unit for account in accounts}
        joined = cls(
            sum(account.samples for account in accounts),
            units.pop() if len(units) == 1 else "samples and paragraphs",
        )
        for account in accounts:
            for counts, more in (
                (joined.dropped, account.dropped),
                (joined.changed, account.changed),
            ):
                for rule, count in more.items():
                    counts[rule] = counts.get(rule, 0) + count
            for rule, examples in account.examples.items():
                joined.examples[rule] = [*joined.examples.get(rule, ()), *examples][:EXAMPLES]
        return joined

    def then(self, later: "Account") -> "Account":
        """One account of a split that was cleaned twice, the second time of what was left."""
        return replace(self.joined([self, later]), samples=self.samples, unit=self.unit)

    @property
    def counts(self) -> dict[str, Any]:
        """All but the examples, as JSON values."""
        return {k: v for k, v in asdict(self).items() if k != "examples"}

    def __str__(self) -> str:
        """What was done, as a clause."""
        out, total = self.dropped, sum(self.dropped.values())
        parts = [f"{total:,} of {self.samples:,} {self.unit} are left out ({_counts(out)})"]
        if self.changed:
            parts.append(f"{sum(self.changed.values()):,} are changed ({_counts(self.changed)})")
        return ", ".join(parts if out else parts[1:]) or "nothing is left out or changed"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} by {rule}" for rule, count in counts.items())


@dataclass(frozen=True)
class Splits:
    """Training, validation and test samples, all of one kind.

    Attributes:
        train: Training samples, in the order of the data.
        val: Validation samples: what the best checkpoint is chosen by.
        test: Test samples: scored once, at the end.
        kind: `text` (each sample a `str`), `pairs` (a `Pair`), `labelled` (a `Labelled`) or `chats`
            (a `Chat`).
        fingerprint: SHA-256 (hexadecimal) over the content of the three splits, order included.
        origin: Where the samples came from, as plain JSON values, for the run's provenance.
        cleaned: What cleaning has made of them, by the names of splits.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample]
    kind: Kind
    fingerprint: str
    origin: dict[str, Any]
    cleaned: Mapping[str, Account] = field(default_factory=dict)

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
        a, b, c = (p if isinstance(p, Sequence) else list(p) for p in (train, val, test))
        return cls(a, b, c, kind, hash_splits((a, b, c)), origin)


def content(sample: Sample) -> bytes:
    """The whole content of a sample as bytes, unambiguous: equal bytes only for equal samples."""
    if isinstance(sample, str | Chat):
        return (sample if isinstance(sample, str) else sample.text).encode()
    first, second = (
        (sample.source, sample.target) if isinstance(sample, Pair) else (sample.text, sample.label)
    )
    head = first.encode()
    return b"%d:%b%b" % (len(head), head, second.encode())


def hash_splits(parts: Iterable[Sequence[Sample]]) -> str:
    """SHA-256 (hexadecimal) over the content of samples, order and division included."""
    digest = hashlib.sha256()
    for samples in parts:
        if isinstance(samples, Texts):
            samples.update(digest)
            continue
        digest.update(b"%d\n" % len(samples))
        for sample in samples:
            data = content(sample)
            digest.update(b"%d:" % len(data))
            digest.update(data)
    return digest.hexdigest()


def field_texts(samples: Sequence[Sample], field: str) -> Iterable[Text]:
    """One field of all samples; a plain text is its own only field."""
    if isinstance(samples, Texts):
        return samples.parts()
    if isinstance(samples, Joint):
        return chain.from_iterable(field_texts(part, field) for part in samples.parts)
    return (s if isinstance(s, str) else getattr(s, field) for s in samples)


def spread_pieces(texts: Sequence[Sample], number: int, size: int) -> Iterator[str]:
    """Pieces of plain texts, evenly spread over all of them, that begin and end between words.

    Args:
        texts: The texts.
        number: How many.
        size: Characters of a piece at most; bytes of texts that are stored.
    """
    for position in (len(texts) * i / number for i in range(number if texts else 0)):
        index, place = int(position), position % 1
        if isinstance(texts, Texts):
            piece = texts.piece(index, place, size)
        else:
            text = str(texts[index])
            start = int(place * len(text))
            piece = text[start : start + size]
        between = re.search(r"\s.*\s", piece, re.DOTALL)
        yield between[0] if between else piece


def text_bytes(samples: Sequence[Sample], field: str) -> int:
    """UTF-8 bytes of one field of all samples."""
    if isinstance(samples, Texts):
        return samples.size
    if isinstance(samples, Joint):
        return sum(text_bytes(part, field) for part in samples.parts)
    return sum(len(str(text).encode()) for text in field_texts(samples, field))
