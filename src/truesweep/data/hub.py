"""`data=hub`: samples from the Hugging Face hub, or from a folder laid out like a hub dataset."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truesweep.data.paths import nearest_first
from truesweep.data.records import Columns, Located, Rows, join_lines, to_samples, told
from truesweep.data.samples import Kind, Labelled, Splits
from truesweep.data.splitting import Parts, check_labels, complete, divide, shares
from truesweep.data.tables import holder, missing_column
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
        read: dict[str, Counter[str]] = {spec: Counter() for spec in specs.values()}
        parts: Parts = {
            name: [sample for _, sample in self._samples(kind, builder, spec, read[spec])]
            for name, spec in specs.items()
        }
        notes = told({f"{self.name}, split {spec}": found for spec, found in read.items()})
        origin = self._origin(builder, specs)
        if missing := shares(self, parts):
            divided, how, said = divide(parts["train"], missing)
            parts |= divided
            origin, notes = {**origin, "split_off": how}, [*notes, *said]
        splits = complete(kind, parts, origin, notes)
        check_labels(splits, lambda name, label: self._locate(builder, specs, name, label))
        return splits

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
        where, columns = f"{self.name}, split {spec}", self.columns(kind)
        try:
            dataset = builder.as_dataset(split=spec)
        except ValueError as error:
            raise ConfigError(f"{where}: {error} Write a slice as train[:10%], say.") from error
        rows: Rows = read_rows(dataset, columns, where, optional=kind == "chats")
        if kind == "text" and self.packing:
            rows = join_lines(rows, notes)
        return to_samples(kind, columns, rows, lambda place: f"{where}, row {place}", notes)

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
    """The values of columns, rows counted from 1.

    Args:
        dataset: The table.
        columns: Those to read.
        where: Words for the table.
        optional: Whether a column may be missing; its values are None then.
    """
    nothing = [None] * len(dataset)
    columns_read = (
        nothing if optional and name not in dataset.column_names else _column(dataset, name, where)
        for name in columns
    )
    return enumerate(zip(*columns_read, strict=True), 1)


def _column(dataset: "Dataset", name: str, where: str) -> list[Any]:
    """A column, or what a column of dictionaries holds under that name; classes by their names."""
    if name in dataset.column_names:
        values = list(dataset[name])
        names = getattr(dataset.features[name], "names", None)
        return values if names is None else _class_names(names, values, where)
    within = {outer: _keys(feature) for outer, feature in dataset.features.items()}
    if outer := holder(name, (), within):
        return [value and value.get(name) for value in dataset[outer]]
    inner = chain.from_iterable(within.values())
    raise missing_column(where, name, [*dataset.column_names, *inner])


def _keys(feature: Any) -> Sequence[str]:
    """Names within a column: of a `Translation`, or of a dictionary."""
    keys: Sequence[str] = getattr(feature, "languages", None) or (
        list(feature) if isinstance(feature, dict) else []
    )
    return keys


def _class_names(
    names: Sequence[str], values: Sequence[int | None], where: str
) -> list[str | None]:
    if -1 in values:
        raise DataError(
            f"{where}, row {values.index(-1) + 1}: the class is -1, as where labels are kept "
            "secret. Name another split, or null to split one off: data.test_split=null"
        )
    return [None if value is None else names[value] for value in values]
