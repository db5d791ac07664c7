"""What no gradient reaches is not trained, and all else is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from truesweep.models import PRESETS, Head, Lora, Pretrained, add_adapter
from truesweep.models.freezing import freeze, is_reached_at_times, unreached
from truesweep.models.heads import architectures

pytestmark = pytest.mark.numbers

Build = Callable[..., Any]
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SPARSE = {"num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2, "num_experts": 32}
FAMILIES: list[tuple[str, Head, dict[str, Any], set[str]]] = [
    ("glm_moe_dsa", "causal", {"config": EXPERTS}, {"indexer"}),
    ("prophetnet", "causal", {}, {"cross_attn", "cross_attn_layer_norm"}),
    ("bart", "causal", {}, {"encoder_attn", "encoder_attn_layer_norm"}),
    ("big_bird", "masked", {}, {"pooler"}),
    ("esm", "masked", {}, {"contact_head"}),
    ("longformer", "masked", {}, {"query_global", "key_global", "value_global"}),
    (
        *("lilt", "classifier", {"width": 48}),
        {"layout_output", "layout_intermediate", "layout_value"},
    ),
    ("led", "seq2seq", {}, {"query_global", "key_global", "value_global"}),
]


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def learned(model: Any, head: Head, length: int = 8) -> set[str]:
    """What has a gradient after a step of training."""
    ids = torch.randint(4, 44, (3, length), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 2
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    given |= {"decoder_input_ids": ids} if head == "seq2seq" else {}
    given |= {"use_cache": False} if head in ("causal", "seq2seq") else {}
    model.train()(**given).logits.square().sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "head", "changes", "parts"), FAMILIES, ids=[name for name, *_ in FAMILIES]
)
def test_what_no_gradient_reaches_is_left_alone(
    name: str, head: Head, changes: dict[str, Any], parts: set[str], build: Build
) -> None:
    model = build(name, head, **changes)
    assert learned(model, head) == trained(model)
    assert not is_reached_at_times(model)
    alone = unreached(model)
    assert alone
    assert all(parts.intersection(name.split(".")) for name in alone)
    with torch.device("meta"):
        assert unreached(build(name, head, **changes)).keys() == alone.keys()


@pytest.mark.parametrize("head", ["causal", "masked", "seq2seq", "classifier"])
def test_all_of_most_models_is_reached(head: Head, build: Build) -> None:
    for name in PRESETS:
        if name in architectures(head):
            model = build(name, head)
            assert not is_reached_at_times(model)
            assert all("encoder_attn" in n for n in unreached(model)), name


def test_what_long_samples_reach_is_trained_where_there_are_any(build: Build) -> None:
    short, long = (
        build("deepseek_v4", "causal", max_length=n, config=EXPERTS | {"q_lora_rank": 32})
        for n in (24, 160)
    )
    assert {name.split(".")[4] for name in unreached(short)} == {"compressor"}
    assert (len(unreached(long)), is_reached_at_times(long)) == (0, True)
    assert learned(long, "causal", 160) == trained(long)


def test_experts_that_a_sample_does_not_choose_are_trained(build: Build) -> None:
    model = build("switch_transformers", "seq2seq", config=SPARSE)
    assert (len(unreached(model)), is_reached_at_times(model)) == (0, True)


def test_experts_are_trained_where_a_sample_chooses_those_alone_that_copy(build: Build) -> None:
    experts = {"n_routed_experts": 4, "zero_expert_num": 512, "moe_topk": 2}
    model = build("longcat_flash", "causal", config={**experts, "expert_ffn_hidden_size": 16})
    assert (len(unreached(model)), is_reached_at_times(model)) == (0, True)


class Own(LlamaForCausalLM):
    """Has branches by the first token, and one for training alone, as transformers' have not."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        words = config.vocab_size
        self.branches = nn.ModuleList(nn.Linear(words, words) for _ in range(4))
        self.later = nn.Linear(words, words)

    def forward(self, input_ids: Any, **given: Any) -> Any:
        found: Any = super().forward(input_ids, **given)
        found.logits = self.branches[int(input_ids[0, 0]) % 4](found.logits)
        found.logits = self.later(found.logits) if self.training else found.logits
        return found


def test_all_of_a_model_with_code_of_its_own_is_trained() -> None:
    config: Any = LlamaConfig(
        vocab_size=44, hidden_size=32, intermediate_size=32, num_hidden_layers=1
    )
    model = Own(config)
    freeze(model, "causal", 16, model)
    assert trained(model) == {name for name, _ in model.named_parameters()}
    assert (len(unreached(model)), is_reached_at_times(model)) == (0, True)


@pytest.mark.parametrize("name", ["ibert", "big_bird"])
def test_a_trial_changes_neither_weights_modules_nor_random_numbers(
    name: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = build(name, "masked", dropout=0.1)
    state = torch.get_rng_state()
    monkeypatch.setattr("truesweep.models.freezing._unreached", lambda *_: set())
    plain = build(name, "masked", dropout=0.1)
    assert torch.equal(state, torch.get_rng_state())
    weights = plain.state_dict()
    assert all(torch.equal(weights[name], one) for name, one in tried.state_dict().items())
    assert str(tried) == str(plain)
    assert {module.training for module in tried.modules()} == {True}


def test_a_loaded_model_is_left_alone_where_a_new_one_is(
    build: Build, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    build("big_bird", "masked").save_pretrained(tmp_path)
    model = Pretrained(name_or_path=str(tmp_path)).build("masked", tokenizer, max_length=8)
    assert list(unreached(model)) == ["bert.pooler.weight", "bert.pooler.bias"]
    assert learned(model, "masked") == trained(model)


def test_an_adapter_in_what_no_gradient_reaches_is_left_alone(build: Build) -> None:
    model = build("led", "seq2seq")
    add_adapter(model, Lora(), "seq2seq", seed=0)
    alone = unreached(model)
    assert alone
    assert all("_global." in name and ".lora_" in name for name in alone)
    assert trained(model)
    assert learned(model, "seq2seq") == trained(model)
