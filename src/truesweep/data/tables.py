"""Tables as rows of chosen columns: JSON lines, CSV, TSV, Parquet, Arrow."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from truesweep.data.readers import DataFile, extension, nearest_first, split_lines
from truesweep.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[
    int, list[Any]
]  # line (of binary formats: row), counted from 1, and the values asked for


class Reader(Protocol):
    """How a format is read."""

    def __call__(
        self, file: DataFile, columns: Sequence[str], optional: bool = False
    ) -> Iterator[Row]:
        """Columns of a table; those that are not there are None if they are optional."""
        ...


def read_jsonl(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """One JSON object a line; a column may be a key of an object within it."""
    for line, text in file.numbered_lines():
        where = f"{file.path}, line {line}"
        yield line, _values(where, _json(where, text), columns, optional)


def read_json(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """A JSON list of objects, counted from 1; or one object a line."""
    begun = next(block.lstrip()[:1] for block in file.blocks() if block.strip())
    if begun != b"[":
        yield from read_jsonl(file, columns, optional)
        return
    for place, row in enumerate(_json(str(file.path), file.text()), 1):
        yield place, _values(f"{file.path}, entry {place}", row, columns, optional)


def read_csv(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """Comma-separated values with a header, quoted as Python's csv module and spreadsheets do."""
    return _with_header(file, _csv_rows(file), columns, optional)


def read_tsv(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """Tab-separated values with a header.

    A `"` is a character like others, unless the file was written with quotes throughout.
    """
    plain = ((line, text.split("\t")) for line, text in file.numbered_lines())
    if not any(re.search('(^|\t)"', line) for line in file.each_line()):
        return _with_header(file, plain, columns, optional)
    quoted = _is_quoted_tsv(file)
    file.notes[QUOTED if quoted else UNQUOTED] = 0
    return _with_header(file, _tsv_rows(file) if quoted else plain, columns, optional)


def read_parquet(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """An Apache Parquet file; rows are counted from 1."""
    import pyarrow as pa  # here, since it takes longer to import than the other formats to read
    import pyarrow.parquet

    def batches(data: Any) -> "Iterator[pa.RecordBatch]":
        table = pa.parquet.ParquetFile(data)
        outer = _outers(file, table.schema_arrow, columns, optional)
        wanted = list(dict.fromkeys(filter(None, outer)))
        yield from table.iter_batches(ROWS, columns=wanted)

    return _arrow_rows(file, columns, optional, "a Parquet", batches)


def read_arrow(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """An Arrow file or stream, as `datasets` and Feather write them; rows are counted from 1."""
    import pyarrow as pa

    def batches(data: Any) -> "Iterator[pa.RecordBatch]":
        if next(file.blocks()).startswith(b"ARROW1"):
            opened = pa.ipc.open_file(data)
            yield from (opened.get_batch(i) for i in range(opened.num_record_batches))
        else:
            yield from pa.ipc.open_stream(data)

    return _arrow_rows(file, columns, optional, "an Arrow", batches)


def _arrow_rows(
    file: DataFile,
    columns: Sequence[str],
    optional: bool,
    kind: str,
    batches: "Callable[[Any], Iterator[pa.RecordBatch]]",
) -> Iterator[Row]:
    import pyarrow as pa

    number = 0
    try:
        data = pa.BufferReader(file.data) if file.is_compressed else pa.memory_map(str(file.path))
        for batch in batches(data):
            batch.validate(full=True)  # offsets that point outside would end the process
            outer = _outers(file, batch.schema, columns, optional)
            nothing = [None] * batch.num_rows
            lists = [nothing if name is None else batch.column(name).to_pylist() for name in outer]
            inner = [
                values
                if name in (column, None)
                else [value and value.get(column) for value in values]
                for name, column, values in zip(outer, columns, lists, strict=True)
            ]
            for row in zip(*inner, strict=True):
                number += 1
                yield number, list(row)
    except DataError:
        raise
    except Exception as error:  # of all kinds, by where the damage is
        raise DataError(
            f"{file.path} is cut off or not {kind} file ({error}). Fetch or write it again."
        ) from error


def _outers(
    file: DataFile, schema: "pa.Schema", columns: Sequence[str], optional: bool
) -> list[str | None]:
    """The columns of a schema that are, or hold, those asked for; None for a missing one."""
    return [
        None if optional and column not in schema.names else _outer(file, schema, column)
        for column in columns
    ]


def _outer(file: DataFile, schema: "pa.Schema", column: str) -> str:
    """The column of a schema that is, or holds, the one asked for."""
    import pyarrow as pa

    within = {f.name: [i.name for i in f.type] for f in schema if pa.types.is_struct(f.type)}
    found = holder(column, schema.names, within)
    if found is None:
        inner = chain.from_iterable(within.values())
        raise missing_column(str(file.path), column, [*schema.names, *inner])
    if schema.names.count(found) > 1:
        raise DataError(f"{file.path}: two columns {found!r}. Rename one of them.")
    return found


ROWS = 1024
"""Rows of a Parquet file, or of a hub dataset, that are read at once."""
LONGEST_FIELD = 2**31 - 1
"""Characters of a field of CSV."""
READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
BINARY = (".parquet", ".arrow", ".feather")
"""Formats without lines: what stands in them is named by its row."""

SEPARATORS = {"semicolons": ";", "tabs": "\t", "commas": ",", "bars": "|"}
ENDINGS = {".csv": ",", ".tsv": "\t"}
HEADERS = "rows that repeat the header, as in joined files, were left out"
QUOTED = 'its fields are quoted as in CSV, with "" for a ", and were read so'
UNQUOTED = 'some of its fields begin with a ", which was taken for a character of theirs'


def read_table(file: DataFile, columns: Sequence[str], optional: bool = False) -> Iterator[Row]:
    """Rows of a table, in the format that its extension names; at least one.

    Args:
        file: The table.
        columns: Those to read.
        optional: Whether a column may be missing; its values are None then.

    Raises:
        DataError: No such column, a malformed row, or no row at all.
    """
    empty = True
    for row in READERS[extension(file.path)](file, columns, optional):
        empty = False
        yield row
    if empty:
        raise DataError(f"{file.path} holds no rows. Give a file that holds samples.")


def holder(column: str, names: Sequence[str], within: Mapping[str, Sequence[str]]) -> str | None:
    """The column that has a name, or that holds mappings with such a key; None: there is none.

    Args:
        column: Its name.
        names: Those of all columns.
        within: The keys of each column of mappings.
    """
    if column in names:
        return column
    return next((outer for outer, keys in within.items() if column in keys), None)


MOST_NAMES, LONGEST_NAME = 20, 60
"""Columns that an error names, and characters of a name: a damaged header may be one of many kB."""


def missing_column(where: str, column: str, present: Sequence[str]) -> DataError:
    """The error for a column that is not there; it names those that are, the nearest first."""
    names = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in present]
    there = ", ".join(nearest_first(column, names)[:MOST_NAMES]) + ", …" * (len(names) > MOST_NAMES)
    return DataError(
        f"{where}: no column {column!r}. There are: {there}. Name it "
        "with data.text_column, data.label_column, data.source or data.target."
    )


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}, column {error.colno}: malformed JSON ({error.msg}). Put one whole JSON "
            "object on each line."
        ) from None
    except _TwiceError as error:
        raise DataError(f"{where}: two values for {error}. Remove one of them.") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number too long
        raise DataError(f"{where}: unusable JSON ({error}). Mend or remove the line.") from None


def _values(where: str, row: Any, columns: Sequence[str], optional: bool) -> list[Any]:
    """The values of a JSON object."""
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: a JSON {type(row).__name__}, not an object. Put one JSON object, such as "
            '{"text": "…"}, on each line.'
        )
    if optional:
        return [row.get(column) for column in columns]
    return [_member(where, row, column) for column in columns]


class _TwiceError(Exception):
    """A key of a JSON object that it has twice; Python would take the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError(repr(next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))))
    return found


def _member(where: str, row: dict[str, Any], column: str) -> Any:
    """A value of an object, or of an object within it."""
    if column in row:
        return row[column]
    within = {k: list(v) for k, v in row.items() if isinstance(v, dict)}
    outer = holder(column, list(row), within)
    nulls = [key for key, value in row.items() if value is None]
    if outer is None and nulls:
        raise DataError(
            f"{where}: no column {column!r}, and {nulls[0]!r}, which may hold it in other rows, is "
            "null. Mend or remove the line."
        )
    if outer is None:
        raise missing_column(where, column, [*row, *chain.from_iterable(within.values())])
    return row[outer][column]


def _is_quoted_tsv(file: DataFile) -> bool:
    """Whether a TSV was written with quotes, as pandas does.

    It was if all fields of its header are quoted, or if whoever quotes what must be quoted and
    nothing else would have written the same text.
    """
    head = next(line for line in file.each_line() if line)
    quoted = all(len(f) > 1 and f[0] == f[-1] == '"' for f in head.split("\t"))
    lines = (line for line in file.each_line() if line)
    width = None
    try:
        for _, row in _tsv_rows(file):
            width = width or len(row)
            if len(row) != width or not (quoted or _begin_with(lines, _written(row))):
                return False
    except csv.Error:
        return False
    return quoted or next(lines, None) is None


def _written(row: Sequence[str]) -> list[str]:
    """The lines of a row that is quoted where it must be."""
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="\t", lineterminator="\n").writerow(row)
    return [line for line in split_lines(written.getvalue()) if line]


def _begin_with(lines: Iterator[str], expected: Sequence[str]) -> bool:
    return all(next(lines, None) == line for line in expected)


def _tsv_rows(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    return _numbered(csv.reader(file.stream(), delimiter="\t", strict=True))


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line that it starts on.

    Raises:
        csv.Error: With the line of a malformed row, and what is wrong with it.
    """
    first = 1  # a quoted field may hold line ends
    try:
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(first, error) from None


def _csv_rows(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        yield from _numbered(csv.reader(file.stream(), strict=True))
    except csv.Error as error:
        line, reason = error.args
        raise DataError(
            f"{file.path}, line {line}: malformed CSV ({reason}). Quote the field as "
            '"…", with "" for a " inside; or use .tsv, which has no quoting.'
        ) from None


def _with_header(
    file: DataFile, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str], optional: bool
) -> Iterator[Row]:
    _, header = next(rows, (1, []))
    for column in columns:
        if column not in header and not optional:
            _refuse_separator(file, column, header)
            raise missing_column(f"{file.path}, line 1 (the header)", column, header)
        if header.count(column) > 1:
            raise DataError(f"{file.path}, line 1: two columns {column!r}. Rename one of them.")
    wanted = [header.index(column) if column in header else None for column in columns]
    again = 0
    for line, row in rows:
        if row == header:
            again += 1
            file.notes[HEADERS] = again  # not added up: a file may be read twice
            continue
        if len(row) != len(header):
            raise DataError(
                f"{file.path}, line {line}: {len(row)} fields, where the header has "
                f"{len(header)}. Mend or remove the line."
            )
        yield line, [None if i is None else row[i] for i in wanted]


def _refuse_separator(file: DataFile, column: str, header: Sequence[str]) -> None:
    """Refuse a table whose columns are one, since something else stands between them."""
    own = extension(file.path)
    for name, separator in SEPARATORS.items():
        if len(header) == 1 and column in [part.strip(' "') for part in header[0].split(separator)]:
            kept = next((end for end, at in ENDINGS.items() if at == separator), None)
            remedy = f"name it {kept}" if kept else "write it with commas as .csv, or tabs as .tsv"
            raise DataError(
                f"{file.path}, line 1 (the header): its columns are separated by {name}, unlike "
                f"those of {own}; {remedy}."
            )
