"""What the rules of cleaning find of faults that are planted into real data, and what they miss.

    python benchmarks/cleaning.py FOLDER [--write OUT] [--seed 0]

FOLDER holds `classification/trec6/{train,test}.tsv`, `translation/multi30k/{train,test}.{de,en}`
and `lm/tinyshakespeare/{train,val}.txt`. Into the training data of each come, of its size: 5 %
copies; 5 % near copies, with a typing error every 50 characters (or, each in data of its own, with
a word left out, put in, or swapped with the next every 100 characters); 1 % samples of the test
split; 3 % that were decoded with the wrong encoding; 2 % wrong labels, where there are any.
Precision leaves out what a rule finds in the data as they were. `--write` keeps the planted data,
to be trained on.
"""

import argparse
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from truesweep.data.clean import cleaned
from truesweep.data.leakage import is_telling
from truesweep.data.rules import Clean
from truesweep.data.samples import Kind, Labelled, Pair, Sample, Splits
from truesweep.data.splitting import passages

SHARES = {"duplicates": 0.05, "near_duplicates": 0.05, "decontaminate": 0.01, "unicode": 0.03}
FLIPPED = 0.02


@dataclass
class Planted:
    """Samples with faults, and the places of these by the rule that should find them."""

    train: list[Sample]
    faults: dict[str, set[int]] = field(default_factory=dict)


def plant(
    train: Sequence[Sample], test: Sequence[Sample], near: str = "typed", seed: int = 0
) -> Planted:
    """Plant all faults; no sample has two, and copies stand behind what they are copies of."""
    rng = random.Random(seed)
    usable = [i for i, sample in enumerate(train) if comparable(sample)]
    rng.shuffle(usable)
    size, made = len(usable), Planted([*train])

    def some(share: float) -> list[int]:
        taken = usable[: round(share * size)]
        del usable[: len(taken)]
        return taken

    made.faults["unicode"] = set(some(SHARES["unicode"]))
    for i in made.faults["unicode"]:
        made.train[i] = changed(train[i], broken)
    if isinstance(train[0], Labelled):
        labels = sorted({s.label for s in train if isinstance(s, Labelled)})
        made.faults["labels"] = set(some(FLIPPED))
        for i in made.faults["labels"]:
            sample = train[i]
            assert isinstance(sample, Labelled)
            others = [label for label in labels if label != sample.label]
            made.train[i] = replace(sample, label=rng.choice(others))
    leaks = round(SHARES["decontaminate"] * size)
    judging = [*filter(comparable, test)]
    for rule, samples in (
        ("duplicates", [train[i] for i in some(SHARES["duplicates"])]),
        ("near_duplicates", [NEAR[near](train[i], rng) for i in some(SHARES["near_duplicates"])]),
        (
            "decontaminate",
            rng.sample(judging, min(len(judging), leaks)),
        ),
    ):
        start = len(made.train)
        made.train += samples
        made.faults[rule] = set(range(start, len(made.train)))
    return made


def shortened(sample: Sample, rng: random.Random) -> Sample:
    """A sample of which a word is left out every 100 characters."""

    def shorten(text: str) -> str:
        left = text.split(" ")
        for _ in range(max(1, len(text) // 100)):
            if len(left) > 3:
                del left[rng.randrange(1, len(left) - 1)]
        return " ".join(left)

    return changed(sample, shorten)


def lengthened(sample: Sample, rng: random.Random) -> Sample:
    """A sample with a word more every 100 characters."""

    def lengthen(text: str) -> str:
        words = text.split(" ")
        for _ in range(max(1, len(text) // 100)):
            words.insert(rng.randrange(len(words)), rng.choice(_FILLERS))  # before the last
        return " ".join(words)

    return changed(sample, lengthen)


_FILLERS = "the", "very", "then", "now", "really", "also"


def swapped(sample: Sample, rng: random.Random) -> Sample:
    """A sample of which two words are swapped every 100 characters."""

    def swap(text: str) -> str:
        words = text.split(" ")
        for _ in range(max(1, len(text) // 100)):
            if len(words) > 3:
                i = rng.randrange(len(words) - 2)
                words[i : i + 2] = words[i + 1], words[i]
        return " ".join(words)

    return changed(sample, swap)


def changed(sample: Sample, change: Callable[[str], str]) -> Sample:
    """A sample whose texts are changed."""
    if isinstance(sample, Pair):
        return Pair(change(sample.source), change(sample.target))
    if isinstance(sample, Labelled):
        return replace(sample, text=change(sample.text))
    assert isinstance(sample, str)
    return change(sample)


def broken(text: str) -> str:
    """A text as UTF-8 that was read as Windows-1252; what is ASCII has typographic signs before."""
    if text.isascii():
        text = text.replace("'", "’").replace("-", "–").replace('"', "”")
    if text.isascii():
        text = re.sub(r"(?<=\w) (?=\w)", "\N{NO-BREAK SPACE}", text, count=1)
    return "".join(_misread(character) for character in text)


def _misread(character: str) -> str:
    data = character.encode()
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def typed(sample: Sample, rng: random.Random) -> Sample:
    """A sample typed again, with an error every 50 characters."""

    def type_again(text: str) -> str:
        signs = list(text)
        letters = [i for i, sign in enumerate(signs[:-1]) if sign.isalpha()]
        for i in rng.sample(letters, min(len(letters), max(1, len(text) // 50))):
            error = rng.choice(("double", "drop", "swap"))
            if error == "double":
                signs[i] *= 2
            elif error == "drop":
                signs[i] = ""
            elif signs[i + 1]:
                signs[i], signs[i + 1] = signs[i + 1], signs[i]
        return "".join(signs)

    return changed(sample, type_again)


NEAR = {
    "typed": typed,
    "shortened": shortened,
    "lengthened": lengthened,
    "swapped": swapped,
}


def taken(kind: Kind, train: Sequence[Sample], test: Sequence[Sample], rule: str) -> set[int]:
    """The places of the samples that a rule takes or changes."""
    text = kind == "text"
    ours, theirs = (["".join(map(str, p))] if text else p for p in (train, test))
    rules = Clean(**({} if rule == "decontaminate" else {rule: True}))  # type: ignore[arg-type]
    splits = Splits.of(kind, ours, theirs, theirs, {})
    found = cleaned(splits, rules, decontaminate=rule == "decontaminate").train
    left = [*passages(str(found[0]))] if text else found
    if rule == "unicode":
        return {i for i, (a, b) in enumerate(zip(train, left, strict=True)) if a != b}
    rest = iter(left)
    next_left, out = next(rest, None), set()
    for i, sample in enumerate(train):  # what stays stays in its order
        if sample == next_left:
            next_left = next(rest, None)
        else:
            out.add(i)
    return out


def report(
    name: str, kind: Kind, train: Sequence[Sample], test: Sequence[Sample], seed: int
) -> Planted:
    """Print precision and recall of each rule."""
    plants = {near: plant(train, test, near, seed) for near in NEAR}
    rules = [(rule, rule, "typed") for rule in SHARES]
    rules += [("near_duplicates", "near_duplicates", near) for near in NEAR if near != "typed"]
    if kind == "labelled":
        rules += [(rule, "labels", "typed") for rule in ("conflicts", "label_errors")]
    for rule, fault, near in rules:
        made = plants[near]
        planted = {i for i in made.faults[fault] if comparable(made.train[i])}
        before = taken(kind, train, test, rule)
        started = time.perf_counter()
        found = taken(kind, made.train, test, rule)
        seconds = time.perf_counter() - started
        if fault == "near_duplicates":  # what is the same is alike, too
            found -= made.faults["duplicates"]
            found -= made.faults[fault] - planted
        hits, new = found & planted, found - before
        print(
            f"{name:16} {rule:16} {near:10} planted {len(planted):5} found {len(hits):5} "
            f"recall {len(hits) / max(1, len(planted)):6.1%} "
            f"precision {len(hits) / max(1, len(new)):6.1%} "
            f"before {len(before):5} {seconds:6.1f} s",
            flush=True,
        )
    return plants["typed"]


def comparable(sample: Sample) -> bool:
    """Whether it has the words that a paragraph needs to be compared at all."""
    return not isinstance(sample, str) or is_telling(sample)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def trec(folder: Path, split: str) -> list[Sample]:
    rows = (row.split("\t") for row in lines(folder / f"classification/trec6/{split}.tsv")[1:])
    return [Labelled(text, label) for label, text in rows]


def multi30k(folder: Path, split: str) -> list[Sample]:
    sides = (lines(folder / f"translation/multi30k/{split}.{side}") for side in ("de", "en"))
    return [Pair(*both) for both in zip(*sides, strict=True)]


def shakespeare(folder: Path, split: str) -> list[Sample]:
    text = (folder / f"lm/tinyshakespeare/{split}.txt").read_text(encoding="utf-8")
    return [part.rstrip("\n") + "\n\n" for part in passages(text)]


def write(out: Path, train: Sequence[Sample]) -> None:
    """Write planted samples as `data=files` reads them."""
    if isinstance(train[0], Labelled):
        rows = (f"{s.label}\t{s.text}\n" for s in train if isinstance(s, Labelled))
        out.with_suffix(".tsv").write_text("label\ttext\n" + "".join(rows), encoding="utf-8")
    elif isinstance(train[0], Pair):
        for side, name in (("source", "de"), ("target", "en")):
            texts = (f"{getattr(s, side)}\n" for s in train)
            out.with_suffix(f".{name}").write_text("".join(texts), encoding="utf-8")
    else:
        out.with_suffix(".txt").write_text("".join(map(str, train)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder: Path = asked.folder
    read: dict[str, tuple[Kind, Callable[[Path, str], list[Sample]], str]] = {
        "trec6": ("labelled", trec, "test"),
        "multi30k": ("pairs", multi30k, "test"),
        "tinyshakespeare": ("text", shakespeare, "val"),
    }
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRUESWEEP_CACHE"] = cache
        for name, (kind, samples, judge) in read.items():
            both = samples(folder, "train"), samples(folder, judge)
            made = report(name, kind, *both, asked.seed)
            if asked.write:
                asked.write.mkdir(parents=True, exist_ok=True)
                write(asked.write / name, made.train)


if __name__ == "__main__":
    main()
