"""Texts that are larger than memory: blocks change nothing, and nothing is read twice."""

import gzip
import json
import random
import re
import shutil
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from truesweep.data import Files, encode, splitting
from truesweep.data.cache import file_digest
from truesweep.data.kinds import TEXT
from truesweep.data.prepare import Prepared, prepare
from truesweep.data.readers import DataFile, Document
from truesweep.data.samples import hash_splits, text_bytes
from truesweep.data.splitting import divide, divide_stored, lines, paragraphs, split_off
from truesweep.data.texts import Text, Texts, TextsWriter, beginning, blocks
from truesweep.data.tokenizers import Bpe, Byte
from truesweep.errors import DataError

WORDS = ["one", "two", "", "drei\tvier", "naïve", "中文", "🙂", "3.14", "it's"]
ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r", "none": " "}
SHARES = {"val": 0.2, "test": 0.3}


def text(end: str, sentences: int = 200, seed: int = 0) -> str:
    rng = random.Random(seed)
    parts = [
        " ".join(rng.choices(WORDS, k=rng.randrange(1, 9))) + end * rng.choice((1, 1, 2, 3))
        for _ in range(sentences)
    ]
    return end + "".join(parts)


@pytest.fixture(params=[1 << 20, 7, 64], ids=lambda size: f"blocks of {size}")
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that are read at once."""
    for module in ("texts", "readers", "splitting"):
        monkeypatch.setattr(f"truesweep.data.{module}.BLOCK", request.param)
    return int(request.param)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(tmp_path / "cache"))


def stored(folder: Path, texts: Sequence[str]) -> Texts:
    with TextsWriter(folder, "all") as writer:
        for one in texts:
            writer.add([one.encode()])
    return Texts(folder, "all")


def test_stored_texts_are_the_same_texts(small: int, tmp_path: Path) -> None:
    texts = [text("\n", n, n) for n in (1, 40, 3, 2, 1)] + ["", "a", "\u4e2d" * 50]
    found = stored(tmp_path, texts)
    assert found == texts
    assert found != texts[:-1]
    assert found[-2:] == texts[-2:]
    assert [str(part) for part in found.parts()] == texts
    assert ["".join(blocks(part, 5)) for part in found.parts()] == texts
    assert [beginning(part, 3) for part in found.stored()] == [one[:3] for one in texts]
    assert hash_splits([found, found]) == hash_splits([texts, texts])
    assert found.size == sum(len(one.encode()) for one in texts)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("documents", [True, False])
def test_what_was_divided_before_a_kill_is_kept(
    documents: bool, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text(end, 20, seed) for seed in range(30)]
    whole, expected, found = (tmp_path / name for name in ("whole", "expected", "found"))
    for folder in (whole, expected, found):
        folder.mkdir()
    given = stored(whole, texts)
    monkeypatch.setattr("truesweep.data.division.PART", 200)
    parts, how, _ = divide_stored(given, SHARES, documents, expected)
    calls, kills, position = [0], 0, splitting._position

    def killed_now_and_then(read: Text) -> float:
        calls[0] += 1
        if calls[0] % 25 == 0:
            raise KeyboardInterrupt
        return position(read)

    monkeypatch.setattr(splitting, "_position", killed_now_and_then)
    while True:
        try:
            again, same, _ = divide_stored(given, SHARES, documents, found)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills
    assert again == parts
    assert same == how


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_what_was_read_before_a_kill_is_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.data.readers.BLOCK", 1000)
    monkeypatch.setattr("truesweep.data.stored.PART", 1500)
    whole = "\ufeff" + text("\n", 400) + "\u4e2d\U0001f642" * 2000
    content = whole.encode()
    if name.endswith("jsonl"):
        rows = [text("\n", 5, n) for n in range(100)]
        content = "".join(json.dumps({"text": row, "n": 1}) + "\n" for row in rows).encode()
    first, second = tmp_path / "first.txt", tmp_path / name
    first.write_text(text("\n", 200, 7))
    second.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    source = Files(train=[str(first), str(second)], val=str(first), test=str(first))
    expected = TEXT.load(source)
    shutil.rmtree(tmp_path / "cache")
    commit, write = TextsWriter.commit, TextsWriter.write
    written, commits, kills = 0, 0, 0

    def killed_now_and_then(writer: TextsWriter) -> tuple[int, int]:
        nonlocal commits
        commits += 1
        if commits % 5 == 0:  # each time three are those of the splits' ends
            raise KeyboardInterrupt
        return commit(writer)

    def counted(writer: TextsWriter, block: bytes) -> None:
        nonlocal written
        written += len(block)
        write(writer, block)

    monkeypatch.setattr(TextsWriter, "write", counted)
    monkeypatch.setattr(TextsWriter, "commit", killed_now_and_then)
    found = None
    while found is None:
        try:
            found = TEXT.load(source)
        except KeyboardInterrupt:
            kills, commits = kills + 1, 0
            assert kills < 50
    assert kills > 2
    assert (found.train, found.val, found.test) == (expected.train, expected.val, expected.test)
    assert found.fingerprint == expected.fingerprint
    total = sum(text_bytes(part, "text") for part in (found.train, found.val, found.test))
    assert written <= total + kills * 2500  # a part, and the block that fills it


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_wrong_byte_is_named_by_its_line_wherever_reading_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.data.readers.BLOCK", 64)
    content = "\ufeff" + text("\n", 50) + "\U0001f642" * 99
    raw = content.encode() + b"\n\xff\n"
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    file, size = DataFile.read(tmp_path / name), len(raw) - 3
    said = set()
    for start in (0, 1, 2, 3, 700, *range(size - 23, size - 3)):
        with pytest.raises(DataError, match=f"line {content.count(chr(10)) + 2}: ") as error:
            list(file.utf8_blocks(start))
        said.add(str(error.value))
    assert len(said) == 1


def test_a_kill_while_texts_are_divided_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text(text("\n"))
    source = Files(train=str(tmp_path / "a.txt"))
    read, texts_of = [], Files._texts_of

    def counted(self: Files, groups: Any) -> Any:
        read.append(groups)
        return texts_of(self, groups)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Files, "_texts_of", counted)
    with monkeypatch.context() as patched:
        patched.setattr(splitting, "_cut_units", killed)
        with pytest.raises(KeyboardInterrupt):
            TEXT.load(source)
    assert TEXT.load(source).train == TEXT.load(source).train
    assert len(read) == 1
    (entry,) = (tmp_path / "cache" / "texts").iterdir()
    names = {"manifest.json", "splits.json"}
    names |= {f"{s}.{kind}" for s in ("train", "val", "test") for kind in ("txt", "offsets.bin")}
    assert {file.name for file in entry.iterdir()} == names


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("documents", [True, False])
def test_texts_are_divided_as_ever(small: int, documents: bool, end: str, tmp_path: Path) -> None:
    texts = [text(end, 100, seed) for seed in range(3)] + [f"only {end}{end} one{end}"]
    for given in (texts, texts[:1]):
        parts, how, notes = divide_stored(stored(tmp_path, given), SHARES, documents, tmp_path)
        if len(given) > 1 and not documents:
            sides = split_off(given, SHARES)
            assert parts == sides or not all(sides.values())  # those are filled, as below
            assert how["by"] == "SHA-256 of samples of train"
        else:
            assert parts == by_hand(given)
        listed = divide(given, SHARES, documents)
        assert parts == listed[0]
        assert (how, notes) == listed[1:]


def test_texts_are_hashed_once_where_each_split_gets_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Text] = []
    position = splitting._position

    def counted(read: Text) -> float:
        hashed.append(read)
        return position(read)

    monkeypatch.setattr(splitting, "_position", counted)
    texts = [text("\n", 3, seed) for seed in range(40)]
    parts, _, notes = divide_stored(stored(tmp_path, texts), SHARES, False, tmp_path)
    assert all(parts.values())
    assert not notes
    assert hashed == texts


def by_hand(texts: Sequence[str]) -> dict[str, list[str]]:
    """What the division of documents comes to, without blocks."""
    for cut in (paragraphs, lines, partial(re.findall, r"[^\r]*\r|[^\r]+")):
        parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for one in texts:
            for name, taken in split_off(cut(one), SHARES).items():
                parts[name] += ["".join(map(str, taken))] if taken else []
        if all(parts.values()):
            return parts
    parts = {"train": [], "val": [], "test": []}
    for one in texts:
        test = len(one) - int(len(one) * SHARES["test"])
        val = test - int(len(one) * SHARES["val"])
        for name, part in zip(parts, (one[:val], one[val:test], one[test:]), strict=True):
            parts[name].append(part)
    return parts


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz", "t.txt.zst", "t.jsonl", "t.parquet"])
def test_files_are_read_in_blocks(small: int, name: str, end: str, tmp_path: Path) -> None:
    documents = [text(end, 30, seed) for seed in range(3)]
    path = tmp_path / name
    if name == "t.jsonl":
        path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    elif name == "t.parquet":
        pq.write_table(pa.table({"text": documents}), path, row_group_size=1)
    else:
        documents = documents[:1]
        data = b"\xef\xbb\xbf" + documents[0].encode()
        data = gzip.compress(data) if path.suffix == ".gz" else data
        path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    splits = Files(train=str(path), val=str(path), test=str(path)).load("text")
    assert splits.train == splits.val == splits.test == documents
    assert splits.fingerprint == hash_splits([documents] * 3)


def test_what_is_no_utf8_is_named_in_any_block(small: int, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\u4e2d\n".encode() * 20 + b"abc \xe4\xb8\n")
    for packing in (True, False):
        with pytest.raises(DataError, match=r"line 21: .* byte 84 .*0xe4"):
            Files(train=str(path), packing=packing).load("text")


def prepared(path: Path, **keys: Any) -> Prepared:
    return prepare(Files(train=str(path), max_length=16, **keys), Bpe(vocab_size=300), TEXT)


def test_texts_are_written_once_and_again_when_they_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "t.txt", []
    path.write_text(text("\n"))
    after = Document.after

    def counted(document: Document, size: int) -> Iterator[bytes]:
        read.append(size)
        return after(document, size)

    monkeypatch.setattr(Document, "after", counted)
    first = prepared(path)
    again = prepared(path, batch_size=4)
    assert read == [0]
    assert again.fingerprint == first.fingerprint
    path.write_text(text("\n", seed=1))
    assert prepared(path).fingerprint != first.fingerprint
    assert read == [0, 0]


def test_a_large_file_is_known_by_its_time_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.data.cache._WHOLE", 100)
    monkeypatch.setattr("truesweep.data.cache._BLOCK", 1)
    path = tmp_path / "t.bin"
    path.write_bytes(bytes(1000))
    first = file_digest(path)
    monkeypatch.setattr("truesweep.data.cache.full_digest", lambda path: "new")
    assert file_digest(path) == first
    assert file_digest(path, full=True) == "new"
    assert file_digest(path) == "new"  # what all of it was found to be holds from then on
    monkeypatch.setattr("truesweep.data.cache.full_digest", lambda path: "newer")
    path.write_bytes(bytes(7) + b"x" + bytes(992))  # at another time, where no sample is
    assert file_digest(path) == "newer"


def test_memory_does_not_grow_with_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("texts", "readers", "splitting"):
        monkeypatch.setattr(f"truesweep.data.{module}.BLOCK", 1 << 14)
    monkeypatch.setattr(encode, "PIECE", 1 << 10)
    monkeypatch.setattr("truesweep.data.texts.PIECE", 1 << 10)
    monkeypatch.setattr("truesweep.data.leakage._HASHED_AT_ONCE", 1 << 12)
    monkeypatch.setattr(encode, "BATCH", 1 << 14)
    monkeypatch.setattr("truesweep.data.ragged._AT_ONCE", 1 << 14)
    for most in ("_AT_ONCE", "_JUDGED", "_JUDGED_NGRAMS"):
        monkeypatch.setattr(f"truesweep.data.leakage.{most}", 1 << 8)
    monkeypatch.setattr("truesweep.data.cache._WHOLE", 1 << 14)
    monkeypatch.setattr("truesweep.data.cache._BLOCK", 1 << 6)
    sizes = []
    for copies in (300, 1200):
        path = tmp_path / f"{copies}.txt"
        path.write_text("".join(f"line {i} of some text\n\n" * 20 for i in range(copies)))
        tracemalloc.start()
        prepare(Files(train=str(path)), Byte(), TEXT)
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 500_000
    assert sizes[1] < sizes[0] + 100_000


def test_words_are_learned_from_pieces_of_what_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("truesweep.data.texts.PIECE", 1000)
    monkeypatch.setattr(Bpe, "sample", 20_000)
    learned: list[str] = []
    build = Bpe.build

    def counted(config: Bpe, texts: Any) -> Any:
        learned.extend(texts)
        return build(config, learned)

    monkeypatch.setattr(Bpe, "build", counted)
    path = tmp_path / "t.txt"
    path.write_text(text("\n", 4000))
    prepared(path)
    assert 10_000 < sum(len(piece.encode()) for piece in learned) <= 21_000
    assert learned[0][:50] in path.read_text()[:5000]
    assert any(piece[:50] in path.read_text()[-20_000:] for piece in learned)
    told = " ".join(capsys.readouterr().err.split())
    assert "learns from one piece in" in told
    assert "no more than 20,000 bytes of it are learned from" in told


@pytest.mark.parametrize(("repeats", "sample"), [(False, None), (True, None), (False, 30_000)])
def test_of_words_that_are_never_repeated_no_more_is_learned_than_fits_memory(
    repeats: bool,
    sample: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("DIFFERENT", 40_000), ("_PIECE", 500), ("_PIECES", 40)):
        monkeypatch.setattr(f"truesweep.data.token_cache.{name}", value)
    monkeypatch.setattr("truesweep.data.texts.PIECE", 1000)
    monkeypatch.setattr("truesweep.data.token_cache.PIECE", 1000)
    if sample is not None:
        monkeypatch.setattr(Bpe, "sample", sample)
    learned: list[str] = []
    build = Bpe.build

    def counted(config: Bpe, texts: Any) -> Any:
        seen = list(texts)
        learned.extend(seen)
        return build(config, seen)

    monkeypatch.setattr(Bpe, "build", counted)
    rng = random.Random(0)
    kinds = ["".join(rng.choices("ACGT", k=60)) for _ in range(4)]
    lines = (
        rng.choice(kinds) if repeats else "".join(rng.choices("ACGT", k=60)) for _ in range(4000)
    )
    path = tmp_path / "t.txt"
    path.write_text("\n".join(lines))
    prepared(path)
    assert (sum(map(len, learned)) < 60_000) is not repeats
    told = "hardly a word of it is repeated" in " ".join(capsys.readouterr().err.split())
    assert told is not (repeats or sample is not None)


def test_a_file_is_looked_at_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(" \n" * 1000 + "x")
    assert DataFile.read(path).size == 2001
