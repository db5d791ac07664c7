"""Tables as rows of chosen columns: JSON lines, CSV, TSV, Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from truesweep.data.paths import extension, nearest_first
from truesweep.data.readers import DataFile
from truesweep.errors import DataError

Row = tuple[int, list[Any]]  # line (Parquet: row), counted from 1, and the values asked for
Reader = Callable[[DataFile, Sequence[str]], Iterator[Row]]


def read_jsonl(file: DataFile, columns: Sequence[str]) -> Iterator[Row]:
    """One JSON object a line."""
    for line, text in file.numbered_lines():
        row = _json_object(f"{file.path}, line {line}", text)
        try:
            yield line, [row[column] for column in columns]
        except KeyError as error:
            raise missing_column(f"{file.path}, line {line}", error.args[0], list(row)) from None


def read_csv(file: DataFile, columns: Sequence[str]) -> Iterator[Row]:
    """Comma-separated values with a header, quoted as Python's csv module and spreadsheets do."""
    text = file.text()
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    return _with_header(file, _csv_rows(file, text), columns)


def read_tsv(file: DataFile, columns: Sequence[str]) -> Iterator[Row]:
    """Tab-separated values with a header, without quoting: a `"` is a character like others."""
    rows = ((line, text.split("\t")) for line, text in file.numbered_lines())
    return _with_header(file, rows, columns)


def read_parquet(file: DataFile, columns: Sequence[str]) -> Iterator[Row]:
    """An Apache Parquet file; rows are counted from 1."""
    import pyarrow as pa  # here, since it takes longer to import than the other formats to read
    import pyarrow.parquet

    try:
        table = pa.parquet.ParquetFile(pa.BufferReader(file.data))
        present = table.schema_arrow.names
        for column in columns:
            if column not in present:
                raise missing_column(str(file.path), column, present)
        values = table.read(columns=list(dict.fromkeys(columns)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file.path} is cut off or not a Parquet file ({error}). Fetch or write it again."
        ) from error
    lists = [values.column(column).to_pylist() for column in columns]
    return ((n, list(row)) for n, row in enumerate(zip(*lists, strict=True), 1))


READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def read_table(file: DataFile, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a table, in the format that its extension names; at least one.

    Raises:
        DataError: No such column, a malformed row, or no row at all.
    """
    empty = True
    for row in READERS[extension(file.path)](file, columns):
        empty = False
        yield row
    if empty:
        raise DataError(f"{file.path} holds no rows. Give a file that holds samples.")


def missing_column(where: str, column: str, present: Sequence[str]) -> DataError:
    """The error for a column that is not there; it names those that are, the nearest first."""
    there = ", ".join(nearest_first(column, present))
    return DataError(
        f"{where}: no column {column!r}. There are: {there}. Name it "
        "with data.text_column, data.label_column, data.source or data.target."
    )


def _json_object(where: str, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}, column {error.colno}: malformed JSON ({error.msg}). Put one whole JSON "
            "object on each line."
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number too long
        raise DataError(f"{where}: unusable JSON ({error}). Mend or remove the line.") from None
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: a JSON {type(row).__name__}, not an object. Put one JSON object, such as "
            '{"text": "…"}, on each line.'
        )
    return row


def _csv_rows(file: DataFile, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1  # the line that the row starts on: a quoted field may hold line ends
    try:
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file.path}, line {first}: malformed CSV ({error}). Quote the field as "
            '"…", with "" for a " inside; or use .tsv, which has no quoting.'
        ) from None


def _with_header(
    file: DataFile, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str]
) -> Iterator[Row]:
    _, header = next(rows, (1, []))
    for column in columns:
        if column not in header:
            raise missing_column(f"{file.path}, line 1 (the header)", column, header)
        if header.count(column) > 1:
            raise DataError(f"{file.path}, line 1: two columns {column!r}. Rename one of them.")
    wanted = [header.index(column) for column in columns]
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{file.path}, line {line}: {len(row)} fields, where the header has "
                f"{len(header)}. Mend or remove the line."
            )
        yield line, [row[i] for i in wanted]
