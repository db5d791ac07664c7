"""Every way in which files can be wrong: the message names the file, the place and the remedy."""

import bz2
import gzip
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from truesweep.data import Files, Kind
from truesweep.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refuse(kind: Kind, *words: str, error: type[ValueError] = DataError, **keys: Any) -> None:
    """The load fails, and its message holds all of `words`, in this order."""
    keys = {"val": keys["train"], "test": keys["train"]} | keys
    with pytest.raises(error, match=r"(?s)" + ".*".join(map(re.escape, words))):
        Files(**keys).load(kind)


def refuse_content(kind: Kind, name: str, content: str | bytes, *words: str, **keys: Any) -> None:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    refuse(kind, name, *words, train=name, **keys)


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a", None], "label": ["x", "y"], "n": [1.0, 2.0]}), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_a_missing_file_names_the_nearest_one() -> None:
    Path("train.txt").write_text("x")
    refuse("text", "trian.txt does not exist", "did you mean train.txt?", train="trian.txt")


def test_a_missing_file_without_a_near_one_tells_where_paths_start(tmp_path: Path) -> None:
    refuse("text", "a.txt does not exist. Paths are relative to", str(tmp_path), train="a.txt")


def test_a_missing_folder() -> None:
    refuse("text", "no/a.txt does not exist, nor does the folder no", train="no/a.txt")


def test_a_folder_in_place_of_a_file() -> None:
    Path("data").mkdir()
    refuse("text", "data is a folder", "data/*.txt", train="data")


def test_a_glob_that_matches_nothing() -> None:
    refuse("text", "data.train=*.txt", "no file matches", "Correct", train="*.txt")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_list(split: str) -> None:
    Path("a.txt").write_text("x")
    keys: dict[str, Any] = {"train": "a.txt", split: []}
    refuse("text", f"data.{split} is an empty list", **keys)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_an_empty_file(name: str, content: bytes) -> None:
    refuse_content("text", name, content, "is empty", "Give")


def test_an_empty_compressed_file() -> None:
    refuse_content("text", "a.txt.gz", gzip.compress(b""), "is empty")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_header_without_rows(name: str) -> None:
    refuse_content("text", name, "text\n", "holds no rows")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_names_line_and_byte(mark: bytes) -> None:
    offset = len(mark) + 4
    words = ("line 2", f"byte {offset} ", "0xfc", "iconv")
    refuse_content("text", "a.txt", mark + b"ab\n\xc3\xbc"[:-2] + b"x\xfcr\n", *words)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"text": }', "column 10: malformed JSON"),
        ('{"text": "a"', "column 13: malformed JSON"),
        ('["a"]', "a JSON list, not an object"),
        ('{"text": ' + "1" * 5000 + "}", "unusable JSON"),
    ],
)
def test_malformed_json_names_line_and_column(line: str, found: str) -> None:
    refuse_content("text", "a.jsonl", '{"text": "a"}\n\n' + line + "\n", "line 3", found)


def test_half_a_surrogate_pair() -> None:
    content = '{"text": "a\\ud800"}\n'
    refuse_content("text", "a.jsonl", content, "line 1: 'text' holds half a surrogate pair")


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", '{"a": 1, "txt": ""}', "line 1"),
        ("a.csv", "a,txt\n1,2\n", "line 1 (the header)"),
        ("a.tsv", "a\ttxt\n1\t2\n", "line 1 (the header)"),
    ],
)
def test_a_missing_column_names_those_that_exist_nearest_first(
    name: str, content: str, place: str
) -> None:
    refuse_content(
        "text", name, content, f"{place}: no column 'text'. There are: txt, a", "data.text_column"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text;label\na;b\n", "by semicolons, unlike those of .csv; write it with commas"),
        ("a.tsv", '"label"|"text"\na|b\n', "by bars, unlike those of .tsv; write it with commas"),
        ("a.csv", "text\tlabel\na\tb\n", "by tabs, unlike those of .csv; name it .tsv"),
        ("a.tsv", "text,label\na,b\n", "by commas, unlike those of .tsv; name it .csv"),
    ],
)
def test_another_separator_is_named(name: str, content: str, words: str) -> None:
    refuse_content(
        "labelled", name, content, "line 1 (the header): its columns are separated", words
    )


@pytest.mark.parametrize("header", ["\0" * 5_000, "[" * 5_000, ",".join(map(str, range(2_000)))])
def test_a_header_that_is_none_is_not_shown_whole(header: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"{header}\n1\n")
    with pytest.raises(DataError) as refused:
        Files(train=str(file)).load("text")
    assert len(str(refused.value)) < 500 + len(str(file))


def test_a_column_that_is_null_for_once() -> None:
    content = '{"translation": {"de": "a", "en": "b"}}\n{"translation": null}\n'
    words = "line 2: no column 'de', and 'translation', which may hold it in other rows, is null"
    refuse_content("pairs", "a.jsonl", content, words, source="de", target="en")


def test_a_missing_column_of_parquet() -> None:
    words = ("no column 'txt'. There are: text, label, n",)
    refuse_content("text", "a.parquet", parquet(), *words, text_column="txt")


def test_a_column_twice() -> None:
    refuse_content("text", "a.csv", "text,text\n1,2\n", "line 1", "two columns 'text'")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(("row", "count"), [("1", 1), ("1,2,3", 3)])
def test_a_wrong_number_of_fields(name: str, row: str, count: int) -> None:
    content = f"text,label\na,b\n\n{row}\n"
    content = content.replace(",", "\t") if name == "a.tsv" else content
    refuse_content("labelled", name, content, f"line 4: {count} fields", "has 2")


def test_csv_lines_are_counted_past_quoted_line_ends() -> None:
    refuse_content("labelled", "a.csv", 'text,label\n"a\nb",c\nd\n', "line 4: 1 fields")


@pytest.mark.parametrize("row", ['"open,x', '"a"b,x'])
def test_malformed_csv_quotes(row: str) -> None:
    refuse_content("labelled", "a.csv", f"text,label\na,b\n{row}\n", "line 3: malformed CSV")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": null, "label": "a"}', "line 1: 'text' is null"),
        ("a.jsonl", '{"text": 1.5, "label": "a"}', "line 1: 'text' is a float, not a text"),
        ("a.jsonl", '{"text": "a", "label": 1.5}', "line 1: 'label' is a float"),
        ("a.csv", "text,label\na,b\n ,b\n", "line 3: 'text' is empty"),
        ("a.tsv", "text\tlabel\na\tb\nc\t\n", "line 3: 'label' is empty"),
        ("a.parquet", parquet(), "row 2: 'text' is null"),
    ],
)
def test_an_empty_or_unfit_value(name: str, content: str | bytes, words: str) -> None:
    refuse_content("labelled", name, content, words)


def parallel(source: str, target: str) -> dict[str, Any]:
    Path("p.de").write_text(source)
    Path("p.en").write_text(target)
    return {"train": "p", "source": "de", "target": "en"}


def test_unequal_line_counts_name_both_files_and_counts() -> None:
    keys = parallel("a\nb\nc\n", "a\nb\n")
    refuse("pairs", "p.de has 3 lines", "p.en has 2", **keys)


def test_an_empty_line_of_one_side() -> None:
    refuse("pairs", "p.de, line 2", "'p.en' is empty", **parallel("a\nb\n", "a\n\n"))


def test_a_missing_prefix_names_the_nearest_file() -> None:
    keys = parallel("a\n", "b\n") | {"train": "q"}
    refuse("pairs", "q.de does not exist", "p.de", **keys)


def test_a_missing_target_side() -> None:
    keys = parallel("a\n", "b\n") | {"target": "fr"}
    refuse("pairs", "p.fr does not exist", **keys)


def test_a_file_in_place_of_a_prefix() -> None:
    keys = parallel("a\n", "b\n") | {"train": "p.de"}
    refuse("pairs", "data.train=p.de", "PREFIX.de", ".tsv", **keys)


@pytest.mark.parametrize("source", [None, "en"])
def test_pairs_need_two_different_sides(source: str | None) -> None:
    keys = parallel("a\n", "b\n") | {"source": source}
    refuse("pairs", "data.source", "data.target", error=ConfigError, **keys)


def test_an_unknown_extension_lists_the_known_ones() -> None:
    refuse_content("labelled", "a.xlsx", "x", ".jsonl", ".csv", ".tsv", ".parquet")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_outside_train_names_its_file_and_line(split: str) -> None:
    Path("train.tsv").write_text("text\tlabel\na\tHUM\nb\tLOC\n")
    Path("eval.tsv").write_text("text\tlabel\nc\tHUM\nd\tNUM\ne\tNUM\n")
    words = ("eval.tsv, line 3", f"'NUM' is in {split}", "HUM, LOC", "Add")
    keys: dict[str, Any] = {"train": "train.tsv", split: "eval.tsv"}
    refuse("labelled", *words, **keys)


def test_classes_of_one_text_each_leave_nothing_to_split_off() -> None:
    rows = "".join(f"text {i}\tlabel {i}\n" for i in range(200))
    Path("t.tsv").write_text("text\tlabel\n" + rows)
    words = ("There is no sample for val, of 200", "classes that nothing would be left of")
    refuse("labelled", *words, train="t.tsv", val=None, test=None)


def test_too_little_to_split_off() -> None:
    words = ("There is no sample for val", "data.val_fraction")
    Path("a.txt").write_text("one line\n")
    refuse("text", *words, train="a.txt", val=None, test=None)


def test_shares_that_leave_nothing() -> None:
    Path("a.txt").write_text("x")
    keys: dict[str, Any] = {"val_fraction": 0.6, "test_fraction": 0.4}
    words = ("data.val_fraction=0.6", "under 1")
    refuse("text", *words, error=ConfigError, train="a.txt", val=None, test=None, **keys)


TEXT = b"".join(b"line %d\n" % i for i in range(5000))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_compressed_file(form: str, damage: str) -> None:
    whole = COMPRESS[form](TEXT)
    data = whole[: len(whole) // 2] if damage == "cut" else b"no such format"
    refuse_content("text", f"a.txt{form}", data, f"cut off or not a {form} file", "again")


@pytest.mark.parametrize("size", [-20, 30])
def test_a_damaged_parquet_file(size: int) -> None:
    refuse_content("text", "a.parquet", parquet()[:size], "cut off or not a Parquet file")


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
@pytest.mark.parametrize("content", [b"ARROW1\0\0 and no more", b"no such format"])
def test_a_damaged_arrow_file(name: str, content: bytes) -> None:
    refuse_content("text", name, content, "cut off or not an Arrow file")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_column_twice_in_a_binary_table(name: str) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    sink = pa.BufferOutputStream()
    if name == "a.parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    refuse_content("text", name, sink.getvalue().to_pybytes(), "two columns 'text'. Rename")


def test_a_key_twice_in_a_json_object() -> None:
    content = '{"text": "a"}\n{"text": "b", "text": "c"}\n'
    refuse_content("text", "a.jsonl", content, "line 2: two values for 'text'")


def test_utf16_is_named() -> None:
    refuse_content("text", "a.txt", "text\n".encode("utf-16"), "iconv -f UTF-16")
