"""Attention of rows that are one text each: the kernels that are fastest take no mask."""

from typing import Any

import pytest
import torch
from torch import fx
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, masking_utils

from truesweep.data.batch import Batch
from truesweep.tasks.lm import causal_logits

SIZES: dict[str, dict[str, int]] = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2},
    "llama": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}
BATCH: Batch = {"input_ids": torch.arange(12).view(2, 6)}
APART: Batch = {**BATCH, "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)}
PADDED: Batch = {**BATCH, "attention_mask": torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])}


def made(kind: str) -> PreTrainedModel:
    tokens = {"vocab_size": 97, "bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model(kind, **SIZES[kind], **tokens)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.eval()
    return model


def graphs(model: PreTrainedModel) -> list[list[tuple[bool, bool]]]:
    """Of each graph that is compiled from now on: is attention causal, and has it a mask?"""
    found: list[list[tuple[bool, bool]]] = []

    def backend(graph: fx.GraphModule, _: Any) -> Any:
        nodes = (n for n in graph.graph.nodes if n.target is scaled_dot_product_attention)
        found.append([(n.kwargs["is_causal"], n.kwargs["attn_mask"] is not None) for n in nodes])
        return graph.forward

    torch.compiler.reset()
    model.compile(backend=backend)
    return found


@torch.no_grad()
@pytest.mark.parametrize("kind", SIZES)
def test_what_is_compiled_makes_no_mask_of_whole_rows(kind: str) -> None:
    plain, compiled = made(kind), made(kind)
    found = graphs(compiled)
    for batch in (BATCH, APART, PADDED, BATCH):
        torch.testing.assert_close(causal_logits(compiled, batch), causal_logits(plain, batch))
    whole, *others = found
    assert whole == [(True, False)] * 2
    assert others == [[(False, True)] * 2] * 2  # and nothing is compiled anew for those known


@torch.no_grad()
@pytest.mark.parametrize("kind", SIZES)
def test_nobody_looks_at_positions_that_a_model_has_made(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, find = list[Any](), masking_utils.find_packed_sequence_indices

    def look(positions: torch.Tensor) -> torch.Tensor | None:
        looked.append(positions)
        found: torch.Tensor | None = find(positions)
        return found

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", look)
    model = made(kind)
    causal_logits(model, BATCH)
    assert not looked
    apart = causal_logits(model, APART)
    assert looked
    halves = {"input_ids": BATCH["input_ids"].view(4, 3)}
    torch.testing.assert_close(apart.view(4, 3, -1), causal_logits(model, halves))
