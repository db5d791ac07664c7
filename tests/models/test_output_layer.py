"""The loss through a model's last layer is that of its logits, where nothing is done with these."""

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from truesweep.metrics.likelihood import linear_nll, token_nll
from truesweep.models.heads import OutputLayer

pytestmark = pytest.mark.numbers

V = 30
SMALL = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL_BART = {
    "vocab_size": V,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
SMALL_T5 = {"vocab_size": V, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def model_of(architecture: str, **fields: object) -> PreTrainedModel:
    torch.manual_seed(0)
    both = architecture in ("mbart", "t5")
    small = SMALL_T5 if architecture == "t5" else SMALL_BART if both else SMALL
    config = AutoConfig.for_model(architecture, **small | fields)
    model: PreTrainedModel = (AutoModelForSeq2SeqLM if both else AutoModelForCausalLM).from_config(
        config
    )
    return model


def logits_of(model: PreTrainedModel, length: int = 7) -> Tensor:
    ids = torch.arange(3, 3 + 2 * length).view(2, length) % V
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2}),
        ("llama", {}),
        ("t5", {"tie_word_embeddings": True}),
        ("mbart", {}),
    ],
)
def test_the_loss_through_the_layer_is_that_of_the_logits(
    architecture: str, fields: dict[str, object]
) -> None:
    model = model_of(architecture, **fields).double().eval()
    if architecture == "mbart":
        model.final_logits_bias = torch.linspace(-1, 1, V).double()[None]
    layer = OutputLayer.find(model, lambda: logits_of(model, 2))
    assert layer is not None
    labels = torch.arange(14).view(2, 7) % V

    token_nll(logits_of(model), labels)[0].backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    hidden = layer.hidden(lambda: logits_of(model))
    assert hidden.shape == (2, 7, 16)
    loss, _, _ = linear_nll(hidden, layer.weight, layer.bias, labels)
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-10, atol=1e-12)
    assert logits_of(model).shape == (2, 7, V), "the model is as it was"


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("gemma2", {"final_logit_softcapping": 30.0}),
        ("cohere", {"logit_scale": 0.5}),
        ("granite", {"logits_scaling": 8.0}),
    ],
)
def test_a_model_that_does_something_after_its_layer_is_recognised_whatever_its_weights_are(
    architecture: str, fields: dict[str, object]
) -> None:
    model = model_of(architecture, **fields).train()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()  # as init=scaled has it: all logits are nought
    assert OutputLayer.find(model, lambda: logits_of(model, 2)) is None
    assert model.training


def test_a_model_that_scales_by_one_does_nothing() -> None:
    model = model_of("cohere", logit_scale=1.0)
    assert OutputLayer.find(model, lambda: logits_of(model, 2)) is not None


def test_a_compiled_model_gives_either() -> None:
    model = model_of("llama").eval()
    expected = logits_of(model)
    model.compile(backend="eager")
    layer = OutputLayer.find(model, lambda: logits_of(model, 2))
    assert layer is not None
    for _ in range(2):
        hidden = layer.hidden(lambda: logits_of(model))
        torch.testing.assert_close(hidden @ layer.weight.T, expected)
        torch.testing.assert_close(logits_of(model), expected)
