import bz2
import gzip
import io
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from truesweep.data import Files, Labelled, Pair, Splits
from truesweep.data.readers import DataFile, stream_lines

ROWS = [{"text": 'one "word', "label": "a"}, {"text": "zwei Wörter", "label": "b"}]
SAMPLES = [Labelled(row["text"], row["label"]) for row in ROWS]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    compress = {".gz": gzip, ".bz2": bz2, ".xz": lzma, ".zst": zstandard}.get(Path(name).suffix)
    data = compress.compress(data) if compress else data
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)
    return name


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def same(name: str | list[str], **keys: Any) -> Files:
    """The same files for all three splits."""
    return Files(train=name, val=name, test=name, **keys)


def write_rows(name: str) -> str:
    if name.startswith("rows.parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(ROWS), sink)
        return write(name, sink.getvalue().to_pybytes())
    contents = {
        ".jsonl": jsonl(ROWS),
        ".csv": 'label,text\na,"one ""word"\nb,zwei Wörter\n',
        ".tsv": 'label\ttext\r\na\tone "word\r\n\r\nb\tzwei Wörter\r\n',
    }
    return write(name, next(text for end, text in contents.items() if end in name))


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("compression", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_a_table_gives_the_same_samples_in_every_form(form: str, compression: str) -> None:
    name = write_rows(f"rows{form}{compression}")
    assert same(name).load("labelled").train == SAMPLES
    assert same(name).load("text").train == [row["text"] for row in ROWS]
    pairs = same(name, source="label", target="text").load("pairs")
    assert pairs.test == [Pair(row["label"], row["text"]) for row in ROWS]


def test_other_columns_are_named() -> None:
    name = write("t.CSV", "class,q\n1,who\n2,what\n")
    splits = same(name, text_column="q", label_column="class").load("labelled")
    assert splits.val == [Labelled("who", "1"), Labelled("what", "2")]


def test_a_quoted_csv_field_spans_lines_and_is_kept() -> None:
    name = write("t.csv", 'label,text\na,"two\r\nlines, one field"\n')
    assert same(name).load("labelled").train == [Labelled("two\r\nlines, one field", "a")]


def test_a_long_csv_field_is_read() -> None:
    name = write("t.csv", f"text\n{'x' * 200_000}\n")
    assert same(name).load("text").train == ["x" * 200_000]


def test_numbers_serve_as_labels() -> None:
    name = write("t.jsonl", jsonl([{"text": "x", "label": 3}]))
    assert same(name).load("labelled").train == [Labelled("x", "3")]


def test_packed_plain_text_is_a_document_verbatim_without_its_byte_order_mark() -> None:
    text = "\r\n one\r\n\r\ntwo\u2028\x0c \rthree\n\n"
    name = write("a.txt", "\ufeff" + text)
    assert same(name).load("text").train == [text]


def test_unpacked_plain_text_is_a_sample_a_line() -> None:
    name = write("a.md", "one \r\n\r\n  \ntwo\u2028too")
    assert same(name, packing=False).load("text").train == ["one ", "two\u2028too"]


def test_lists_and_globs_keep_the_order_named_and_name_no_file_twice() -> None:
    for name in ("sub/b.txt", "sub/a.txt", "sub/deep/c.txt", "z.txt"):
        write(name, name)
    train = Files(train=["z.txt", "sub/**/*.txt", "sub/a.txt"], val="z.txt", test="z.txt")
    assert train.load("text").train == ["z.txt", "sub/a.txt", "sub/b.txt", "sub/deep/c.txt"]


def test_a_bracket_in_a_file_name_is_no_glob() -> None:
    assert same(write("a[1].txt", "x")).load("text").train == ["x"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write("home/a.txt", "x")
    write("home/p.de", "ja\n")
    write("home/p.en", "yes\n")
    assert same("~/a.txt").load("text").train == ["x"]
    assert same("~/p", source="de", target="en").load("pairs").train == [Pair("ja", "yes")]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_parallel_text_is_named_by_its_prefix(compression: str) -> None:
    write("data/news.v1.de" + compression, "ja\nnein \n")
    write("data/news.v1.en", "yes\r\nno")
    splits = same("data/news.v1", source="de", target="en").load("pairs")
    assert splits.train == [Pair("ja", "yes"), Pair("nein ", "no")]
    assert same("data/news.v1", source="en", target="de").load("pairs").train[0].source == "yes"  # type: ignore[union-attr]


def test_a_glob_of_prefixes() -> None:
    for name in "ab":
        write(f"p-{name}.de", f"{name} de\n")
        write(f"p-{name}.en.gz", f"{name} en\n")
    splits = same("p-*", source="de", target="en").load("pairs")
    assert splits.train == [Pair("a de", "a en"), Pair("b de", "b en")]


@pytest.mark.parametrize(
    "text", ["a\rb\r", "a\rb", "a\r\nb\rc\n", "\n\na\n", "a", "\ufeffa\n\ufeffb", "a\n\r\n\rb"]
)
def test_a_stream_has_the_lines_of_a_file(text: str) -> None:
    file = DataFile.read(Path(write("a.txt", text)))
    assert list(stream_lines(io.BytesIO(text.encode()), "it")) == file.lines()


def test_several_zstandard_frames_are_one_file() -> None:
    frames = zstandard.compress(b"one\n") + zstandard.compress(b"two\n")
    Path("a.txt.zst").write_bytes(frames)
    assert same("a.txt.zst").load("text").train == ["one\ntwo\n"]


def paragraphs_file(count: int = 400) -> tuple[str, str]:
    text = "\n\n".join(f"paragraph {i}\nof two lines" for i in range(count)) + "\n"
    return write("train.txt", text), text


def test_missing_splits_of_plain_text_take_whole_paragraphs() -> None:
    name, text = paragraphs_file()
    splits = Files(train=name, val_fraction=0.1, test_fraction=0.2).load("text")
    (train,), (val,), (test,) = splits.train, splits.val, splits.test
    assert sorted("".join([train, val, test])) == sorted(text)  # type: ignore[list-item]
    of = [set(part.split("\n\n")) for part in (train, val, test)]  # type: ignore[union-attr]
    assert not (of[0] & of[1] | of[0] & of[2] | of[1] & of[2]) - {""}
    assert 20 < len(of[1]) < 60 < len(of[2]) < 100
    assert splits.origin["split_off"] == {
        "by": "SHA-256 of paragraphs of train",
        "shares": {"val": 0.1, "test": 0.2},
    }


def test_a_text_without_paragraphs_is_divided_by_lines() -> None:
    name = write("t.txt", "title\n\n" + "".join(f"line {i}\n" for i in range(300)))
    splits = Files(train=name).load("text")
    assert "lines of train" in splits.origin["split_off"]["by"]
    (val,) = splits.val
    assert all(line.startswith("line ") for line in str(val).splitlines())


def test_a_given_validation_split_stays_and_only_test_is_split_off() -> None:
    name, _ = paragraphs_file()
    both = Files(train=name).load("text")
    given = Files(train=name, val=write("val.txt", "mine")).load("text")
    assert given.val == ["mine"]
    assert given.test == both.test
    assert list(given.origin["split_off"]["shares"]) == ["test"]


@pytest.mark.parametrize("kind", ["labelled", "pairs", "text"])
def test_missing_splits_of_rows_take_whole_samples(kind: Any) -> None:
    rows = [{"text": f"text {i % 300}", "label": f"{i % 2}"} for i in range(600)]
    name = write("rows.jsonl", jsonl(rows))
    splits = Files(train=name, source="text", target="label").load(kind)
    samples = [splits.train, splits.val, splits.test]
    assert sum(map(len, samples)) == 600
    sets = list(map(set, samples))
    assert not (sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2])


def load_twice(first: str, second: str) -> tuple[Splits, Splits]:
    write("a.txt", first)
    one = same("a.txt", packing=False).load("text")
    write("a.txt", second)
    return one, same("a.txt", packing=False).load("text")


def test_the_fingerprint_follows_content_and_order() -> None:
    one, again = load_twice("a\nb\n", "a\nb")
    assert one.fingerprint == again.fingerprint
    one, turned = load_twice("a\nb\n", "b\na\n")
    assert one.fingerprint != turned.fingerprint
    one, joined = load_twice("a\nb\n", "ab\n")
    assert one.fingerprint != joined.fingerprint


def test_the_fingerprint_tells_splits_apart() -> None:
    a, b = write("a.txt", "a"), write("b.txt", "b")
    first = Files(train=a, val=b, test=b).load("text")
    second = Files(train=a, val=b, test=a).load("text")
    assert first.fingerprint != second.fingerprint


def test_provenance_has_a_hash_of_each_split() -> None:
    a, b = write("a.txt", "a"), write("b.txt", "b")
    hashes = Files(train=a, val=b, test=a).load("text").origin["fingerprints"]
    assert hashes["train"] == hashes["test"] != hashes["val"]
    assert list(hashes) == ["train", "val", "test"]


def test_provenance_names_each_file_with_its_digest() -> None:
    name = write("a.txt", "abc")
    assert same(name).load("text").origin["files"]["val"] == [
        {
            "path": "a.txt",
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "bytes": 3,
        }
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_has_the_lines_that_python_reads(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.data.readers.BLOCK", 3)
    text = end.join(["a", "", "bc\u2028d", "\u00e9", "last", ""]) + "\rx\r\n\ny"
    file = DataFile.read(Path(write("lines.txt", text)))
    assert list(file.stream()) == list(io.StringIO(text, newline=""))


@pytest.mark.parametrize(("ending", "between"), [("csv", ","), ("tsv", "\t")])
def test_a_table_of_texts_is_never_in_memory_whole(
    ending: str, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("readers", "texts"):
        monkeypatch.setattr(f"truesweep.data.{module}.BLOCK", 1 << 16)
    monkeypatch.setattr("truesweep.data.cache._WHOLE", 1 << 16)  # a small file is, to look at it
    lines = "word " * 40 + "\n" + "more " * 40
    rows = (f'"{number}{lines}"{between}x' + "\n" for number in range(6_000))
    path = write(f"large.{ending}", f"text{between}other\n" + "".join(rows))
    size = Path(path).stat().st_size
    tracemalloc.start()
    try:
        splits = Files(train=path, packing=False).load("text")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 6_000
    assert peak < size * 0.4
