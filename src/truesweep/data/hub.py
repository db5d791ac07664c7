"""`data=hub`: samples from the Hugging Face hub, or from a folder laid out like a hub dataset."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truesweep.data.readers import nearest_first
from truesweep.data.records import (
    LINES,
    Columns,
    Located,
    Rows,
    are_lines,
    ended,
    to_samples,
    told,
)
from truesweep.data.samples import Kind, Labelled, Splits
from truesweep.data.splitting import Parts, check_labels, complete, divide, shares
from truesweep.data.stored import Blocks, stored
from truesweep.data.tables import ROWS, holder, missing_column
from truesweep.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder


@dataclass(kw_only=True)
class Hub(Columns):
    """Samples that `datasets.load_dataset` finds, with an optional install: `truesweep[hub]`.

    Classes may be numbers with names (`ClassLabel`); the two sides of a translation may be columns
    or the keys of one (`{"translation": {"de": …, "en": …}}`). A split may be a slice, such as
    `train[:10%]`. Where the data have no `validation` or no `test`, or None is named, that split
    is split off from the training samples by content hash.

    Args:
        name: Repository on the hub, or a local folder.
        config: Its configuration, where there are several.
        revision: Its commit, branch or tag; None: the newest.
        train_split: Name of the training split.
        val_split: Name of the validation split.
        test_split: Name of the test split.
    """

    name: str
    config: str | None = None
    revision: str | None = None
    train_split: str = "train"
    val_split: str | None = "validation"
    test_split: str | None = "test"

    def load(self, kind: Kind) -> Splits:
        """Fetch what is not in the cache, and make samples; see `Source.load`."""
        self.columns(kind)  # fails before anything is fetched
        builder = self._prepared()
        specs = self._specs(list(builder.info.splits))
        if kind == "text":
            return self._stored(builder, specs)
        read: dict[str, Counter[str]] = {spec: Counter() for spec in specs.values()}
        parts: Parts = {
            name: [sample for _, sample in self._samples(kind, builder, spec, read[spec])]
            for name, spec in specs.items()
        }
        notes = self._told(read)
        origin = self._origin(builder, specs)
        if missing := shares(self, parts):
            divided, how, said = divide(parts["train"], missing)
            parts |= divided
            origin, notes = {**origin, "split_off": how}, [*notes, *said]
        splits = complete(kind, parts, origin, notes)
        check_labels(splits, lambda name, label: self._locate(builder, specs, name, label))
        return splits

    def _stored(self, builder: "DatasetBuilder", specs: dict[str, str]) -> Splits:
        read: dict[str, Counter[str]] = {spec: Counter() for spec in specs.values()}
        origin = self._origin(builder, specs)
        # The folder is another one for each state of a local one.
        state = {"folder": str(builder.cache_dir), "datasets": version("datasets")}
        return stored(
            {"origin": origin, "packing": self.packing, "column": self.text_column, **state},
            {name: partial(self._texts, builder, spec, read[spec]) for name, spec in specs.items()},
            shares(self, specs),
            documents=False,
            origin=origin,
            told=lambda: self._told(read),
            full=self.verify == "full",
        )

    def _texts(self, builder: "DatasetBuilder", spec: str, notes: Counter[str]) -> Iterator[Blocks]:
        """The texts of a split, in blocks; those that are the lines of one text are one."""

        def rows() -> Rows:
            return self._rows("text", builder, spec)

        if self.packing and are_lines(rows()):
            notes[LINES] = 0
            yield (ended(text).encode() for _, (text,) in rows())
            return
        for _, sample in self._samples("text", builder, spec, notes):
            yield (str(sample).encode(),)

    def _told(self, read: Mapping[str, Counter[str]]) -> list[str]:
        return told({f"{self.name}, split {spec}": found for spec, found in read.items()})

    def _prepared(self) -> "DatasetBuilder":
        """What `load_dataset` makes before it returns; it knows the splits' names."""
        try:
            import datasets
        except ImportError as error:
            raise ConfigError(
                "data=hub needs the package datasets: pip install truesweep[hub]"
            ) from error
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        try:
            path = Path(self.name).expanduser()
            cache = _cache(path, Path(datasets.config.HF_DATASETS_CACHE)) if path.is_dir() else None
            builder = datasets.load_dataset_builder(
                str(path), self.config, revision=self.revision, cache_dir=cache
            )
            builder.download_and_prepare()
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise DataError(
                f"data.name={self.name} data.config={self.config} data.revision={self.revision}: "
                f"{error}{cause}"
            ) from error
        return builder

    def _specs(self, names: list[str]) -> dict[str, str]:
        """The splits to load: all that are named, less a `validation` or `test` there is none of.

        Raises:
            ConfigError: Another name than these is not among the `names` of the data.
        """
        specs = {}
        for key, name, optional in (
            ("train", self.train_split, None),
            ("val", self.val_split, "validation"),
            ("test", self.test_split, "test"),
        ):
            if name is None or (name == optional and name not in names):
                continue
            wanted = {part.split("[")[0].strip() for part in name.split("+")}
            if not wanted <= set(names):
                raise ConfigError(
                    f"data.{key}_split={name}: {self.name} has no such split. There are: "
                    f"{', '.join(nearest_first(name, names))}."
                )
            specs[key] = name
        return specs

    def _samples(
        self, kind: Kind, builder: "DatasetBuilder", spec: str, notes: Counter[str]
    ) -> Iterator[Located]:
        where, rows = f"{self.name}, split {spec}", self._rows(kind, builder, spec)
        columns = self.columns(kind)
        return to_samples(kind, columns, rows, lambda place: f"{where}, row {place}", notes)

    def _rows(self, kind: Kind, builder: "DatasetBuilder", spec: str) -> Rows:
        where = f"{self.name}, split {spec}"
        try:
            dataset = builder.as_dataset(split=spec)
        except ValueError as error:
            raise ConfigError(f"{where}: {error} Write a slice as train[:10%], say.") from error
        return read_rows(dataset, self.columns(kind), where, optional=kind == "chats")

    def _origin(self, builder: "DatasetBuilder", specs: dict[str, str]) -> dict[str, Any]:
        origin = {
            "name": self.name,
            "config": builder.config.name,
            "revision": builder.hash,  # the commit, for data on the hub
            "splits": specs,
        }
        return {"hub": origin}

    def _locate(
        self, builder: "DatasetBuilder", specs: dict[str, str], name: str, label: str
    ) -> str:
        spec = specs.get(name, self.train_split)
        for place, sample in self._samples("labelled", builder, spec, Counter()):
            if isinstance(sample, Labelled) and sample.label == label:
                return f"{self.name}, split {spec}, row {place}"
        raise AssertionError(f"label {label!r} is not in the split that it came from")


def _cache(folder: Path, caches: Path) -> str:
    """A cache for each state of a local folder.

    Where its README names the files, `datasets` (5.2) does not see that they have changed, and
    gives what it read before.
    """
    state = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.rglob("*")):
        stat = path.stat()
        state.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return str(caches / f"truesweep-{state.hexdigest()[:16]}")


# -- columns of hub datasets -----------------------------------------------------------------------


def read_rows(
    dataset: "Dataset", columns: Sequence[str], where: str, optional: bool = False
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The values of columns, rows counted from 1; a part of them is in memory at a time.

    Args:
        dataset: The table.
        columns: Those to read.
        where: Words for the table.
        optional: Whether a column may be missing; its values are None then.
    """
    outer = [_outer(dataset, name, where, optional) for name in columns]
    named = [getattr(dataset.features.get(name), "names", None) for name in columns]
    wanted = list(dict.fromkeys(filter(None, outer)))
    table = dataset.select_columns(wanted)
    for start in range(0, len(dataset), ROWS):
        count = min(ROWS, len(dataset) - start)
        part = table[start : start + count] if wanted else {}
        values = [
            _column(part, name, within, count) for name, within in zip(columns, outer, strict=True)
        ]
        known = [
            column if names is None else _class_names(names, column, where, start)
            for column, names in zip(values, named, strict=True)
        ]
        yield from enumerate(zip(*known, strict=True), start + 1)


def _outer(dataset: "Dataset", name: str, where: str, optional: bool) -> str | None:
    """The column that has a name, or holds dictionaries with it; None of one that is missing."""
    within = {outer: _keys(feature) for outer, feature in dataset.features.items()}
    if optional and name not in dataset.column_names:
        return None
    if outer := holder(name, dataset.column_names, within):
        return outer
    inner = chain.from_iterable(within.values())
    raise missing_column(where, name, [*dataset.column_names, *inner])


def _column(part: Mapping[str, Any], name: str, outer: str | None, count: int) -> list[Any]:
    """A column of some rows, or what a column of dictionaries holds under that name."""
    if outer is None:
        return [None] * count
    values = list(part[outer])
    return values if outer == name else [value and value.get(name) for value in values]


def _keys(feature: Any) -> Sequence[str]:
    """Names within a column: of a `Translation`, or of a dictionary."""
    keys: Sequence[str] = getattr(feature, "languages", None) or (
        list(feature) if isinstance(feature, dict) else []
    )
    return keys


def _class_names(
    names: Sequence[str], values: Sequence[int | None], where: str, before: int
) -> list[str | None]:
    if -1 in values:
        raise DataError(
            f"{where}, row {before + values.index(-1) + 1}: the class is -1, as where labels are "
            "kept secret. Name another split, or null to split one off: data.test_split=null"
        )
    return [None if value is None else names[value] for value in values]
