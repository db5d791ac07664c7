"""Families whose dimensions no rule tells, or that are one part of a larger model.

`make test-architectures` trains all that transformers has.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from truesweep.errors import ConfigError
from truesweep.models import Head, Scratch
from truesweep.models.batching import check_noise, mixes_samples
from truesweep.models.families import cycle
from truesweep.models.heads import AUTO_CLASSES

pytestmark = pytest.mark.numbers

Build = Callable[..., Any]
FAMILIES: list[tuple[str, Head]] = [
    *(("gemma3", "causal"), ("gemma3n", "causal"), ("gemma4", "causal"), ("qwen3_5", "causal")),
    *(("deepseek_v2", "causal"), ("dots1", "causal"), ("dbrx", "causal"), ("lfm2_moe", "causal")),
    *(("mamba2", "causal"), ("jamba", "causal"), ("nemotron_h", "causal"), ("bamba", "causal")),
    *(("recurrent_gemma", "causal"), ("gpt_neo", "causal")),
    *(("t5gemma", "seq2seq"), ("led", "seq2seq")),
    *(("eurobert", "classifier"), ("modernvbert", "masked"), ("funnel", "classifier")),
]


def inputs(head: Head) -> dict[str, Any]:
    ids = torch.randint(4, 44, (2, 8), generator=torch.Generator().manual_seed(1))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if head == "seq2seq":
        given["decoder_input_ids"] = torch.cat([torch.ones_like(ids[:, :1]), ids[:, :-1]], 1)
    return given | ({"use_cache": False} if head in ("causal", "seq2seq") else {})


@pytest.mark.parametrize(("name", "head"), FAMILIES)
def test_a_family_trains_and_comes_back_from_a_folder(
    name: str, head: Head, build: Build, tmp_path: Path
) -> None:
    model = build(name, head)
    targets = torch.tensor([0, 2]) if head == "classifier" else inputs(head)["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    losses = []
    for _ in range(3):
        logits = model(**inputs(head)).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not mixes_samples(model, head, training=True) or name == "t5gemma"
    model.save_pretrained(tmp_path)
    loaded = AUTO_CLASSES[head].from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs(head)).logits, model.eval()(**inputs(head)).logits)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("qwen3_5_text", ["linear_attention"] * 3 + ["full_attention"]),
        ("jamba", ["linear_attention"] * 3 + ["full_attention"]),
        ("nemotron_h", ["linear_attention", "moe", "full_attention", "mlp"]),
        ("bamba", ["linear_attention"] * 3 + ["full_attention"]),
        ("lfm2_moe", ["conv", "conv", "full_attention", "conv"]),
        ("mamba2", ["linear_attention"] * 4),
    ],
)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_hybrids_of_any_depth_attend(name: str, kinds: list[str], depth: int, build: Build) -> None:
    with torch.device("meta"):
        found = build(name, "causal", depth=depth).config.layer_types
    assert len(found) == depth
    assert name == "mamba2" or "full_attention" in found
    if depth == 4:
        assert found == kinds


def test_kinds_of_attention_of_a_family_s_own_stay(build: Build) -> None:
    with torch.device("meta"):
        found = build("deepseek_v4", "causal").config.layer_types
    assert set(found) <= {"heavily_compressed_attention", "compressed_sparse_attention"}


def test_layers_that_are_given_stay(build: Build) -> None:
    kinds = ["full_attention", "linear_attention"]
    model = build("qwen3_5_text", "causal", config={"layer_types": kinds})
    assert model.config.layer_types == kinds
    assert cycle(["moe", "full_attention"], 1) == ["full_attention"]


def test_a_large_hybrid_is_tried_by_a_small_one(build: Build) -> None:
    with torch.device("meta"):
        large = build("jamba", "causal", width=512, heads=8)
    check_noise(large, "causal")
    assert not mixes_samples(large, "causal", training=True)


def test_the_text_part_is_what_is_built(build: Build, tmp_path: Path) -> None:
    model = build("gemma3", "causal", config={"sliding_window": 7})
    assert type(model).__name__ == "Gemma3ForCausalLM"
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.model_type, config.sliding_window) == ("gemma3_text", 7)


@pytest.mark.parametrize(("name", "heads"), [("deepseek_v3", 2), ("gemma3n_text", 4)])
def test_every_table_of_tokens_has_the_vocabulary_s_length(
    name: str, heads: int, build: Build
) -> None:
    with torch.device("meta"):
        model = build(name, "causal", heads=heads)
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    assert {table.num_embeddings for table in tables} == {44}


@pytest.mark.parametrize(
    ("architecture", "head", "changes", "message"),
    [
        ("musicgen", "causal", {}, r"several models \(text_encoder, audio_encoder, decoder\)"),
        ("encoder-decoder", "seq2seq", {}, r"several models \(encoder, decoder\)"),
        ("emu3", "causal", {}, "no emu3_text_model, emu3's text part, for language modelling"),
        ("voxtral", "seq2seq", {}, "no llama, voxtral's text part, for translation"),
        ("gemma4_assistant", "causal", {}, "gemma4_assistant drafts tokens for another model"),
        ("perceiver", "masked", {}, "no perceiver for masked language modelling"),
        ("mra", "masked", {}, "mra attends to nothing where a GPU's kernel is not there"),
        ("reformer", "masked", {}, "reformer reads only samples as long as its chunks"),
        ("codegen", "causal", {}, r"codegen needs a multiple of 4\. Set model\.heads=4"),
        ("lilt", "classifier", {}, r"lilt needs a multiple of 24\. Set model\.width=48"),
        ("gemma3", "causal", {"config": {"sliding_windo": 7}}, "gemma3_text has no such field"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(
    architecture: str, head: Head, changes: dict[str, Any], message: str, build: Build
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        build(architecture, head, **changes)
    assert len(str(raised.value)) < 250


def test_refusals_come_before_anything_is_built() -> None:
    for name in ("reformer", "gemma4_unified_assistant", "emu3", "codegen"):
        with pytest.raises(ConfigError, match=name):
            Scratch(architecture=name, heads=2).check("causal", max_length=8)
