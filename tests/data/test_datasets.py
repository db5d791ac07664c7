import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from truesweep.data.batch import Step, split
from truesweep.data.causal import Rows, Windows
from truesweep.data.datasets import Subset
from truesweep.data.frames import input_frame
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Labelled, Pair
from truesweep.data.seq2seq import Seq2SeqDataset
from truesweep.data.tokenizers import Byte, Char, Pretrained
from truesweep.metrics.likelihood import IGNORED

PAIRS = [Pair("ab", "xyz"), Pair("abcd", "x"), Pair("a", "yy")]
LABELLED = [Labelled("abc", "no"), Labelled("a", "yes"), Labelled("ab", "no")]


@pytest.mark.parametrize("length", [2, 5, 6, 7, 40])
@pytest.mark.parametrize("texts", [["abcdefghijklm"], ["abc", "d", "efghi"]])
def test_windows_have_each_token_but_the_first_as_target_once(
    prepared: Callable[..., Any], texts: list[str], length: int
) -> None:
    data, _ = prepared(texts, max_length=length)
    stream = [t for text in texts for t in [2, *data.tokenizer.encode(text)]][1:]
    windows = data.train
    assert isinstance(windows, Windows)
    batch = windows.collate(range(len(windows)))
    seen = []
    for inputs, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        valid = labels != IGNORED
        seen += list(zip(inputs[valid].tolist(), labels[valid].tolist(), strict=True))
    assert seen == list(pairwise(stream))
    assert sum(batch["lengths"]) == windows.targets == len(stream) - 1
    assert windows.target_counts(20).tolist() == np.bincount(stream[1:], minlength=20).tolist()
    text_bytes = sum(map(len, texts))
    assert windows.bytes_per_target == pytest.approx((text_bytes - 1) / (len(stream) - 1))


def test_only_a_short_window_needs_a_mask(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["abcdefg"], max_length=4)
    assert "attention_mask" not in data.train.collate([0])
    assert "attention_mask" not in data.train.collate([1])
    batch = data.train.collate([0, 1])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"][1].tolist() == [*data.tokenizer.encode("fg"), IGNORED, IGNORED]


def test_texts_on_their_own_are_framed_and_shifted(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["abc", "a", ""], packing=False, max_length=8)
    assert isinstance(data.train, Rows)
    batch = data.train.collate([0, 1, 2])
    assert batch["input_ids"].tolist() == [[1, 4, 5, 6], [1, 4, 0, 0], [1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[4, 5, 6, 2], [4, 2, -100, -100], [2, -100, -100, -100]]
    assert batch["lengths"] == [4, 2, 1]
    assert data.train.bytes_per_target == 4 / 7
    assert data.stats["train"]["truncated"] == 0


def test_a_text_that_is_cut_does_not_end(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["abc", "abcdef", "äbcdef"], packing=False, max_length=4)
    batch = data.train.collate([0, 1])
    assert batch["labels"].tolist() == [[4, 5, 6, 2], [4, 5, 6, 7]]
    assert data.stats["train"]["truncated"] == 2
    assert data.stats["train"]["longest"] == 7
    assert data.train.bytes_per_target == (3 + 4 + 5) / 12


def test_tokens_that_are_cut_off_are_counted_without_being_copied_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("truesweep.data.causal._TOKENS_AT_ONCE", 1000)
    tokenizer = Byte().build([])
    tokens = np.full(500_000, tokenizer.encode("a")[0], dtype=np.uint16)
    texts = Ragged(tokens, np.arange(0, len(tokens) + 1, 500))
    Rows(texts, len(tokens), 10, input_frame(tokenizer, "text"), tokenizer)
    tracemalloc.start()
    rows = Rows(texts, len(tokens), 10, input_frame(tokenizer, "text"), tokenizer)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.bytes_per_target == 1
    assert held < 500_000


@pytest.mark.parametrize(
    ("template", "targets"), [("<s> $A", "abc"), ("$A", "bc"), ("<s> $A </s>", "abc</s>")]
)
def test_pretrained_tokenizers_get_no_other_end(
    prepared: Callable[..., Any], pretrained: Callable[..., Path], template: str, targets: str
) -> None:
    folder = pretrained(template, bos_token="<s>", eos_token="</s>")
    data, _ = prepared(["abc"], Pretrained(name_or_path=str(folder)), packing=False)
    batch = data.train.collate([0])
    assert data.tokenizer.decode(batch["labels"][0]) == targets
    scored = len(targets.replace("</s>", ""))
    assert data.train.bytes_per_target == pytest.approx(scored / batch["lengths"][0])


def test_a_text_of_one_token_has_no_target(
    prepared: Callable[..., Any], pretrained: Callable[..., Path]
) -> None:
    folder = pretrained("$A", bos_token="<s>", eos_token="</s>")
    data, _ = prepared(["a", "bcd"], Pretrained(name_or_path=str(folder)), packing=False)
    assert data.train.bytes_per_target == 1
    alone, both = data.train.collate([0]), data.train.collate([0, 1])
    assert (alone["lengths"], both["lengths"]) == ([0], [0, 2])
    assert alone["labels"].tolist() == [[IGNORED]]
    assert both["labels"][0].tolist() == [IGNORED, IGNORED]
    assert alone["attention_mask"].tolist() == [[1]]
    assert both["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_pairs(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(PAIRS)
    ids = data.tokenizer.convert_tokens_to_ids
    a, b, x, y, z = map(ids, "abxyz")
    batch = data.val.collate([0, 2])
    assert batch["input_ids"].tolist() == [[a, b, 2], [a, 2, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[x, y, z, 2], [y, y, 2, IGNORED]]
    assert batch["decoder_input_ids"].tolist() == [[0, x, y, z], [0, y, y, 2]]
    assert (batch["lengths"], batch["target_lengths"]) == ([3, 2], [4, 3])
    assert (batch["source"], batch["reference"]) == (["ab", "a"], ["xyz", "yy"])
    assert batch["index"] == [0, 2]
    assert data.train.lengths.tolist() == [4, 5, 3]
    assert data.target_counts[[2, x, y, z]].tolist() == [3, 2, 3, 1]


def test_pairs_that_are_cut_still_end(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(PAIRS, max_length=3)
    batch = data.train.collate([0, 1])
    assert batch["input_ids"][1].tolist()[-1] == 2
    assert batch["labels"].tolist()[0][-1] == 2
    assert max(batch["lengths"] + batch["target_lengths"]) == 3
    assert data.stats["train"]["truncated"] == 2
    assert data.stats["train"]["longest"] == 5


def test_the_decoder_starts_where_its_model_says(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(PAIRS)
    assert isinstance(data.train, Seq2SeqDataset)
    data.train.decoder_start_id = 1
    assert data.train.collate([0, 1])["decoder_input_ids"][:, 0].tolist() == [1, 1]


def test_labelled_texts(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(LABELLED)
    assert data.labels == ["no", "yes"]
    batch = data.train.collate([0, 1])
    assert batch["input_ids"].tolist() == [[1, 4, 5, 6, 2], [1, 4, 2, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == batch["lengths"] == [5, 3]
    assert batch["labels"].tolist() == [0, 1]
    assert data.target_counts.tolist() == [2, 1]


@pytest.mark.parametrize(
    "samples", [["abc", "abcd"], PAIRS, LABELLED], ids=["text", "pairs", "labelled"]
)
def test_a_rank_without_samples_gets_a_row_that_counts_for_nothing(
    prepared: Callable[..., Any], samples: list[Any]
) -> None:
    data, _ = prepared(samples, packing=False)
    real = data.val[Step([0, 1], 2)]
    empty = data.val[Step([], 2)]
    assert empty.keys() | {"attention_mask"} == real.keys()
    assert empty["size"] == real["size"] == 2
    assert empty["lengths"] == [0]
    assert empty["input_ids"].shape == (1, 1)
    assert (empty["labels"] == IGNORED).all()
    assert empty.get("source", []) == empty.get("reference", []) == empty.get("index", []) == []
    for key, value in real.items():
        if isinstance(value, torch.Tensor) and key in empty:
            assert (empty[key].dtype, empty[key].dim()) == (value.dtype, value.dim())


def test_a_subset_gives_the_same_samples_numbered_anew(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(LABELLED)
    subset = Subset(data.train, np.array([2, 0]))
    assert subset.collate([1])["index"] == [1]
    assert subset.lengths[np.arange(2)].tolist() == [4, 5]
    assert subset.collate([0])["labels"].tolist() == [0]
    assert (
        subset.collate([0, 1])["input_ids"].tolist()
        == data.train.collate([2, 0])["input_ids"].tolist()
    )


@pytest.mark.parametrize("samples", [["abab", "ba", "b", "aab"], PAIRS, LABELLED], ids=type)
@pytest.mark.parametrize("packing", [True, False])
def test_rows_know_their_places_however_they_are_split(
    prepared: Callable[..., Any], samples: list[Any], packing: bool
) -> None:
    data, _ = prepared(samples, packing=packing, max_length=4)
    batch = {**data.train.collate([2, 0]), "size": 2}
    assert batch["index"] == [2, 0]
    assert [part["index"] for part in split(batch, 1, 3)] == [[2], [0], []]


def test_unknown_characters_are_counted(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(["abab"], Char(), val=["axx"], max_length=2)
    assert Counter({s: v["unknown"] for s, v in data.stats.items()}) == {
        "train": 0,
        "val": 2,
        "test": 0,
    }
    assert data.stats["val"]["bytes"] == 3
