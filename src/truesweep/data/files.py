"""`data=files`: samples from the user's own files."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from truesweep.data.readers import COMPRESSED, DataFile, Document, extension, find, listed, matches
from truesweep.data.records import LINES, Columns, Located, Rows, are_lines, ended, to_samples, told
from truesweep.data.samples import Kind, Labelled, Splits
from truesweep.data.splitting import Parts, check_labels, complete, divide, shares
from truesweep.data.stored import Blocks, stored
from truesweep.data.tables import BINARY, READERS, Row, read_table
from truesweep.errors import DataError

Group = tuple[DataFile, ...]  # one file, or the two sides of a parallel text


@dataclass(kw_only=True)
class Files(Columns):
    """Samples from files, which are named by paths or globs, relative to the current folder.

    Formats go by extension, before `.gz`, `.bz2`, `.xz` or `.zst`: `.jsonl`, `.csv`, `.tsv`,
    `.parquet`, `.arrow`, `.feather`; what is none of these is plain text, in UTF-8. A plain text is
    one document where `packing` is on, and a sample for each line otherwise. Pairs in plain text
    are named by what stands before the language: `train=data/train` with `source=de target=en` for
    `data/train.de` and `data/train.en`, line by line. TSV has no quoting, unless the whole file was
    written with it. What was done to samples beyond reading them is said.

    Args:
        train: Training files.
        val: Validation files. None: split off from `train` by content hash.
        test: Test files. None: split off likewise.
    """

    train: str | list[str]
    val: str | list[str] | None = None
    test: str | list[str] | None = None

    def load(self, kind: Kind) -> Splits:
        """Read all files; see `Source.load`."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        groups = {
            name: self._groups(kind, name) for name, spec in named.items() if spec is not None
        }
        origin = {name: [f.origin() for g in of for f in g] for name, of in groups.items()}
        missing = shares(self, groups)
        if kind == "text":
            return self._stored(groups, {"files": origin}, missing)
        parts: Parts = {
            name: [sample for group in of for _, sample in self._samples(kind, group)]
            for name, of in groups.items()
        }
        how: dict[str, Any] = {}
        notes: list[str] = []
        if missing:
            divided, split_off, notes = divide(parts["train"], missing)
            parts |= divided
            how = {"split_off": split_off}
        splits = complete(kind, parts, {"files": origin, **how}, [*_told(groups), *notes])
        check_labels(splits, lambda name, label: self._locate(groups, name, label))
        return splits

    def _stored(
        self, groups: dict[str, list[Group]], origin: dict[str, Any], missing: dict[str, float]
    ) -> Splits:
        tables = any(_is_table(file) for (file, *_) in groups["train"])
        return stored(
            {"origin": origin, "packing": self.packing, "column": self.text_column},
            {name: partial(self._texts_of, of) for name, of in groups.items()},
            missing,
            documents=bool(self.packing) and not tables,
            origin=origin,
            told=lambda: _told(groups),
            full=self.verify == "full",
        )

    def _texts_of(self, groups: list[Group]) -> Iterator[Blocks]:
        return chain.from_iterable(self._texts(file) for (file,) in groups)

    def _texts(self, file: DataFile) -> Iterator[Blocks]:
        """The texts of a file, each in blocks of UTF-8."""
        if not _is_table(file) and self.packing:
            yield Document(file)
            return
        rows = partial(read_table, file, self.columns("text"))
        if _is_table(file) and self.packing and are_lines(rows()):
            file.notes[LINES] = 0
            yield (ended(text).encode() for _, (text,) in rows())
            return
        for _, sample in self._samples("text", (file,)):
            yield (str(sample).encode(),)

    def _groups(self, kind: Kind, name: str) -> list[Group]:
        spec, key = getattr(self, name), f"data.{name}"
        if kind != "pairs":
            return [(self._file(path),) for path in find(spec, key)]
        groups: list[Group] = []
        for pattern in listed(spec, key):
            if extension(pattern) in READERS:
                groups += [(self._file(path),) for path in find(pattern, key)]
            else:
                groups += [tuple(map(self._file, both)) for both in self._parallel(pattern, key)]
        return groups

    def _file(self, path: Path) -> DataFile:
        return DataFile.read(path, self.verify == "full")

    def _parallel(self, pattern: str, key: str) -> Iterator[tuple[Path, Path]]:
        """The two files of each prefix that a pattern names."""
        source, target = self.columns("pairs")
        found = _sides(pattern, source)
        if not found and Path(pattern).is_file():
            raise DataError(
                f"{key}={pattern}: not a table. Name the PREFIX of PREFIX.{source} and "
                f"PREFIX.{target}, or a file in one of {', '.join(READERS)}."
            )
        for path in found or [Path(f"{pattern}.{source}").expanduser()]:
            plain = path.with_suffix("") if path.suffix in COMPRESSED else path
            prefix = str(plain).removesuffix(f".{source}")
            other = _sides(prefix, target) or [Path(f"{prefix}.{target}")]
            yield path, other[0]

    def _samples(self, kind: Kind, group: Group) -> Iterator[Located]:
        file = group[0]
        rows: Rows
        if len(group) == 2:
            columns, rows = [str(other.path) for other in group], _line_pairs(*group)
        elif _is_table(file):
            columns = self.columns(kind)
            rows = read_table(file, columns, optional=kind == "chats")
        elif kind == "text":
            return file.numbered_lines()
        else:
            raise DataError(
                f"{file.path}: not a table that the program knows. Use one of {', '.join(READERS)}."
            )
        return to_samples(kind, columns, rows, lambda place: _where(file, place), file.notes)

    def _locate(self, groups: dict[str, list[Group]], name: str, label: str) -> str:
        """Where a label first stands: read again, rather than keep a place for every sample."""
        for group in groups.get(name, groups["train"]):
            for place, sample in self._samples("labelled", group):
                if isinstance(sample, Labelled) and sample.label == label:
                    return _where(group[0], place)
        raise AssertionError(f"label {label!r} is in none of the files that it came from")


def _told(groups: dict[str, list[Group]]) -> list[str]:
    """What was done to the samples of all files."""
    of = chain.from_iterable(groups.values())
    return told({" and ".join(str(file.path) for file in group): group[0].notes for group in of})


def _is_table(file: DataFile) -> bool:
    return extension(file.path) in READERS


def _where(file: DataFile, place: int) -> str:
    unit = "row" if extension(file.path) in BINARY else "line"
    return f"{file.path}, {'line or entry' if extension(file.path) == '.json' else unit} {place}"


def _sides(prefix: str, language: str) -> list[Path]:
    """Files of one language under a prefix or a glob of prefixes; the plain one comes first."""
    return [path for end in ("", *COMPRESSED) for path in matches(f"{prefix}.{language}{end}")]


def _line_pairs(source: DataFile, target: DataFile) -> Iterator[Row]:
    """The lines of two files side by side."""
    left, right = source.lines(), target.lines()
    shorter, longer = sorted((left, right), key=len)
    if any(line.strip() for line in longer[len(shorter) :]):
        raise DataError(
            f"{source.path} has {len(left)} lines and {target.path} has {len(right)}. Line n of "
            "one must belong to line n of the other: mend the files."
        )
    return ((n, list(both)) for n, both in enumerate(zip_longest(left, right, fillvalue=""), 1))
