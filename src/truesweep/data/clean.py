"""Samples with what the rules of cleaning change or leave out, and an account of it.

What is left of a split is kept in the cache by content and rules. Rules that look at one sample
see them one by one; those against duplicates remember a hash of each, and 512 bytes more of each
that could be near another. Texts are never in memory together, other samples are anyway.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from truesweep.data.cache import cached, default_cache
from truesweep.data.leakage import Known, is_brief, is_telling
from truesweep.data.rules import Clean
from truesweep.data.samples import (
    UNCLEANED,
    Account,
    Chat,
    Joint,
    Kind,
    Labelled,
    Pair,
    Sample,
    Splits,
    field_texts,
)
from truesweep.data.similarity import (
    may_repeat,
    normalise,
    repeats,
    signatures,
    word_signatures,
    words,
)
from truesweep.data.splitting import complete, passages
from truesweep.data.texts import Texts, TextsWriter
from truesweep.dotted import map_leaves
from truesweep.errors import DataError
from truesweep.record.files import write_json

VERSION = 9  # of what is kept and of the rules; a new one leaves all older entries unread

LONG = 1 << 16
"""Bytes of a text from which on it is no document, but many."""

DECONTAMINATE = "decontaminate"
SPLITS = ("train", "val", "test")
WIDEST = 300
"""Characters of an example."""
_ACCOUNTS = "accounts.json"
_SAID = re.compile(
    r"(messages|rejected)\[\d+\]\.(content(\[\d+\]\.text)?|reasoning_content|thinking)"
)
"""What of a conversation is text, by its key; all else, such as roles, is how it is built."""
_AT_ONCE = 1 << 12  # samples

Alive = npt.NDArray[np.bool_]
Out = Iterable[tuple[int, str]]
"""Places of what is left out, each with what it is like or what else there is to say of it."""


def cleaned(
    splits: Splits, clean: Clean, decontaminate: bool = False, full: bool = False
) -> Splits:
    """Splits without what is to be left out.

    Args:
        splits: The samples.
        clean: The rules.
        decontaminate: Whether training samples that stand in validation or test are left out.
        full: Read all of what is kept to see whether it is damaged.

    Raises:
        DataError: Nothing is left of a split.
    """
    samples = {name: [getattr(splits, name)] for name in SPLITS}
    found = _kept(splits.fingerprint, splits.kind, samples, clean, decontaminate, full)
    return _with_accounts(splits, {name: each[0] for name, each in found.items()})


def cleaned_together(
    sources: Mapping[str, Splits], clean: Clean, decontaminate: bool = False, full: bool = False
) -> dict[str, Splits]:
    """Sources of a mixture, each clean itself, without what stands in several.

    Of samples that are the same or alike, the one of the first source stays. See `cleaned`.
    """
    rules = Clean(
        splits=clean.splits,
        paragraphs=clean.paragraphs,
        similarity=clean.similarity,
        duplicates=clean.across_sources and clean.duplicates,
        near_duplicates=clean.across_sources and clean.near_duplicates,
    )
    first, *_ = sources.values()
    samples = {name: [getattr(splits, name) for splits in sources.values()] for name in SPLITS}
    key = hashlib.sha256("".join(splits.fingerprint for splits in sources.values()).encode())
    found = _kept(key.hexdigest(), first.kind, samples, rules, decontaminate, full)
    return {
        source: _with_accounts(
            splits,
            {name: each[i] for name, each in found.items() if each[i][1].dropped},
            f"data.sources.{source}: ",
        )
        for i, (source, splits) in enumerate(sources.items())
    }


def _kept(
    fingerprint: str,
    kind: Kind,
    samples: Mapping[str, Sequence[Sequence[Sample]]],
    clean: Clean,
    decontaminate: bool,
    full: bool,
) -> dict[str, list[tuple[Sequence[Sample], Account]]]:
    """By the names of those splits that are cleaned, what is left of each source, and why.

    Args:
        fingerprint: What tells the samples from all others.
        kind: Their kind.
        samples: By the names of splits, those of each source.
        clean: The rules.
        decontaminate: See `cleaned`.
        full: See `cleaned`.
    """
    names = [*(clean.splits if clean.asked else ()), *(["train"] if decontaminate else [])]
    names = [name for name in SPLITS if name in names]
    if not names:
        return {}
    packages = {"unicode": "ftfy", "languages": "py3langid", "label_errors": "scikit-learn"}
    key = {
        "data": fingerprint,
        "kind": kind,
        "clean": asdict(clean),
        DECONTAMINATE: decontaminate,
        "packages": {p: version(p) for rule, p in packages.items() if rule in clean.asked},
        "version": VERSION,
    }
    entry = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    whole = {name: of[0] if len(of) == 1 else Joint(of) for name, of in samples.items()}

    def write(folder: Path) -> None:
        clean.check_languages()
        parts: dict[str, Sequence[Sample]] = {}
        accounts = {}
        # Those that judge come first: training data are compared with them as they will be.
        for name in reversed(names):
            work = _Work(folder, name, kind, [len(source) for source in samples[name]])
            rules = clean if name in clean.splits else Clean(similarity=clean.similarity)
            others = {n: parts.get(n, whole[n]) for n in ("val", "test")}
            known = Known(others, kind) if decontaminate and name == "train" else None
            parts[name] = work.clean(whole[name], rules, known)
            accounts[name] = [asdict(account) for account in work.accounts]
        write_json(folder / _ACCOUNTS, {name: accounts[name] for name in names})

    def read(folder: Path) -> dict[str, list[tuple[Sequence[Sample], Account]]]:
        accounts = json.loads((folder / _ACCOUNTS).read_text(encoding="utf-8"))
        return {
            name: [
                (left, Account(**account))
                for left, account in zip(
                    _read(folder, name, samples[name]), accounts[name], strict=True
                )
            ]
            for name in names
        }

    return cached(default_cache() / "cleaned", entry, write, read, full)


def _with_accounts(
    splits: Splits, found: Mapping[str, tuple[Sequence[Sample], Account]], where: str = ""
) -> Splits:
    """Splits of which some are replaced by what is left of them."""
    if not found:
        return splits
    parts: dict[str, Sequence[Sample]] = {name: getattr(splits, name) for name in SPLITS}
    accounts = dict(splits.cleaned)
    notes = [*splits.origin.get("notes", ())]
    for name, (left, account) in found.items():
        if not left:
            raise DataError(
                f"{where}data.clean: nothing is left of {name}: {account}. Ask for less"
            )
        if name in accounts:
            notes = [note for note in notes if note not in _noted(name, accounts[name])]
            account = accounts[name].then(account)
        parts[name], accounts[name] = left, account
        notes += _noted(name, account)
    counts = {name: each.counts for name, each in accounts.items()}
    origin = {UNCLEANED: splits.fingerprint, **splits.origin, "cleaned": counts}
    origin.pop("notes", None)
    return replace(complete(splits.kind, parts, origin, notes), cleaned=accounts)


def _noted(name: str, account: Account) -> list[str]:
    """What to say of a split that was cleaned; nothing where that has found nothing."""
    return [f"{name}: {account}"] if account.dropped or account.changed else []


def shown(sample: Sample) -> str:
    """A sample on one line, cut where it is long."""
    fields = [" ".join(text.split()) for text in _fields(sample)]
    return " → ".join(t if len(t) <= WIDEST else f"{t[: WIDEST - 1]}…" for t in fields)


def _fields(sample: Sample) -> tuple[str, ...]:
    if isinstance(sample, Pair | Chat):
        return sample.source, sample.target
    return (sample.text, sample.label) if isinstance(sample, Labelled) else (str(sample),)


def _read(
    folder: Path, name: str, sources: Sequence[Sequence[Sample]]
) -> Iterator[Sequence[Sample]]:
    """What `_Work` has written of a split, source by source."""
    owners = np.fromfile(folder / f"{name}.owners.bin", dtype=np.int64)
    ends = np.cumsum([len(samples) for samples in sources])
    cuts = [0, *np.searchsorted(owners, ends).tolist()]
    if not (folder / f"{name}.json").exists():
        for start, end in pairwise(cuts):
            yield Texts(folder, name, start, end)
        return
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    changed = {int(place): fields for place, fields in rows.items()}
    for samples, last, (start, end) in zip(sources, ends.tolist(), pairwise(cuts), strict=True):
        first = last - len(samples)
        yield [
            type(samples[i - first])(*changed[i]) if i in changed else samples[i - first]  # type: ignore[arg-type]
            for i in owners[start:end].tolist()
        ]


class _Work:
    """The cleaning of one split.

    Args:
        folder: Where what is left is written.
        name: The split's name.
        kind: The kind of its samples.
        sizes: How many of them each source has.
    """

    def __init__(self, folder: Path, name: str, kind: Kind, sizes: Sequence[int]) -> None:
        self.folder, self.name, self.kind = folder, name, kind
        self.accounts = [Account() for _ in sizes]
        self._ends = np.cumsum(sizes)

    def _account(self, owner: int) -> Account:
        """The account of a sample's source."""
        if len(self.accounts) == 1:
            return self.accounts[0]
        return self.accounts[int(np.searchsorted(self._ends, owner, side="right"))]

    def clean(
        self, samples: Sequence[Sample], rules: Clean, known: Known | None
    ) -> Sequence[Sample]:
        """Clean samples, and leave out what others know."""
        if self.kind == "text":
            kept: Sequence[int] = range(len(samples))
            if known is None:
                left, kept = self._texts(samples, kept, rules, None, self.name)
            else:
                if rules.asked:
                    samples, kept = self._texts(samples, kept, rules, None, f"{self.name}.clean")
                # Of a document only those paragraphs go that stand elsewhere.
                by_paragraph = Clean(paragraphs=True, similarity=rules.similarity)
                left, kept = self._texts(samples, kept, by_paragraph, known, self.name)
            self._write_owners(kept)
            return left
        units: list[Sample] = []
        owners: list[int] = []
        changed: dict[int, Sample] = {}
        for place, sample in enumerate(samples):
            self._account(place).samples += 1
            mended = self._mend(place, sample, rules)
            if self._is_faultless(place, mended, rules):
                units.append(mended)
                owners.append(place)
                if mended != sample:
                    changed[place] = mended
        alive = self._alive(units, owners, rules, known)
        kept = [owner for owner, stays in zip(owners, alive.tolist(), strict=True) if stays]
        rows = {place: _arguments(changed[place]) for place in kept if place in changed}
        write_json(self.folder / f"{self.name}.json", rows)
        self._write_owners(kept)
        return [unit for unit, stays in zip(units, alive.tolist(), strict=True) if stays]

    def _write_owners(self, kept: Sequence[int]) -> None:
        np.array(kept, dtype=np.int64).tofile(self.folder / f"{self.name}.owners.bin")

    def _texts(
        self,
        samples: Sequence[Sample],
        places: Sequence[int],
        rules: Clean,
        known: Known | None,
        result: str,
    ) -> tuple[Texts, list[int]]:
        """Texts, of which the parts that stay are written one behind the other.

        Args:
            samples: The texts.
            places: Of each, its place among all of the split.
            rules: What is left out.
            known: What is left out besides.
            result: The name of what is written.

        Returns:
            What is left, and the place of each of these.
        """
        aside = f"{result}.parts"
        owners: list[int] = []
        brief: set[int] = set()
        whole, again = True, any(account.samples for account in self.accounts)
        with TextsWriter(self.folder, aside) as writer:
            for owner, text in zip(places, field_texts(samples, "text"), strict=True):
                cut = len(text) > LONG if rules.paragraphs is None else rules.paragraphs
                whole &= not cut
                if known is not None and len(samples) > 1 and is_brief(text):
                    brief.add(len(owners))
                    cut = False
                for part in passages(text) if cut else (str(text),):
                    blank = not part.strip()
                    if not (blank or again):
                        self._account(owner).samples += 1
                    mended = self._mend(owner, part, rules)
                    if blank or self._is_faultless(owner, mended, rules):
                        writer.add([str(mended).encode()])
                        owners.append(owner)
        units = Texts(self.folder, aside)
        alive = self._alive(units, owners, rules, known, not whole, brief)
        for account in () if again else self.accounts:
            account.unit = "texts" if whole else "paragraphs"
        left: list[int] = []
        with TextsWriter(self.folder, result) as writer:
            for owner, group in groupby(np.flatnonzero(alive).tolist(), key=owners.__getitem__):
                texts = (units[place] for place in group)
                written = 0
                for text in texts:
                    writer.write(text.encode())
                    written += bool(text.strip())
                if written:
                    writer.end()
                    left.append(owner)
        return Texts(self.folder, result), left

    def _mend(self, owner: int, sample: Sample, rules: Clean) -> Sample:
        if not (rules.unicode or rules.c4):
            return sample
        names: dict[str, None] = {}

        def mend(text: str) -> str:
            mended, did = rules.mended(text)
            names.update(dict.fromkeys(did))
            return mended

        if isinstance(sample, Chat):
            parts = map_leaves(
                json.loads(sample.text),
                lambda key, v: mend(v) if isinstance(v, str) and _SAID.fullmatch(key) else v,
            )
            mended: Sample = Chat(json.dumps(parts, ensure_ascii=False)) if names else sample
        elif isinstance(sample, Pair):
            mended = Pair(mend(sample.source), mend(sample.target))
        elif isinstance(sample, Labelled):
            mended = Labelled(mend(sample.text), sample.label)
        else:
            mended = mend(sample)
        for name in names:
            self._account(owner).change(name, shown(sample))
        return mended

    def _is_faultless(self, owner: int, sample: Sample, rules: Clean) -> bool:
        fault = _fault(sample, rules) if rules.asked else None
        if fault is not None:
            self._account(owner).drop(fault, shown(sample))
        return fault is None

    def _alive(
        self,
        units: Sequence[Sample],
        owners: Sequence[int],
        rules: Clean,
        known: Known | None,
        parts: bool = False,
        brief: Set[int] = frozenset(),
    ) -> Alive:
        """Which samples stay by those rules that look at several."""
        alive = np.ones(len(units), dtype=np.bool_)

        def apply(rule: str, out: Callable[[Sequence[Sample], Sequence[int]], Out]) -> None:
            places = cast(Sequence[int], np.flatnonzero(alive))
            for place, why in list(out(units, places)):
                alive[place] = False
                example = shown(units[place]) + (f" ({why})" if why else "")
                self._account(owners[place]).drop(rule, example)

        if rules.conflicts:
            apply("conflicts", _conflicts)
        if rules.label_errors:
            apply("label_errors", _label_errors)
        if rules.duplicates:
            apply("duplicates", lambda u, p: _duplicates(u, p, parts))
        if rules.near_duplicates:
            apply("near_duplicates", lambda u, p: _near(u, p, rules.similarity, parts))
        if known is not None:
            similar = rules.similarity
            apply(DECONTAMINATE, lambda u, p: _known(u, p, known, similar, parts, brief))
        if rules.min_per_label:
            apply("min_per_label", lambda u, p: _rare(u, p, rules.min_per_label))
        if (most := rules.max_per_label) is not None:
            apply("max_per_label", lambda u, p: _beyond(u, p, most))
        return alive


def _arguments(sample: Sample) -> list[str]:
    """What a sample is made of, as JSON."""
    return [sample.text] if isinstance(sample, Chat) else list(_fields(sample))


def _fault(sample: Sample, rules: Clean) -> str | None:
    """What is wrong with one sample."""
    fields = _fields(sample)
    if not all(text.strip() for text in fields):
        return "empty"
    sides = fields[:1] if isinstance(sample, Labelled) else fields
    languages = [rules.languages] * len(sides)
    if isinstance(sample, Pair) and rules.languages:
        languages = [(language,) for language in rules.languages]
    for side, allowed in zip(sides, languages, strict=True):
        if fault := rules.fault(side, allowed):
            return fault
    if not isinstance(sample, Pair):
        return None
    if rules.copies and normalise(sample.source) == normalise(sample.target):
        return "copies"
    if rules.length_ratio is not None:
        short, long = sorted((len(words(sample.source)), len(words(sample.target))))
        if long > rules.length_ratio * max(1, short):
            return "length_ratio"
    return None


# -- rules that look at several samples; each takes all of them, and the places of those left ------


def _key(sample: Sample) -> str:
    """What two samples have in common that are the same."""
    return "\0".join(map(normalise, _fields(sample)))


def _comparable(sample: Sample, parts: bool) -> bool:
    """Whether it is more than a heading, of which any text has several alike."""
    return not parts or is_telling(str(sample))


def _duplicates(units: Sequence[Sample], places: Sequence[int], parts: bool) -> Iterator[Any]:
    seen: set[bytes] = set()
    for place in places:
        if _comparable(unit := units[place], parts):
            digest = hashlib.blake2b(_key(unit).encode(), digest_size=16).digest()
            if digest in seen:
                yield place, ""
            seen.add(digest)


def _near(
    units: Sequence[Sample], places: Sequence[int], similar: float, parts: bool
) -> Iterator[Any]:
    """What is like something before it; of labelled texts, of those with the same label."""

    def text(place: int) -> str:
        unit = units[place]
        fields = (unit.text,) if isinstance(unit, Labelled) else _fields(unit)
        return " ".join(map(normalise, fields))

    groups: dict[str, list[int]] = defaultdict(list)
    signed: dict[str, list[Any]] = defaultdict(list)
    worded: dict[str, list[Any]] = defaultdict(list)
    for chunk in _chunks(places):
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for place in chunk:
            unit = units[place]
            if may_repeat(key := text(place)) and _comparable(unit, parts):
                found[unit.label if isinstance(unit, Labelled) else ""].append((place, key))
        for label, rows in found.items():
            keys = [key for _, key in rows]
            groups[label] += [place for place, _ in rows]
            signed[label].append(signatures(keys))
            worded[label].append(word_signatures(keys))
    for label, group in groups.items():
        both = np.concatenate(signed.pop(label)), np.concatenate(worded.pop(label))
        twins = repeats(*both, lambda i, g=group: text(g[i]), similar)  # type: ignore[misc]
        for later, (first, _) in twins.items():
            yield group[later], f"like: {shown(units[group[first]])}"


def _known(
    units: Sequence[Sample],
    places: Sequence[int],
    known: Known,
    similar: float,
    parts: bool,
    brief: Set[int],
) -> Iterator[Any]:
    for chunk in _chunks(places):
        compared = [p for p in chunk if p in brief or _comparable(units[p], parts)]
        keys = [normalise(_fields(units[place])[0]) for place in compared]
        for i, (split, twin) in known.twins(keys, similar).items():
            same = keys[i] == normalise(twin)
            yield compared[i], f"in {split}" + ("" if same else f": {shown(twin)}")


def _chunks(places: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), _AT_ONCE):
        yield [int(place) for place in places[start : start + _AT_ONCE]]


def _labelled(units: Sequence[Sample], places: Sequence[int]) -> list[tuple[int, Labelled]]:
    return [(int(place), cast(Labelled, units[place])) for place in places]


def _conflicts(units: Sequence[Sample], places: Sequence[int]) -> Iterator[Any]:
    rows = _labelled(units, places)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for _, sample in rows:
        found[normalise(sample.text)][sample.label] += 1
    for place, sample in rows:
        counts = found[normalise(sample.text)]
        if len(counts) > 1:
            (label, most), (_, second) = counts.most_common(2)
            if most == second or sample.label != label:
                yield place, f"labels: {', '.join(sorted(counts))}"


def _rare(units: Sequence[Sample], places: Sequence[int], fewest: int) -> Iterator[Any]:
    rows = _labelled(units, places)
    counts = Counter(sample.label for _, sample in rows)
    return ((place, "") for place, sample in rows if counts[sample.label] < fewest)


def _beyond(units: Sequence[Sample], places: Sequence[int], most: int) -> Iterator[Any]:
    """Those of a label with the largest hashes; a sample stays where others come or go."""
    rows: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for place, sample in _labelled(units, places):
        rows[sample.label].append((hashlib.sha256(_key(sample).encode()).digest(), place))
    return ((place, "") for found in rows.values() for _, place in sorted(found)[most:])


def _label_errors(units: Sequence[Sample], places: Sequence[int]) -> Iterator[Any]:
    """Labels that a linear model over n-grams, fitted to the other folds, finds unlikely.

    The model gives another label more than half, and the sample's own less than a twentieth.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_union

    rows = _labelled(units, places)
    counts = Counter(sample.label for _, sample in rows)
    rows = [row for row in rows if counts[row[1].label] >= _FOLDS]
    names = sorted({sample.label for _, sample in rows})
    if len(names) < 2:
        return
    given = np.array([names.index(sample.label) for _, sample in rows])
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]"),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    ).fit_transform([sample.text for _, sample in rows])
    model = OneVsRestClassifier(LogisticRegression(C=10.0, solver="liblinear", random_state=0))
    found = cross_val_predict(model, features, given, cv=_FOLDS, method="predict_proba")
    own = found[np.arange(len(rows)), given]
    for i in np.flatnonzero((found.max(axis=1) > _LIKELY) & (own < _UNLIKELY)).tolist():
        yield rows[i][0], f"rather {names[found[i].argmax()]}"


_LIKELY, _UNLIKELY = 0.5, 0.05
_FOLDS = 5
