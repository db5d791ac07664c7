from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    T5Config,
)
from transformers.models.lfm2 import Lfm2Config

from truesweep.optim import ROLES, adamw, parameter_groups

TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 50}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
}
LLAMA = LlamaConfig(**SIZES, **TOKENS, head_dim=16)
GPT2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=16, **TOKENS)
LFM2 = Lfm2Config(
    **SIZES,
    **TOKENS,
    layer_types=["conv", "full_attention"],
    tie_word_embeddings=False,
    block_auto_adjust_ff_dim=False,
)
T5 = T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, **TOKENS)
BERT = BertConfig(**SIZES, **TOKENS)
SIDES: dict[str, Any] = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 64))
}
BART = BartConfig(d_model=32, max_position_embeddings=16, **SIDES, **TOKENS)
MARIAN = MarianConfig(d_model=32, max_position_embeddings=16, **SIDES, **TOKENS)


def names(model: nn.Module, weight_decay: float = 0.1) -> dict[str, set[str]]:
    """Names of the parameters of each role."""
    known = {parameter: name for name, parameter in model.named_parameters()}
    return {
        group["role"]: {known[parameter] for parameter in group["params"]}
        for group in parameter_groups(model, weight_decay)
    }


@pytest.mark.parametrize(
    ("auto", "config"),
    [
        *((AutoModelForCausalLM, config) for config in (GPT2, LLAMA, LFM2, BERT)),
        *((AutoModelForSeq2SeqLM, config) for config in (T5, BART, MARIAN)),
        *((AutoModelForSequenceClassification, config) for config in (BERT, GPT2, LLAMA, BART, T5)),
    ],
)
def test_each_trainable_parameter_is_in_exactly_one_group(auto: Any, config: Any) -> None:
    model = auto.from_config(config)
    groups = parameter_groups(model, 0.1)
    found = [parameter for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {p for p in model.parameters() if p.requires_grad}
    assert [group["role"] for group in groups] == [
        role for role in ROLES if role in {group["role"] for group in groups}
    ]
    for group in groups:
        assert group["weight_decay"] == (0.1 if group["role"] in ("matrix", "head") else 0)
        if group["role"] in ("matrix", "head", "embedding"):
            assert {parameter.ndim for parameter in group["params"]} == {2}


def test_an_untied_language_model_has_a_head() -> None:
    roles = names(AutoModelForCausalLM.from_config(LLAMA))
    assert roles["head"] == {"lm_head.weight"}
    assert roles["embedding"] == {"model.embed_tokens.weight"}
    assert "model.layers.1.mlp.down_proj.weight" in roles["matrix"]
    assert len(roles["matrix"]) == 2 * 7
    assert roles["gain"] == {name for name in roles["gain"] if "norm" in name}


def test_a_tied_table_is_an_embedding_and_gpt2_s_conv1d_a_matrix() -> None:
    roles = names(AutoModelForCausalLM.from_config(GPT2))
    assert "head" not in roles
    assert roles["embedding"] == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert len(roles["matrix"]) == 2 * 4
    assert "transformer.h.0.attn.c_attn.bias" in roles["gain"]


def test_a_convolution_kernel_is_a_gain() -> None:
    roles = names(AutoModelForCausalLM.from_config(LFM2))
    assert "model.layers.0.conv.conv.weight" in roles["gain"]
    assert "model.layers.0.conv.in_proj.weight" in roles["matrix"]


def test_t5_s_relative_positions_are_embeddings() -> None:
    roles = names(AutoModelForSeq2SeqLM.from_config(T5))
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert roles["embedding"] == {"shared.weight", f"encoder.{bias}", f"decoder.{bias}"}
    assert "head" not in roles


def test_fixed_positions_are_left_out() -> None:
    model = AutoModelForSeq2SeqLM.from_config(MARIAN)
    assert names(model)["embedding"] == {"model.shared.weight"}


@pytest.mark.parametrize(
    ("config", "head"),
    [
        (BERT, "classifier.weight"),
        (GPT2, "score.weight"),
        (LLAMA, "score.weight"),
        (BART, "classification_head.out_proj.weight"),
        (T5, "classification_head.out_proj.weight"),
    ],
)
def test_the_last_layer_of_a_classifier_is_its_head(config: Any, head: str) -> None:
    roles = names(AutoModelForSequenceClassification.from_config(config))
    assert roles["head"] == {head}
    if config is BERT:
        assert "bert.pooler.dense.weight" in roles["matrix"]


def test_frozen_parameters_are_left_out() -> None:
    model = AutoModelForCausalLM.from_config(LLAMA)
    for parameter in model.model.parameters():
        parameter.requires_grad_(False)
    assert names(model) == {"head": {"lm_head.weight"}}


def test_any_torch_optimizer_takes_the_groups() -> None:
    model = AutoModelForCausalLM.from_config(LLAMA)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.NAdam(parameter_groups(model, 0.1), lr=0.01)
    model(input_ids=torch.arange(3, 11).view(1, 8)).logits.square().sum().backward()
    optimizer.step()
    assert not any(new.equal(old) for new, old in zip(model.parameters(), before, strict=True))
    roles = [group["role"] for group in optimizer.state_dict()["param_groups"]]
    assert roles == [role for role in ROLES if role != "adapter_b"]


def test_the_head_of_a_classifier_moves_as_in_a_group_made_by_hand() -> None:
    ours = AutoModelForSequenceClassification.from_config(BERT)
    theirs = deepcopy(ours)
    heads = [p for name, p in theirs.named_parameters() if name == "classifier.weight"]
    matrices = [
        module.weight
        for module in theirs.modules()
        if isinstance(module, nn.Linear) and module is not theirs.classifier
    ]
    decayed = {*heads, *matrices}
    settings: dict[str, Any] = {"betas": (0.9, 0.95), "eps": 1e-8, "fused": True}
    by_hand = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.1},
            {"params": heads, "weight_decay": 0.1, "lr": 0.01},
            {"params": [p for p in theirs.parameters() if p not in decayed], "weight_decay": 0.0},
        ],
        lr=0.001,
        **settings,
    )
    optimizer = adamw(parameter_groups(ours, 0.1), lr=0.001, head_lr_ratio=10.0)
    start = ours.classifier.weight.detach().clone()
    for _ in range(3):
        for model, one in ((ours, optimizer), (theirs, by_hand)):
            model.eval()
            model(
                input_ids=torch.arange(3, 11).view(2, 4), labels=torch.tensor([0, 1])
            ).loss.backward()
            one.step()
            one.zero_grad()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other), name
    assert (ours.classifier.weight - start).abs().max() > 0.02
