from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from truesweep.errors import ConfigError
from truesweep.models import Head, Scratch

pytestmark = pytest.mark.numbers

Build = Callable[..., Any]


def test_the_seed_decides_the_weights(build: Build) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = build("llama", "causal", seed=seed)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


def test_weights_are_float32_whatever_torch_s_default(build: Build) -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = build("gpt2", "causal")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32


def test_a_model_is_ready_to_train(build: Build) -> None:
    model = build("llama", "classifier")
    assert all(module.training for module in model.modules())
    assert model(input_ids=torch.full((1, 4), 5)).past_key_values is None


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "llama", "lfm2", "bart"])
def test_embeddings_are_tied_as_asked(name: str, tie: bool, build: Build) -> None:
    head = "seq2seq" if name == "bart" else "causal"
    model = build(name, head, tie_embeddings=tie)
    output = model.get_output_embeddings().weight
    assert (output is model.get_input_embeddings().weight) == tie


def test_further_fields_reach_the_configuration(build: Build) -> None:
    config = {"num_key_value_heads": 1, "rms_norm_eps": 1e-3, "head_dim": 6}
    model = build("llama", "causal", config=config)
    layer = model.model.layers[0]
    assert layer.self_attn.k_proj.weight.shape == (6, 32)
    assert layer.self_attn.q_proj.weight.shape == (12, 32)
    assert layer.input_layernorm.variance_epsilon == 1e-3


def test_an_encoder_may_be_deeper_than_its_decoder(build: Build) -> None:
    model = build("t5", "seq2seq", config={"num_decoder_layers": 1})
    assert (len(model.encoder.block), len(model.decoder.block)) == (2, 1)


@pytest.mark.parametrize(
    "name", ["gpt2", "bert", "roberta", "camembert", "xlm-roberta", "luke", "opt"]
)
def test_the_longest_sample_fits(name: str, build: Build) -> None:
    head = "causal" if name == "opt" else "classifier"
    config = {"entity_vocab_size": 8} if name == "luke" else {}
    model = build(name, head, max_length=9, config=config).eval()
    assert model(input_ids=torch.full((1, 9), 5)).logits.isfinite().all()


def test_the_context_may_be_longer_than_the_samples(build: Build) -> None:
    model = build("gpt2", "causal", context=20)
    assert model.transformer.wpe.weight.shape == (20, 32)


def test_attention_is_what_was_asked(build: Build) -> None:
    for asked in ("eager", "sdpa"):
        model = build("llama", "causal", attention=asked)
        assert model.config._attn_implementation == asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "lama"}, "did you mean llama"),
        ({"architecture": "t5"}, "t5 for language modelling; set model to one of gpt2, llama"),
        ({"heads": 3}, "does not divide model.width=32. Set model.heads=2 or 4"),
        ({"width": 6, "heads": 2}, "3 features a head; rotary.*Set model.heads=1 or 3"),
        ({"context": 7}, "model.context=7 is shorter than data.max_length=8"),
        ({"config": {"rms_norm_epsilon": 1.0}}, "did you mean rms_norm_eps"),
        ({"config": {"vocab_size": 7}}, "vocab_size follows from the tokenizer"),
        ({"config": {"tie_word_embeddings": True}}, "follows from model.tie_embeddings"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_built(
    changes: dict[str, Any], message: str
) -> None:
    values: dict[str, Any] = {"architecture": "llama", "width": 32, "heads": 2}
    with pytest.raises(ConfigError, match=message):
        Scratch(**(values | changes)).check("causal", max_length=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"hidden_act": "gelo"}}, "cannot build llama.*gelo"),
        ({"config": {"num_hidden_layers": 5}}, "model.depth=2 cannot be set.*is 5"),
        ({"architecture": "blt"}, "is made of several models"),
        ({"architecture": "xlnet"}, "sees the tokens that it should predict"),
        (
            {"config": {"max_position_embeddings": 7}},
            "model.config.max_position_embeddings=7 is too few .* Leave it out, or set data.max",
        ),
        (
            {"architecture": "roberta", "head": "masked", "config": {"max_position_embeddings": 8}},
            "max_position_embeddings=8 is too few positions",
        ),
        ({"architecture": "rwkv", "init": "scaled"}, "Set model.init=default"),
    ],
)
def test_what_transformers_cannot_build_is_said(
    changes: dict[str, Any], message: str, build: Build
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**({"architecture": "llama", "head": "causal"} | changes))


def test_an_architecture_that_looks_ahead_is_found_without_weights(build: Build) -> None:
    with torch.device("meta"):
        assert build("llama", "causal").device.type == "meta"
        with pytest.raises(ConfigError, match="sees the tokens that it should predict"):
            build("xlnet", "causal")


def test_t5_cannot_be_untied(build: Build) -> None:
    with pytest.raises(ConfigError, match="tie_embeddings=False: t5 always"):
        build("t5", "seq2seq", tie_embeddings=False)


def test_a_classifier_needs_two_classes(tokenizer: PreTrainedTokenizerFast) -> None:
    bert = Scratch(architecture="bert")
    with pytest.raises(ConfigError, match="two classes or more"):
        bert.build("classifier", tokenizer, max_length=8, labels=["only"])


def test_a_tokenizer_that_cannot_pad_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ConfigError, match="neither a padding"):
        Scratch(architecture="llama").build("causal", bare, max_length=8)


def test_bert_looks_back_only_as_a_language_model(build: Build) -> None:
    model = build("bert", "causal")
    assert model.config.is_decoder
    classifier = build("bert", "classifier")
    assert not classifier.config.is_decoder


@pytest.mark.parametrize(
    ("name", "head", "biases"),
    [
        *(("bert", "classifier", 2), ("bart", "seq2seq", 6), ("mbart", "seq2seq", 6)),
        *(("marian", "seq2seq", 6), ("llama", "causal", 0)),
    ],
)
def test_biases_of_keys_change_nothing_and_are_left_alone(
    name: str, head: Head, biases: int, build: Build
) -> None:
    model = build(name, head).eval()
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    frozen = [parameter for parameter in frozen if parameter.dim() == 1]
    assert len(frozen) == biases
    inputs = {"input_ids": torch.arange(4, 12).view(1, 8)}
    if head == "seq2seq":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        before = model(**inputs).logits
        for bias in frozen:
            bias.normal_()
        torch.testing.assert_close(model(**inputs).logits, before, rtol=0, atol=1e-5)
