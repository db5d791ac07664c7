"""`data=mixture`: several sources, of each of which a training takes its share."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from truesweep import text
from truesweep.data.datasets import EncodedDataset
from truesweep.data.mixing import Floats, Places
from truesweep.data.samples import UNCLEANED, Account, Joint, Kind, Splits
from truesweep.data.source import Source
from truesweep.errors import ConfigError, UserError
from truesweep.figures import BUILT_IN

KEY = "data.sources"
SPLITS = ("train", "val", "test")
_OFF = 0.005
"""How far a source's part of a training may be off its share before it is told."""
Share = Annotated[float, Ge(0)]
Stats = Mapping[str, Mapping[str, int]]
"""By split, what `Prepared.stats` says of it."""


@dataclass(kw_only=True)
class Part:
    """A source of a mixture.

    Args:
        make: Builds the source from the keys that all sources have, which are the mixture's.
        weight: Its share of the training, or, by the first step that each counts for, its shares
            from then on: `{0: 0.9, 1000: 0.5}`. None: a share of what the others leave.
        epochs: How often it is gone through at most; after that its share goes to the others, in
            proportion to theirs. None: without end.
    """

    TARGET: ClassVar[str] = "truesweep.data.Files"
    """What a source is that names no `_target_`."""
    SHARED: ClassVar[frozenset[str]] = frozenset(key.name for key in fields(Source))
    """The keys of sources that stand at the mixture, once for all of them."""

    make: Callable[..., Source]
    weight: Share | dict[Annotated[int, Ge(0)], Share] | None = None
    epochs: Annotated[float, Gt(0)] | None = None

    ORDERS: ClassVar[frozenset[str]] = frozenset({"weight", "epochs"})
    """The keys that only say when a training takes its samples."""

    def weight_at(self, step: int) -> float | None:
        """Its weight at an optimizer step, counted from 0."""
        if not isinstance(self.weight, dict):
            return self.weight
        return self.weight[max(first for first in self.weight if first <= step)]


@dataclass(kw_only=True)
class Mixture(Source):
    """Samples of several sources, of each of which every optimizer step takes its share.

    Sources are what `data=files` takes, or, by a `_target_` of their own, what `data=hub` and
    others do, but for the keys that all sources have: these are the mixture's, once for all.
    Weights of all sources count by their sum. Where some sources have none, the weights are shares
    of the whole, and these share the rest, in proportion to their sizes. One tokenizer is learned
    from the training texts of all sources, whatever their weights.

    Args:
        sources: The sources by their names, each with its `weight` and its `epochs`.
        weigh_by: What shares and sizes count: `tokens`, or `samples` as batches count them. None:
            tokens of text, samples of all else.
        temperature: T, for sources without a weight: their shares are as their sizes^(1/T). 1: as
            their sizes; the larger, the more alike.
        group_by_length: Stays off: each step has its share of each source.
    """

    NODES: ClassVar[Mapping[str, type[Part]]] = {"sources": Part}
    ORDERS: ClassVar[frozenset[str]] = frozenset({"temperature", "weigh_by"})
    """The keys that only say in which order a training takes samples, beside those of sources."""

    sources: dict[str, Any] = field(default_factory=dict)
    weigh_by: Literal["tokens", "samples"] | None = None
    temperature: Annotated[float, Gt(0)] = 1.0
    group_by_length: bool = False

    def __post_init__(self) -> None:
        _check(self)
        shared = {name: getattr(self, name) for name in Part.SHARED}
        self.parts: dict[str, Source] = {}
        for name, part in self.sources.items():
            with _told_of(name):
                self.parts[name] = source = part.make(**shared)
                if isinstance(source, Mixture):
                    raise ConfigError("is a mixture itself. Name its sources beside the others")

    def load(self, kind: Kind) -> Splits:
        """All samples of all sources; see `Source.load`."""
        return joined(self.load_each(lambda source: source.load(kind)))

    def load_each(self, load: Callable[[Source], Splits]) -> dict[str, Splits]:
        """What a function loads of each source; raises what `load` does."""
        found = {}
        for name, source in self.parts.items():
            with _told_of(name):
                found[name] = load(source)
        return found

    def mix(
        self, datasets: Mapping[str, EncodedDataset], counted: str, stats: Mapping[str, Stats]
    ) -> "Mix":
        """How a training goes through the sources.

        Args:
            datasets: The training samples of each.
            counted: What the size of a split is, `tokens` or `samples`, by the kind of samples.
            stats: What is known of the splits of each.

        Raises:
            ConfigError: Weights leave a source or a step nothing, or count what is not counted.
        """
        if self.weigh_by == "tokens" != counted:
            raise ConfigError(
                "data.weigh_by=tokens: only text is weighed by tokens, and these are samples. Set "
                "data.weigh_by=samples"
            )
        for name, dataset in datasets.items():
            if not dataset.lengths.any():
                raise ConfigError(f"{KEY}.{name}: its train split is empty. Give it text, or none")
        rows = np.array([len(dataset) for dataset in datasets.values()])
        by_tokens = (self.weigh_by or counted) == "tokens"
        tokens = np.array([int(dataset.lengths.sum()) for dataset in datasets.values()])
        sizes = tokens if by_tokens else rows
        parts = self.sources.values()
        steps = {step for p in parts if isinstance(p.weight, dict) for step in p.weight}
        shares = [(step, self._shares(step, sizes)) for step in sorted({0, *steps})]
        idle = np.max([each for _, each in shares], axis=0) == 0
        for name, part in self.sources.items():
            if part.weight is None and idle[list(self.sources).index(name)]:
                raise ConfigError(
                    f"{KEY}.{name}: the weights of the other sources leave it nothing. Give it a "
                    "weight, or those a sum below 1"
                )
        of_rows = [(step, each * rows / sizes) for step, each in shares]
        limits = np.array([p.epochs or math.inf for p in parts]) * rows
        places = Places(
            [(step * self.batch_size, each / each.sum()) for step, each in of_rows],
            np.ceil(limits),
        )
        return Mix(tuple(self.sources), rows, sizes, shares, places, self.batch_size, stats)

    def _shares(self, step: int, sizes: npt.NDArray[np.int64]) -> Floats:
        """The share of each source at an optimizer step."""
        weights = [part.weight_at(step) for part in self.sources.values()]
        given = sum(weight for weight in weights if weight is not None)
        without = np.array([weight is None for weight in weights])
        shares = np.array([weight or 0.0 for weight in weights])
        if without.any():
            if given > 1 + 1e-9:
                raise ConfigError(
                    f"{KEY}: the weights sum to {text.figure(given)}, which leaves nothing for "
                    f"{', '.join(n for n, none in zip(self.sources, without, strict=True) if none)}"
                    ". Where a source has no weight, those of the others are shares of 1"
                )
            alike = np.where(without, sizes.astype(float) ** (1 / self.temperature), 0.0)
            return np.asarray(shares + max(0.0, 1 - given) * alike / alike.sum())
        if not given:
            raise ConfigError(f"{KEY}: all weights are 0 from step {step} on. Raise one of them")
        return np.asarray(shares / given)


@dataclass(frozen=True, eq=False)
class Mix:
    """How a training goes through the sources of a mixture.

    Attributes:
        names: The sources.
        rows: Training samples of each, as batches count them [S].
        sizes: The same, in what shares count [S].
        shares: From which optimizer step on each has which share [S]; the first from 0.
        places: Which source each sample of the training comes from.
        batch_size: Samples of an optimizer step.
        stats: Of each source, what is known of its splits.
    """

    names: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    shares: list[tuple[int, Floats]]
    places: Places
    batch_size: int
    stats: Mapping[str, Stats]

    def check(self, steps: int) -> None:
        """Refuse a training that goes on when no source has anything left to give.

        Raises:
            ConfigError: It does.
        """
        end = self.places.end
        if end is not None and end < steps * self.batch_size:
            whole = end // self.batch_size
            raise ConfigError(
                f"{KEY}: their epochs are over after step {whole:,}, and the training has "
                f"{steps:,}. Give a source more epochs or no limit"
                + (f", or set trainer.max_steps={whole}" if whole else "")
            )

    def same_until(self, other: "Mix") -> int | None:
        """How many steps take the same samples as another mix of the same ones; None: all do."""
        place = self.places.same_until(other.places)
        return None if place is None else place // self.batch_size

    def figures(self, steps: int) -> dict[str, float]:
        """Of each source, its share of a training, and how often the training goes through it."""
        taken = self.places.before(steps * self.batch_size)
        of_all = taken * self.sizes / self.rows
        each = zip(self.names, of_all / of_all.sum(), taken / self.rows, strict=True)
        return {
            f"train/{name}/{what}": float(value)
            for name, *values in each
            for what, value in zip(("share", "epochs"), values, strict=True)
        }

    def described(self, steps: int) -> dict[str, dict[str, Any]]:
        """What each source is, and what becomes of it in a training of so many steps."""
        figures = self.figures(steps)
        return {
            name: {
                "splits": {split: dict(self.stats[name][split]) for split in SPLITS},
                "shares": {step: float(each[number]) for step, each in self.shares},
                "share": figures[f"train/{name}/share"],
                "epochs": figures[f"train/{name}/epochs"],
            }
            for number, name in enumerate(self.names)
        }

    def told(self, steps: int) -> Iterator[str]:
        """For each source, its shares in a training, and how often that goes through it."""
        figures = self.figures(steps)
        for number, name in enumerate(self.names):
            courses = [(step, each[number]) for step, each in self.shares if step < steps]
            course = [text.percent(float(courses[0][1]))]
            for (_, before), (step, share) in pairwise(courses):
                if share != before:
                    course.append(f"{text.percent(float(share))} from step {step:,}")
            whole = figures[f"train/{name}/share"]
            of = ", ".join(course)
            if abs(whole - courses[0][1]) > _OFF:
                of += f" ({text.percent(whole)} of the training)"
            passes = figures[f"train/{name}/epochs"]
            yield f"{name} {of}, gone through {text.figure(passes, 3)} times"


def without_order(data: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's `data`, but for what only orders the samples of a mixture (`Mix`)."""
    sources = data.get("sources")
    if not sources:
        return dict(data)
    kept = {k: v for k, v in data.items() if k not in Mixture.ORDERS}
    own = {n: {k: v for k, v in s.items() if k not in Part.ORDERS} for n, s in sources.items()}
    return {**kept, "sources": own}


def joined(parts: Mapping[str, Splits]) -> Splits:
    """The splits of several sources, one behind the other."""
    first, *_ = parts.values()
    train, val, test = (Joint([getattr(p, name) for p in parts.values()]) for name in SPLITS)
    accounts = [splits.cleaned for splits in parts.values()]
    cleaned = {
        split: Account.joined([each[split] for each in accounts if split in each])
        for split in SPLITS
        if any(split in each for each in accounts)
    }
    return Splits(train, val, test, first.kind, fingerprint(parts), origin(parts), cleaned)


def fingerprint(parts: Mapping[str, Splits]) -> str:
    """Hash of the content of all splits of several sources."""
    return _hash({name: splits.fingerprint for name, splits in parts.items()})


def origin(parts: Mapping[str, Splits]) -> dict[str, Any]:
    """Where the samples of several sources came from, as `Splits.origin`."""
    each = {name: splits.origin for name, splits in parts.items()}
    own = {
        name: {k: v for k, v in one.items() if k not in ("files", "fingerprints", "notes")}
        for name, one in each.items()
    }
    hashes = {name: one.get("fingerprints", {}) for name, one in each.items()}
    found: dict[str, Any] = {
        "sources": {name: {**one, "fingerprints": hashes[name]} for name, one in own.items()},
        "files": {
            f"sources.{name}.{split}": files
            for name, one in each.items()
            for split, files in one.get("files", {}).items()
        },
        "fingerprints": {
            split: _hash({name: found[split] for name, found in hashes.items()})
            for split in SPLITS
            if all(split in found for found in hashes.values())
        },
    }
    if any(UNCLEANED in one for one in each.values()):
        before = {name: each[name].get(UNCLEANED, part.fingerprint) for name, part in parts.items()}
        found[UNCLEANED] = _hash(before)
    notes = [f"{KEY}.{name}: {note}" for name, one in each.items() for note in one.get("notes", ())]
    return {**found, "notes": notes} if notes else found


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(list(values.items())).encode()).hexdigest()


def _check(mixture: Mixture) -> None:
    """Refuse sources that cannot be told apart from figures, or have weights that say nothing.

    Raises:
        ConfigError: There is one.
    """
    if not mixture.sources:
        raise ConfigError(f"{KEY}: names no source. Give one as in {KEY}.books.train=books.txt")
    if mixture.group_by_length:
        raise ConfigError(
            "data.group_by_length=true: each step of a mixture has its share of each source, "
            "whatever their lengths. Leave it false"
        )
    for name, part in mixture.sources.items():
        if not re.fullmatch(r"[\w-]+", name) or name in (*BUILT_IN, *SPLITS, "baseline"):
            raise ConfigError(
                f"{KEY}.{name}: figures are called by it, as val/{name}/loss, so it must be of "
                "letters, digits, - and _, and be no figure or split itself. Give it another name"
            )
        each = part.weight.values() if isinstance(part.weight, dict) else (part.weight or 0.0,)
        if not all(map(math.isfinite, each)):
            raise ConfigError(f"{KEY}.{name}.weight={part.weight}: is no share. Give a number")
        if isinstance(part.weight, dict) and 0 not in part.weight:
            raise ConfigError(
                f"{KEY}.{name}.weight: has none before step {min(part.weight, default=0)}. Begin "
                "with step 0, as in {0: 0.9, 1000: 0.5}"
            )
    weights = [part.weight for part in mixture.sources.values()]
    if mixture.temperature != 1 and None not in weights:
        raise ConfigError(
            f"data.temperature={mixture.temperature}: is for sources without a weight, and all "
            "have one. Leave out a weight, or the temperature"
        )


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Have errors say which source they are about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{KEY}.{name}: {error}") from error
