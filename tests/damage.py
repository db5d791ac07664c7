"""Damaged files, and what commands make of them: a result, or a sentence; never another error."""

import contextlib
import io
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from truesweep.commands import app
from truesweep.errors import UserError, describe_os_error

WRONG: tuple[Any, ...] = (None, "x", [], {}, -1, 1e400, [None], {"a": None}, True)
"""Values of types that few entries have."""
WHOLE = ("[]", "null", "3", '"x"', "{}", "[null]")
"""Documents that are none of ours."""
TREES = (".json", ".yaml")
ROWS = (".jsonl", ".journal")


@dataclass(frozen=True)
class Met:
    """How a command took a fault.

    Args:
        how: `done`, `refused` with a sentence, or `crashed` with any other error.
        said: The sentence, or the error.
        out: What it printed.
        err: What it warned of.
    """

    how: str
    said: str = ""
    out: str = ""
    err: str = ""


def call(*arguments: str) -> Met:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app(list(arguments), standalone_mode=False)
    except (typer.Exit, SystemExit):
        return Met("done", out=out.getvalue(), err=err.getvalue())
    except UserError as error:
        return Met("refused", str(error))
    except Exception as error:
        said = describe_os_error(error) if isinstance(error, OSError) else None
        if said is None:
            return Met("crashed", f"{type(error).__name__}: {error}")
        return Met("refused", said)
    return Met("done", out=out.getvalue(), err=err.getvalue())


def mutants(name: str, data: bytes, rng: random.Random, each: int) -> Iterator[tuple[str, bytes]]:
    """A file as faults leave it: empty, cut short, with flipped bits, overwritten, of other types.

    Args:
        name: The file's name, by whose ending its entries are known.
        data: What stands in it.
        rng: Chooses the places.
        each: How many of each kind.

    Yields:
        What was done, and the bytes.
    """
    yield "empty", b""
    yield "overwritten", rng.randbytes(200)
    for _ in range(each):
        cut, place, bit = (_below(end, rng) for end in (len(data), len(data), 8))
        yield f"cut at {cut}", data[:cut]
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)
    if name.endswith((*TREES, *ROWS)):
        yield from ((f"is {text}", f"{text}\n".encode()) for text in rng.sample(WHOLE, 3))
    if name.endswith(TREES):
        load, dump = (json.loads, json.dumps) if name.endswith(".json") else _YAML
        yield from (
            (what, dump(tree).encode()) for what, tree in _changed(load(data), rng, 3 * each)
        )
    if name.endswith(ROWS):
        yield from _changed_rows(data, rng, 2 * each)


_YAML = (yaml.safe_load, yaml.safe_dump)


def _changed(tree: Any, rng: random.Random, count: int) -> Iterator[tuple[str, Any]]:
    """Trees of which an entry is of another type, or gone."""
    paths = list(_paths(tree, ()))
    for path in rng.sample(paths, min(len(paths), count)):
        copy = json.loads(json.dumps(tree))
        node = copy
        for part in path[:-1]:
            node = node[part]
        if rng.random() < 0.3:
            del node[path[-1]]
            yield f"{path} gone", copy
        else:
            node[path[-1]] = wrong = rng.choice(WRONG)
            yield f"{path} is {wrong!r}", copy


def _paths(tree: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    entries: Any = ()
    if isinstance(tree, dict):
        entries = [(key, value) for key, value in tree.items() if isinstance(key, str)]
    elif isinstance(tree, list):
        entries = enumerate(tree)
    for key, value in entries:
        yield (*above, key)
        yield from _paths(value, (*above, key))


def _below(end: int, rng: random.Random) -> int:
    """A whole number, for one draw: files of other lengths shift no later choice."""
    return int(rng.random() * end)


def _changed_rows(data: bytes, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    lines = data.splitlines()
    for _ in range(count):
        number = _below(len(lines), rng)
        row = json.loads(lines[number])
        if isinstance(row, dict) and row:
            key, wrong = rng.choice(list(row)), rng.choice(WRONG)
            new = json.dumps({**row, key: wrong}).encode()
            rows = [*lines[:number], new, *lines[number + 1 :]]
            yield f"line {number + 1}: {key} is {wrong!r}", b"\n".join(rows) + b"\n"


def damage(
    folder: Path, files: Sequence[str], rng: random.Random, each: int
) -> Iterator[tuple[str, str]]:
    """Damage files one after the other, each time in one way, and put them back.

    Yields:
        The file, and what was done to it; when it is asked for the next, the file is as it was.
    """
    for name in files:
        path = folder / name
        data = path.read_bytes()
        if not data:
            continue
        for what, new in mutants(name, data, rng, each):
            path.write_bytes(new)
            try:
                yield name, what
            finally:
                path.write_bytes(data)


def change_digit(path: Path, behind: str) -> None:
    """Make another of the first digit behind some text."""
    text = path.read_text()
    start = text.index(behind) + len(behind)
    other = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text[start:], count=1)
    path.write_text(text[:start] + other)
