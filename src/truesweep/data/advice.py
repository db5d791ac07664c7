"""What is wrong with data, in words, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass

from truesweep.data.describe import Description, Part
from truesweep.data.samples import EXAMPLES
from truesweep.text import percent

JUDGES = ("val", "test")

_TRUNCATED, _REPEATED, _COPIED = 0.05, 0.05, 0.1
_CONTRADICTORY, _ODD = 0.01, 0.01
_UNKNOWN, _UNSEEN = 0.01, 0.01
_DOMINANT = 0.9


@dataclass(frozen=True)
class Advice:
    """Something that is wrong, and its remedy; one sentence each."""

    problem: str
    remedy: str


def advise(found: Description) -> list[Advice]:
    """Say what in a description would spoil a training, or what it is judged by; worst first."""
    return [
        advice
        for part in (_leaks, _labels, _sizes, _cut, _strange, _twice, _pairs)
        for advice in part(found)
    ]


def _leaks(found: Description) -> Iterator[Advice]:
    or_split = (
        ""
        if "split_off" in found.origin
        else ", or leave data.val and data.test out, to have them split off by content"
    )
    for leak in found.leakage:
        count = found.kind.leaked(leak)
        if count is None:
            continue
        share = count / max(1, leak.passages)
        by_drop = " by data.decontaminate=drop" if leak.other == "train" else ""
        grams = "" if leak.ngrams is None else f", and {percent(leak.ngrams)} of its word 8-grams,"
        all_of_them = leak.exact + leak.near
        shown = f"{all_of_them} lists them" if all_of_them <= EXAMPLES else f"{EXAMPLES} lists some"
        yield Advice(
            f"{leak.split} is not independent of {leak.other}: {count:,} of its {leak.passages:,} "
            f"{found.kind.unit} ({percent(share)}){grams} stand in {leak.other} too",
            f"Take them out of {leak.other}{by_drop} (--show {shown}){or_split}",
        )


def _labels(found: Description) -> Iterator[Advice]:
    for name, part in _judges(found):
        if missing := [label for label, count in (part.labels or {}).items() if not count]:
            yield Advice(
                f"{name} has no sample of {_listed(missing)}: nothing is known of how well "
                f"{'it is' if len(missing) == 1 else 'they are'} recognised",
                f"Add some to data.{name}, or draw it from the same source as data.train",
            )
    counts = found.splits["train"].labels or {}
    largest = max(counts, key=counts.__getitem__, default="")
    if counts and (share := counts[largest] / sum(counts.values())) > _DOMINANT:
        yield Advice(
            f"{percent(share)} of train is {largest!r}: always saying so is {percent(share)} "
            "accurate",
            "Judge by f1_macro, and add samples of the other classes",
        )


def _sizes(found: Description) -> Iterator[Advice]:
    needed, counted = found.kind.needed, found.kind.counted
    for name, part in _judges(found):
        size: int = getattr(part, counted)
        if size < needed:
            yield Advice(
                f"{name} has {size:,} {counted}: {found.kind.uncertainty(size)}",
                f"Give it {needed:,} or more: a larger data.{name}, or none and a larger "
                f"data.{name}_fraction",
            )


def _cut(found: Description) -> Iterator[Advice]:
    cut = {n: p.truncated / max(1, p.samples) for n, p in found.splits.items()}
    if max(cut.values()) > _TRUNCATED:
        worst = max(cut, key=cut.__getitem__)
        yield Advice(
            f"{percent(cut[worst])} of {worst} is longer than data.max_length={found.max_length}, "
            "and loses its end",
            f"Set data.max_length={max(p.longest for p in found.splits.values())} to keep all of "
            "it, or cut the texts where they may be cut",
        )


def _strange(found: Description) -> Iterator[Advice]:
    known = found.splits["train"].unknown == 0
    for name, part in _judges(found):
        unknown, unseen = (n / max(1, part.tokens) for n in (part.unknown, part.unseen))
        if known and unknown > _UNKNOWN:
            yield Advice(
                f"{percent(unknown)} of the tokens of {name} are unknown ones, of which train has "
                "none",
                "Use tokenizer=byte or tokenizer=bpe, which know every text, or train on text that "
                f"is like {name}",
            )
        elif unseen > _UNSEEN:
            yield Advice(
                f"{percent(unseen)} of the tokens of {name} never occur in train, and cannot be "
                "learned",
                f"Train on text that is like {name}, or set a smaller tokenizer.vocab_size",
            )


def _twice(found: Description) -> Iterator[Advice]:
    for name, part in found.splits.items():
        twice = part.duplicates
        if (share := twice.repeated / max(1, twice.passages)) > _REPEATED:
            yield Advice(
                f"{percent(share)} of the {found.kind.unit} of {name} repeat an earlier one, and "
                "count twice",
                f"Leave them out{_by('duplicates=true', name)}, unless they are meant as weights",
            )
        share = twice.contradictory / max(1, twice.passages)
        if found.kind.one_answer and share > _CONTRADICTORY:
            yield Advice(
                f"{percent(share)} of {name} has the text of an earlier sample and another label",
                f"Mend the labels, or leave out the rarer ones{_by('conflicts=true', name)}; if "
                "only case tells these texts apart, nothing is wrong",
            )


def _pairs(found: Description) -> Iterator[Advice]:
    for name, part in found.splits.items():
        if part.pairs is None:
            continue
        total = max(1, part.samples)
        if part.pairs.empty:
            yield Advice(
                f"{part.pairs.empty:,} pairs of {name} have a side without a token", "Remove them"
            )
        if found.kind.aligned and (share := part.pairs.odd / total) > _ODD:
            yield Advice(
                f"{percent(share)} of the pairs of {name} have a side that is over three times too "
                "long for the other",
                "See whether the lines of both sides still belong together, and remove what does "
                "not",
            )
        if (share := part.pairs.copied / total) > _COPIED:
            by = _by("copies=true", name) if found.kind.name == "pairs" else ""
            yield Advice(
                f"{percent(share)} of the pairs of {name} are the same text twice, and teach to "
                "copy",
                f"Leave out what is no {found.kind.answer}{by}",
            )


def _by(rule: str, split: str) -> str:
    """The rule of cleaning that does it to a split."""
    also = "" if split == "train" else f" data.clean.splits=[train,{split}]"
    return f" by data.clean.{rule}{also}"


def _judges(found: Description) -> Iterator[tuple[str, Part]]:
    return ((name, found.splits[name]) for name in JUDGES)


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more labels" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
