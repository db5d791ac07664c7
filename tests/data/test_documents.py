"""Documents side by side in a window: none sees another."""

import copy
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch.nn import functional
from transformers import PreTrainedModel

from truesweep.data import causal
from truesweep.data.batch import Batch, split
from truesweep.data.frames import Frame
from truesweep.data.masked import MASKED_TEXT
from truesweep.data.prepare import prepare
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Labelled
from truesweep.data.tokenizers import Byte, Pretrained
from truesweep.errors import ConfigError
from truesweep.jobs.compiling import compile_model
from truesweep.metrics.likelihood import IGNORED
from truesweep.models import Scratch
from truesweep.models.adapters import add_adapter
from truesweep.models.batching import keep_documents_apart
from truesweep.models.dropout import SampleDropout, recompute_layers
from truesweep.tasks.lm import LanguageModeling, causal_logits

TEXTS = [
    "one",
    "",
    "a longer text",
    "two",
    "x",
    "fourteen bytes",
    "seventeen bytes, and 30 more bytes",
]
LENGTH = 16
KNOWING = (
    *("gpt2", "gpt_neox", "gptj", "llama", "qwen3", "mistral", "phi3", "olmo2", "stablelm"),
    *("starcoder2", "gemma3_text", "mixtral", "cohere", "granite"),
)
RUNNING_ON = (
    *("lfm2", "lfm2_moe", "mamba", "mamba2", "falcon_mamba", "recurrent_gemma"),
    *("bamba", "falcon_h1", "jamba", "nemotron_h", "olmo_hybrid", "qwen3_next", "zamba2"),
)
MIXING = ("rwkv", "bloom", "opt")


def built(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    scratch = Scratch(architecture=architecture, depth=2, width=32, heads=2)
    model = scratch.build("causal", Byte().build(()), max_length=LENGTH)
    model.eval()
    return model


def targets(batch: Batch) -> list[tuple[int, ...]]:
    """Each target with the tokens that it may be predicted from."""
    found = []
    for ids, labels, places in zip(
        *(batch[key].tolist() for key in ("input_ids", "labels", "position_ids")), strict=True
    ):
        for i, label in enumerate(labels):
            if label != IGNORED:
                found.append((*ids[i - places[i] : i + 1], label))
    return found


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("framed", [True, False])
def test_each_token_is_a_target_once_behind_those_of_its_own_text(
    framed: bool,
    at_once: int,
    prepared: Callable[..., Any],
    pretrained: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(causal, "_AT_ONCE", at_once)
    tokenizer = (
        Byte() if framed else Pretrained(name_or_path=str(pretrained("$A", eos_token="</s>")))
    )
    data, _ = prepared(TEXTS, tokenizer, packing="documents", max_length=LENGTH)
    alone, _ = prepared(TEXTS, tokenizer, packing=False, max_length=LENGTH * 9)
    batch = data.train.collate(range(len(data.train)))
    wanted = []
    for text in range(len(TEXTS)):
        row = alone.train.collate([text])
        ids, labels = row["input_ids"][0].tolist(), row["labels"][0].tolist()
        for i in range(row["lengths"][0]):
            wanted.append((*ids[i // LENGTH * LENGTH : i + 1], labels[i]))
    assert sorted(targets(batch)) == sorted(wanted)
    assert data.train.targets == len(wanted) == alone.train.targets
    assert data.train.bytes_per_target == pytest.approx(alone.train.bytes_per_target)
    assert (data.train.target_counts(data.classes) == alone.train.target_counts(data.classes)).all()
    assert max(batch["lengths"]) <= LENGTH
    assert len(data.train) < sum(-(-int(n) // LENGTH) for n in alone.train.lengths)
    assert data.train.truncated == data.train.cut == 0
    assert (batch["labels"] != IGNORED).sum(1).tolist() == batch["lengths"]


def test_windows_are_split_as_others(prepared: Callable[..., Any]) -> None:
    data, _ = prepared(TEXTS, Byte(), packing="documents", max_length=LENGTH)
    batch = {**data.train.collate([3, 0, 1]), "size": 3}
    parts = list(split(batch, 1, 4))
    assert [part["lengths"] for part in parts] == [[n] for n in (*batch["lengths"], 0)]
    for row, part in enumerate(parts[:3]):
        width = batch["lengths"][row]
        assert (
            part["position_ids"].tolist() == batch["position_ids"][row : row + 1, :width].tolist()
        )


def loss_and_gradients(model: PreTrainedModel, batches: list[Batch]) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    total = torch.zeros(())
    for batch in batches:
        logits, labels = causal_logits(model, batch), batch["labels"]
        total = total + functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
    total.backward()  # type: ignore[no-untyped-call]
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return total.item(), torch.cat(parts)


def check_documents(model: PreTrainedModel, prepared: Callable[..., Any]) -> None:
    """Compare loss and gradients of packed documents to those of each on its own."""
    texts = TEXTS[:-1]  # no longer than a window
    packed, _ = prepared(texts, Byte(), packing="documents", max_length=LENGTH)
    alone, _ = prepared(texts, Byte(), packing=False, max_length=LENGTH)
    one, gradient = loss_and_gradients(model, [alone.train.collate([i]) for i in range(len(texts))])
    other, its_gradient = loss_and_gradients(
        model, [packed.train.collate(list(range(len(packed.train))))]
    )
    assert len(packed.train) < len(texts)
    assert other == pytest.approx(one, rel=1e-5)
    assert (its_gradient - gradient).abs().max() < 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", KNOWING)
def test_loss_and_gradients_are_those_of_single_documents(
    architecture: str, attention: str, prepared: Callable[..., Any]
) -> None:
    model = built(architecture)
    model.set_attn_implementation(attention)
    keep_documents_apart(model, 64)
    check_documents(model, prepared)


@pytest.mark.parametrize("architecture", RUNNING_ON)
def test_layers_that_run_over_whole_rows_take_documents_one_by_one(
    architecture: str, prepared: Callable[..., Any]
) -> None:
    model = built(architecture)
    keep_documents_apart(model, 64)
    check_documents(model, prepared)


def test_what_a_model_does_in_long_rows_only_is_found_in_short_ones() -> None:
    model = built("doge")
    keep_documents_apart(model, 2048)
    with pytest.raises(ConfigError, match="doge lets tokens see the documents beside their own"):
        keep_documents_apart(model, 2049)
    assert model.model.layers[0].self_attn.keep_window_size == 2048


@pytest.mark.parametrize("packing", ["documents", False])
def test_what_is_shown_to_be_continued_is_of_one_text(
    packing: str | bool, prepared: Callable[..., Any]
) -> None:
    data, _ = prepared(["one", "a longer text"], Byte(), packing=packing, max_length=32)
    task = LanguageModeling(model=built("lfm2"), tokenizer=data.tokenizer)
    task.evaluate(data.train.collate(list(range(len(data.train)))), "test")
    assert data.tokenizer.decode(task.prompt) == "<bos>one"
    assert data.tokenizer.decode(data.train.collate([0])["input_ids"][0, :4]) == "<bos>one"


def kept_for_gradients(model: PreTrainedModel, window: list[int]) -> int:
    """Bytes that the backward pass needs of a window of documents of these lengths."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = [(np.full(n, 7), np.full(n, 7)) for n in window]
    batch = causal.side_by_side([tokens], np.array([sum(window)]), 0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = causal_logits(model, batch)
    assert logits.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("architecture", ["lfm2", "mamba2"])
def test_short_documents_take_little_more_memory_than_a_long_one(architecture: str) -> None:
    model = built(architecture)
    keep_documents_apart(model, 64)
    assert kept_for_gradients(model, [8] * 8) < 2.5 * kept_for_gradients(model, [64])


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer")
@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("lfm2", {"target_modules": ["in_proj"]}),
        ("lfm2", {"target_modules": ["in_proj"], "modules_to_save": ["conv.conv"]}),
        ("lfm2", {"target_modules": ["w1"], "modules_to_save": ["layers.0.conv"]}),
        ("recurrent_gemma", {"target_modules": ["conv_1d"], "r": 32}),
    ],
)
def test_documents_stay_apart_in_a_model_with_an_adapter(
    architecture: str, fields: dict[str, Any], prepared: Callable[..., Any]
) -> None:
    model = built(architecture)
    config = LoraConfig(init_lora_weights=False, **fields)
    add_adapter(model, config, "causal", 0)
    keep_documents_apart(model, 64)
    check_documents(model, prepared)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:The .grad attribute")
@pytest.mark.parametrize("how", ["copied", "computed twice", "compiled"])
def test_documents_stay_apart_however_a_model_is_run(
    how: str, prepared: Callable[..., Any]
) -> None:
    model: Any = built("lfm2")
    keep_documents_apart(model, 64)
    if how == "copied":
        model = copy.deepcopy(model)
    elif how == "computed twice":
        recompute_layers(model.train())
    else:
        compile_model(model, True)
    check_documents(model, prepared)


def test_what_is_no_row_of_documents_is_read_as_before(prepared: Callable[..., Any]) -> None:
    plain: Any = built("lfm2")
    model: Any = built("lfm2")
    keep_documents_apart(model, 64)
    packed, _ = prepared(TEXTS, Byte(), packing="documents", max_length=LENGTH)
    windows, _ = prepared(TEXTS, Byte(), packing=True, max_length=LENGTH)
    batch = windows.train.collate([0, 1])
    read = batch["input_ids"]
    wanted, written = causal_logits(plain, batch), plain.generate(read, max_new_tokens=4)
    causal_logits(model, packed.train.collate([0, 1]))
    assert torch.equal(model.generate(read, max_new_tokens=4), written)
    assert torch.equal(causal_logits(model, batch), wanted)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("twice", [False, True])
def test_what_a_layer_drops_of_documents_is_the_same_however_a_batch_is_split(
    twice: bool, rate: float, prepared: Callable[..., Any]
) -> None:
    data, _ = prepared(TEXTS, Byte(), packing="documents", max_length=LENGTH)
    torch.manual_seed(0)
    scratch = Scratch(architecture="lfm2", depth=2, width=32, heads=2, dropout=rate)
    model = scratch.build("causal", Byte().build(()), max_length=LENGTH)
    keep_documents_apart(model, 64)
    dropout = SampleDropout()
    if twice:
        recompute_layers(model, dropout)
    model.train()

    def gradients(seed: int, rows: int) -> torch.Tensor:
        model.zero_grad()
        for start in range(0, len(data.train), rows):
            samples = list(range(len(data.train)))[start : start + rows]
            batch = data.train.collate(samples)
            with dropout.of(seed, 0, samples, torch.device("cpu")):
                logits = causal_logits(model, batch)
            loss = functional.cross_entropy(
                logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"
            )
            loss.backward()  # type: ignore[no-untyped-call]
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return torch.cat(parts)

    whole, other = gradients(0, len(data.train)), gradients(1, len(data.train))
    largest = whole.abs().max()
    assert (gradients(0, 1) - whole).abs().max() < 1e-5 * largest
    assert ((other - whole).abs().max() > 1e-2 * largest) == (rate > 0)


@pytest.mark.parametrize("architecture", MIXING)
def test_models_that_see_other_documents_are_refused_by_name(architecture: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.packing=documents: {architecture} lets tokens"):
        keep_documents_apart(built(architecture), 64)


def test_what_is_no_text_is_not_put_side_by_side(prepared: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.packing=documents: these samples cannot"):
        prepared([Labelled("a", "x"), Labelled("b", "y")], packing="documents")
    _, source = prepared(["abc"])
    source.packing = "documents"
    with pytest.raises(ConfigError, match="cannot be put side by side"):
        prepare(source, Byte(), MASKED_TEXT)


def test_many_documents_fill_their_windows(prepared: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    texts = ["x" * int(n) for n in rng.integers(0, 12, 500)]
    data, _ = prepared(texts, Byte(), packing="documents", max_length=40)
    assert data.train.lengths.sum() == sum(len(text) + 1 for text in texts)
    assert data.train.lengths.mean() > 34


def test_many_documents_take_memory_by_their_windows() -> None:
    lengths = np.random.default_rng(0).integers(0, 20, 200_000)
    offsets = np.append(0, np.cumsum(lengths))
    texts = Ragged(np.broadcast_to(np.uint16(7), (int(offsets[-1]),)), offsets)
    tokenizer = Byte().build(())
    tracemalloc.start()
    documents = causal.Documents(texts, 1, 1024, Frame((), (1,)), tokenizer)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert documents.targets == lengths.sum()
    assert held < 2 * len(lengths)
    assert peak < 40 * len(lengths)


def test_windows_of_many_documents_take_little_memory() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 100_000)
    tracemalloc.start()
    first, filled = causal.shared_windows(lengths, 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * len(lengths)
    assert filled.tolist() == np.add.reduceat(lengths, first[:-1]).tolist()
    assert filled.max() <= 1024
    assert (filled[:-1] + lengths[first[1:-1]] > 1024).all()
    none, of_none = causal.shared_windows(lengths[:0], 1024)
    assert (none.tolist(), of_none.tolist()) == ([0], [])
