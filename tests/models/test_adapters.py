"""Adapters are peft's, put into our models; only they, and a classifier's new layers, learn."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import BOFTConfig, IA3Config, LoKrConfig, LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import LlamaForCausalLM

from truesweep.errors import ConfigError
from truesweep.models import Lora, add_adapter, count_parameters, flops_per_token
from truesweep.models.adapters import base_of, merged, trained_state, whole_state
from truesweep.optim import parameter_groups

Build = Callable[..., Any]
IDS = torch.tensor([[1, 5, 6, 7, 8, 2], [1, 9, 10, 11, 2, 0]])
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def by_hand(**fields: Any) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules=ALL, task_type="CAUSAL_LM", **fields)


METHODS = {
    "lora": (Lora(r=4, alpha=8), by_hand()),
    "rslora": (Lora(r=4, alpha=8, rslora=True), by_hand(use_rslora=True)),
    "dora": (Lora(r=4, alpha=8, dora=True), by_hand(use_dora=True)),
    "ia3": (IA3Config(), IA3Config(task_type="CAUSAL_LM")),
}


def shaken(model: nn.Module) -> dict[str, torch.Tensor]:
    """Move what is trained, most of which starts from naught; what it then is, by name."""
    generator = torch.Generator().manual_seed(1)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return {name: parameter.detach() for name, parameter in trained.items()}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("method", METHODS)
def test_logits_and_gradients_are_those_of_peft(method: str, build: Build) -> None:
    ours, config = METHODS[method]
    base = build("llama", "causal")
    plain = base(input_ids=IDS).logits
    theirs = get_peft_model(copy.deepcopy(base), copy.deepcopy(config))
    add_adapter(base, copy.deepcopy(ours), "causal", seed=3)
    weights = shaken(base)
    assert weights
    named = dict(theirs.named_parameters())
    assert {n for n, p in named.items() if p.requires_grad} == {
        f"base_model.model.{name}" for name in weights
    }
    with torch.no_grad():
        for name, weight in weights.items():
            named[f"base_model.model.{name}"].copy_(weight)
    for model in (base, theirs):
        model(input_ids=IDS, labels=IDS).loss.backward()
    found = base(input_ids=IDS).logits
    assert torch.equal(found, theirs(input_ids=IDS).logits)
    assert (found - plain).abs().max() > 1e-3
    for name, parameter in base.named_parameters():
        gradient = named[f"base_model.model.{name}"].grad
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or (gradient.any() and torch.equal(parameter.grad, gradient))


def test_first_weights_follow_from_the_seed_alone(build: Build) -> None:
    def drawn(seed: int, before: int) -> dict[str, torch.Tensor]:
        model = build("llama", "causal")
        torch.manual_seed(before)
        add_adapter(model, Lora(), "causal", seed)
        assert torch.initial_seed() == before
        return {n: p for n, p in model.named_parameters() if p.requires_grad}

    first, again, other = drawn(0, 1), drawn(0, 2), drawn(1, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name in first if "lora_A" in name]
    assert matrices
    assert not any(torch.equal(first[name], other[name]) for name in matrices)


@pytest.mark.parametrize("architecture", ["bert", "bart", "modernbert", "llama", "gpt2"])
def test_the_new_layers_of_a_classifier_learn(architecture: str, build: Build) -> None:
    model = build(architecture, "classifier")
    heads = {n for n, _ in model.named_parameters() if not n.startswith(model.base_model_prefix)}
    total = count_parameters(model).total
    add_adapter(model, Lora(), "classifier", seed=0)
    count = count_parameters(model)
    learn = {n for n, p in model.named_parameters() if p.requires_grad}
    whole = {n for n in learn if ".modules_to_save." in n}
    assert {n.replace(".modules_to_save.default", "") for n in whole} == heads
    assert all("lora_" in name for name in learn - whole)
    added = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    assert count.total == total + added
    roles = {group["role"] for group in parameter_groups(model, 0.1)}
    assert {"matrix", "head"} <= roles


def test_matrices_of_an_adapter_are_matrices(build: Build) -> None:
    model = build("llama", "causal")
    add_adapter(model, Lora(dora=True), "causal", seed=0)
    groups = {group["role"]: group["params"] for group in parameter_groups(model, 0.1)}
    names = {p: n for n, p in model.named_parameters()}
    assert groups.keys() == {"matrix", "gain"}
    assert all(".lora_A." in names[p] or ".lora_B." in names[p] for p in groups["matrix"])
    assert all("magnitude" in names[p] for p in groups["gain"])


def test_second_matrices_of_an_adapter_have_a_role_of_their_own_if_asked(build: Build) -> None:
    model = build("bert", "classifier")
    add_adapter(model, Lora(), "classifier", seed=0)
    names = {p: n for n, p in model.named_parameters()}
    plain, apart = (
        {
            group["role"]: [names[p] for p in group["params"]]
            for group in parameter_groups(model, 0.1, adapter_b=asked)
        }
        for asked in (False, True)
    )
    assert list(plain) == ["matrix", "head", "gain"]
    assert list(apart) == ["matrix", "adapter_b", "head", "gain"]
    seconds = [name for name in plain["matrix"] if ".lora_B." in name]
    assert len(seconds) == sum(".lora_A." in name for name in plain["matrix"])
    assert apart["adapter_b"] == seconds
    assert apart["matrix"] == [name for name in plain["matrix"] if name not in seconds]
    assert all(apart[role] == plain[role] for role in ("head", "gain"))
    assert apart["head"] == ["classifier.modules_to_save.default.weight"]


def test_operations_leave_out_gradients_of_the_base(build: Build) -> None:
    model = build("llama", "causal")
    whole = flops_per_token(model, 8).per_token
    add_adapter(model, Lora(r=2), "causal", seed=0)
    trainable = count_parameters(model).trainable
    assert flops_per_token(model, 8).per_token == whole * 2 // 3 + 6 * trainable


def test_a_state_without_the_base_is_completed_by_the_same_base_only(build: Build) -> None:
    model, same = build("llama", "causal"), build("llama", "causal")
    for one in (model, same):
        add_adapter(one, Lora(), "causal", seed=0)
    shaken(model)
    kept = trained_state(model, model.state_dict())
    assert all("lora_" in name for name in kept)
    same.load_state_dict(whole_state(same, kept, base_of(model)))
    assert torch.equal(model(input_ids=IDS).logits, same(input_ids=IDS).logits)
    other = build("llama", "causal", seed=1)
    add_adapter(other, Lora(), "causal", seed=0)
    with pytest.raises(ConfigError, match="not the one that the adapter was trained beside"):
        whole_state(other, kept, base_of(model))


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (PromptTuningConfig(num_virtual_tokens=2), "as it adds to what a model reads"),
        (LoKrConfig(module_dropout=0.1, target_modules=ALL), "module_dropout=0.1: what is dropped"),
        (BOFTConfig(boft_dropout=0.1, target_modules=ALL), "boft_dropout=0.1: what is dropped"),
        (Lora(target_modules=["nothing"]), "'nothing'} not found in the base model"),
        (Lora(config={"ranks": 2}), "adapter.config.ranks: peft's LoraConfig has no such field"),
        (nn.Identity(), "Identity is no method of peft"),
    ],
)
def test_what_cannot_be_is_refused(adapter: Any, message: str, build: Build) -> None:
    with pytest.raises(ConfigError, match=message):
        add_adapter(build("llama", "causal"), adapter, "causal", seed=0)


def test_without_peft_it_is_said_what_to_type(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs the package peft; type pip install 'truesweep\["):
        add_adapter(build("llama", "causal"), Lora(), "causal", seed=0)


@pytest.mark.parametrize("tied", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "all-linear"])
def test_one_of_two_layers_of_the_same_weights_is_merged(
    target: str, tied: bool, build: Build, tmp_path: Path
) -> None:
    """What was added to one was added to the other, too, and logits were others, unsaid."""
    base = build("llama", "causal", tie_embeddings=True)
    targets = target if target == "all-linear" else [target]
    asked = Lora(r=4, target_modules=targets, config={"ensure_weight_tying": True} if tied else {})
    if tied and target == "all-linear":
        asked.config = {"trainable_token_indices": [4, 5]}
    tuner = add_adapter(base, asked, "causal", seed=3)
    shaken(base)
    with torch.no_grad():
        expected = base(input_ids=IDS).logits
        merged(base, tuner).save_pretrained(tmp_path / "merged")
        found = LlamaForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["shared", "lm_head", "embed_tokens"])
@pytest.mark.parametrize("architecture", ["t5", "bart", "marian"])
def test_one_of_an_encoder_decoder_s_tables_is_merged(
    architecture: str, target: str, build: Build, tmp_path: Path
) -> None:
    base = build(architecture, "seq2seq")
    tuner = add_adapter(base, Lora(r=4, target_modules=[target]), "seq2seq", seed=3)
    shaken(base)
    with torch.no_grad():
        expected = base(input_ids=IDS, decoder_input_ids=IDS).logits
        merged(base, tuner).save_pretrained(tmp_path / "merged")
        again = type(base).from_pretrained(tmp_path / "merged")
        found = again(input_ids=IDS, decoder_input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
