"""Files as people have them: what is read is what was written, and what is done to it is said."""

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pytest
import zstandard

from truesweep.data import Files, Labelled, Pair, Splits
from truesweep.data.hub import Hub
from truesweep.errors import DataError

TEXTS = ['"What?" she said', 'a "word"', "tab\there", "two\nlines", "plain", '12" wide']


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def load(name: str, kind: Any, content: str | bytes | None = None, **keys: Any) -> Splits:
    """A file that is all three splits."""
    if content is not None:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return Files(train=name, val=name, test=name, **keys).load(kind)


def notes(splits: Splits) -> str:
    return "; ".join(splits.origin.get("notes", ()))


# -- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"quoting": 1}, {"lineterminator": "\r\n"}])
def test_a_tsv_of_pandas_gives_the_texts_that_were_written(options: dict[str, Any]) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": "x"})
    frame.to_csv("t.tsv", sep="\t", index=False, **options)
    splits = load("t.tsv", "labelled")
    assert splits.train == [Labelled(text, "x") for text in TEXTS]
    assert 't.tsv: its fields are quoted as in CSV, with "" for a "' in notes(splits)


@pytest.mark.parametrize(("name", "end"), [("t.csv", ","), ("t.tsv", "\t")])
def test_the_headers_of_joined_files_are_no_samples(name: str, end: str) -> None:
    part = f"text{end}label\none{end}x\ntwo{end}y\n"
    splits = load(name, "labelled", part + part.replace("one", "three") + part)
    assert [sample.text for sample in splits.train] == ["one", "two", "three", "two", "one", "two"]  # type: ignore[union-attr]
    assert {sample.label for sample in splits.train} == {"x", "y"}  # type: ignore[union-attr]
    assert "rows that repeat the header, as in joined files, were left out (2 of" in notes(splits)


@pytest.mark.parametrize("text", ['"Hello"', '"Hello," he said', '"open', '""', '"a"" b"'])
def test_quotes_of_a_tsv_without_quoting_are_characters(text: str) -> None:
    splits = load("t.tsv", "labelled", f"text\tlabel\n{text}\tx\nother\ty\n")
    expected = 'a" b' if text == '"a"" b"' else text  # as only one who quotes would write it
    assert splits.train[0] == Labelled(expected, "x")
    assert "t.tsv: " in notes(splits)


def test_a_tsv_without_a_leading_quote_says_nothing() -> None:
    splits = load("t.tsv", "labelled", 'text\tlabel\nsay "x"\ty\n')
    assert splits.train == [Labelled('say "x"', "y")]
    assert not notes(splits)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl"])
def test_labels_have_no_spaces_around_them(name: str) -> None:
    rows = [("a", "pos"), ("b", "pos "), ("c", "\u00a0neg"), ("d", "neg")]
    gap = "," if name == "t.csv" else "\t"
    content = "".join(gap.join(row) + "\n" for row in [("text", "label"), *rows])
    if name == "t.jsonl":
        content = "".join(json.dumps({"text": t, "label": k}) + "\n" for t, k in rows)
    splits = load(name, "labelled", content)
    assert [s.label for s in splits.train] == ["pos", "pos", "neg", "neg"]  # type: ignore[union-attr]
    assert f"{name}: labels with spaces around them were taken without these (2 of" in notes(splits)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl"])
def test_tables_with_any_end_of_line_and_a_byte_order_mark(name: str, mark: str, end: str) -> None:
    lines = ["text,label", "one,a", "two,b", ""]
    if name == "t.tsv":
        lines = [line.replace(",", "\t") for line in lines]
    if name == "t.jsonl":
        lines = ['{"text": "one", "label": "a"}', '{"text": "two", "label": "b"}', ""]
    splits = load(name, "labelled", mark + end.join(lines))
    assert splits.train == [Labelled("one", "a"), Labelled("two", "b")]


@pytest.mark.parametrize("form", ["feather", "stream", "file", "datasets"])
def test_arrow_in_every_form(form: str) -> None:
    rows = [{"text": "one", "label": 1}, {"text": "two", "label": 0}]
    table = pa.Table.from_pylist(rows)
    name = "t.feather" if form == "feather" else "t.arrow"
    if form == "feather":
        feather.write_feather(table, name)
    elif form == "datasets":
        datasets.Dataset.from_list(rows).save_to_disk("folder")
        name = str(next(Path("folder").glob("*.arrow")))
    else:
        new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with new(name, table.schema) as writer:
            writer.write_table(table)
    assert load(name, "labelled").train == [Labelled("one", "1"), Labelled("two", "0")]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.arrow"])
def test_translations_in_one_column(name: str) -> None:
    rows = [{"id": i, "translation": {"de": f"ja {i}", "en": f"yes {i}"}} for i in range(3)]
    if name == "t.jsonl":
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name == "t.parquet":
        datasets.Dataset.from_list(rows).to_parquet(name)
    else:
        feather.write_feather(pa.Table.from_pylist(rows), name, compression="uncompressed")
    splits = load(name, "pairs", source="de", target="en")
    assert splits.train == [Pair(f"ja {i}", f"yes {i}") for i in range(3)]
    with pytest.raises(DataError, match=r"no column 'fr'. There are: .*translation.*de, en"):
        load(name, "pairs", source="fr", target="en")


WIKITEXT = ["", " = Title = \n", "", " One paragraph . \n", " Its end . \n", "", " Two . \n"]


@pytest.mark.parametrize("packing", [True, False])
def test_the_empty_rows_of_wikitext(packing: bool) -> None:
    Path("hub").mkdir()
    names = {"train": "train", "val": "validation", "test": "test"}
    for split in names.values():
        dataset = datasets.Dataset.from_list([{"text": row} for row in WIKITEXT])
        dataset.to_parquet(f"hub/{split}.parquet")
    files: Any = {split: f"hub/{file}.parquet" for split, file in names.items()}
    joined = ["\n = Title = \n\n One paragraph . \n Its end . \n\n Two . \n"]
    alone = [row for row in WIKITEXT if row]
    for source in (Files(**files, packing=packing), Hub(name="hub", packing=packing)):
        splits = source.load("text")
        assert splits.train == (joined if packing else alone)
        assert ("were joined" if packing else "without a text were left out (3 of") in notes(splits)


def test_empty_rows_between_documents_join_nothing() -> None:
    content = "".join(json.dumps({"text": t}) + "\n" for t in ("one\n", "", "two"))
    splits = load("t.jsonl", "text", content)
    assert splits.train == ["one\n", "two"]
    assert "left out (1 of them)" in notes(splits)


# -- plain text --------------------------------------------------------------------------------


def parallel(source: str, target: str) -> Splits:
    Path("p.de").write_bytes(source.encode())
    Path("p.en").write_bytes(target.encode())
    return load("p", "pairs", source="de", target="en")


@pytest.mark.parametrize(
    ("source", "target", "left_out"),
    [
        ("a\n\nb\n", "x\n \ny\n", 1),
        ("a\nb\n\n\n", "x\ny\n\n\n", 2),
        ("a\nb\n\n", "x\ny\n", 1),
        ("a\nb", "x\ny\n\n\n", 2),
        ("\ufeffa\r\nb\r\n", "x\ry\r", 0),
    ],
)
def test_pairs_of_blank_lines_are_left_out(source: str, target: str, left_out: int) -> None:
    splits = parallel(source, target)
    assert splits.train == [Pair("a", "x"), Pair("b", "y")]
    expected = f"p.de and p.en: rows that are blank on both sides were left out ({left_out} of them"
    assert notes(splits).startswith(expected) if left_out else not notes(splits)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a\n\nb\n", "x\ny\nz\n", "p.de, line 2: 'p.de' is empty"),
        ("a\nb\n", "x\n\n", "p.de, line 2: 'p.en' is empty"),
        ("a\nb\n\n", "x\n", "p.de has 3 lines and p.en has 1"),
    ],
)
def test_a_blank_line_of_one_side_is_named(source: str, target: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parallel(source, target)


@pytest.mark.parametrize("packing", [True, False])
def test_a_text_of_one_line_is_cut_by_characters(packing: bool) -> None:
    text = "".join(chr(97 + i % 26) for i in range(1000))
    Path("t.txt").write_text(text)
    splits = Files(train="t.txt", val_fraction=0.1, test_fraction=0.2, packing=packing).load("text")
    assert [*splits.train, *splits.val, *splits.test] == [text[:700], text[700:800], text[800:]]
    assert "data.train: has too few lines to divide" in notes(splits)
    assert splits.origin["split_off"]["by"] == "characters of train, its last ones"


def test_a_text_of_carriage_returns_is_divided_by_lines() -> None:
    Path("t.txt").write_bytes(b"".join(b"line %d\r" % i for i in range(300)))
    splits = Files(train="t.txt").load("text")
    assert "lines of train" in splits.origin["split_off"]["by"]
    assert all(str(part).endswith("\r") for part in (*splits.val, *splits.test))


def test_zstandard_with_a_long_window() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = stream.compress(b"some text\n" * 100) + stream.flush()
    assert load("t.txt.zst", "text", content).train == ["some text\n" * 100]


# -- classes -----------------------------------------------------------------------------------


def test_a_class_is_never_evaluated_that_is_not_trained() -> None:
    for seed in range(30):
        rows = [(f"text {seed} {i}", f"often {i % 2}") for i in range(100)]
        rows += [(f"rare {seed} {i}", f"once {i}") for i in range(8)]
        rows += [(f"pair {seed} {i}", f"twice {i // 2}") for i in range(8)]
        frame = pd.DataFrame(rows, columns=["text", "label"])
        frame.to_csv("t.csv", index=False)
        splits = Files(train="t.csv", val_fraction=0.2, test_fraction=0.2).load("labelled")
        parts = [splits.train, splits.val, splits.test]
        assert sorted(map(len, parts))[-1] == len(splits.train)
        assert sum(map(len, parts)) == len(rows)
        labels = [{s.label for s in part} for part in parts]  # type: ignore[union-attr]
        assert labels[1] | labels[2] <= labels[0]
        assert {f"once {i}" for i in range(8)}.isdisjoint(labels[1] | labels[2])


def test_a_split_that_lacks_no_class_stays_as_it_was() -> None:
    rows = [Labelled(f"text {i}", f"{i % 3}") for i in range(300)]
    pd.DataFrame([{"text": s.text, "label": s.label} for s in rows]).to_csv("t.csv", index=False)
    splits = Files(train="t.csv").load("labelled")
    places = [[rows.index(s) for s in part] for part in (splits.val, splits.test)]  # type: ignore[arg-type]
    assert [sum(part) for part in places] == [2737, 3129]  # as before classes mattered
    assert not notes(splits)
