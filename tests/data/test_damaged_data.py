"""Data files of every format that were damaged: samples, or a sentence with the file in it."""

import bz2
import gzip
import json
import lzma
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.damage import mutants
from truesweep.data import Files, Kind
from truesweep.errors import UserError

ROWS = [{"text": f"a text, of {i} words", "label": "ab"[i % 2]} for i in range(40)]
EACH = 40
"""Cuts of a file, and flipped bits."""
TABLE = pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]})
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()


def written(write: Callable[[pa.Table, pa.BufferOutputStream], object]) -> bytes:
    sink = pa.BufferOutputStream()
    write(TABLE, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


FORMATS: dict[str, bytes] = {
    "a.txt": "".join(f"{row['text']}\n" for row in ROWS).encode(),
    "a.jsonl": LINES,
    "a.csv": ("text,label\n" + "".join(f'"{r["text"]}",{r["label"]}\n' for r in ROWS)).encode(),
    "a.tsv": ("text\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in ROWS)).encode(),
    "a.parquet": written(pq.write_table),
    "a.feather": written(feather.write_feather),
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
}


@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_samples_or_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(name)
    kind: Kind = "text" if name == "a.txt" else "labelled"
    source = Files(train=name, val=name, test=name)
    file.write_bytes(FORMATS[name])
    assert source.load(kind).train
    for what, data in mutants(name, FORMATS[name], random.Random(0), EACH):
        file.write_bytes(data)
        assert named_or_loaded(source, kind, name), f"{name} {what}"


def named_or_loaded(source: Files, kind: Kind, name: str) -> bool:
    """Whether it loads, or the error that it gives names the file."""
    try:
        source.load(kind)
    except UserError as error:
        return name in str(error)
    return True


def test_offsets_that_point_outside_of_an_arrow_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, TABLE.schema) as file:
        file.write_table(TABLE)
    data = bytearray(sink.getvalue().to_pybytes())
    lengths = [len(row["text"]) for row in ROWS]
    offsets = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    place = data.index(struct.pack(f"<{len(offsets)}i", *offsets))
    data[place + 4 : place + 8] = struct.pack("<i", 2**30)
    Path("a.arrow").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.arrow is cut off or not an Arrow file"):
        Files(train="a.arrow", val="a.arrow", test="a.arrow").load("labelled")
