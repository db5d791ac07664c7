"""Columns of a `datasets.Dataset`: plain, classes with names, translations."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from truesweep.data.tables import holder, missing_column
from truesweep.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


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
