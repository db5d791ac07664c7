import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BartConfig, GPT2Config

from truesweep.errors import ConfigError
from truesweep.models import Head
from truesweep.models.dropout import dropout_fields, restrict_dropout

ALL: list[tuple[str, Head]] = [
    *(("gpt2", "causal"), ("llama", "causal"), ("qwen3", "causal"), ("lfm2", "causal")),
    *(("t5", "seq2seq"), ("bart", "seq2seq"), ("marian", "seq2seq")),
    *(("bert", "classifier"), ("modernbert", "classifier"), ("mamba", "causal")),
]


Build = Callable[..., Any]


def logits(model: Any) -> Any:
    ids = torch.arange(4, 12).view(1, 8)
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **decoder).logits


@pytest.mark.parametrize(("name", "head"), ALL)
def test_dropout_is_on_in_training_only(name: str, head: Head, build: Build) -> None:
    model, without = (build(name, head, dropout=rate) for rate in (0.4, 0.0))
    assert not logits(model).equal(logits(model))
    assert logits(without).equal(logits(without))
    # The same weights under the same names, so that a checkpoint fits either.
    without.load_state_dict(model.state_dict())
    assert logits(model.eval()).equal(logits(without.eval()))


def test_every_rate_is_set_but_that_inside_the_mlp() -> None:
    assert dropout_fields(GPT2Config, 0.2) == dict.fromkeys(
        ("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.2
    )
    assert dropout_fields(BartConfig, 0.2) == dict.fromkeys(
        ("dropout", "attention_dropout", "classifier_dropout"), 0.2
    )


def test_residual_dropout_drops_the_given_share(build: Build) -> None:
    model = build("lfm2", "causal", dropout=0.25)
    written = model.model.layers[0].feed_forward.w2(torch.ones(200, 96))
    kept = written[written != 0]
    assert (written == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    expected = model.model.layers[0].feed_forward.w2.weight.sum(dim=1) / 0.75
    assert set(kept.round(decimals=4).tolist()) <= set(expected.round(decimals=4).tolist())


def test_a_copy_keeps_its_dropout(build: Build) -> None:
    model = copy.deepcopy(build("llama", "causal", dropout=0.4))
    assert not logits(model).equal(logits(model))


def test_whole_layers_are_never_dropped(build: Build) -> None:
    model = build("m2m_100", "seq2seq")
    rates = [module.layerdrop for module in model.modules() if hasattr(module, "layerdrop")]
    assert rates == [0.0, 0.0]
    assert model.config.encoder_layerdrop > 0  # what is saved stays as it was
    with pytest.raises(ConfigError, match=r"encoder_layerdrop=0\.2: which layers .* Remove it"):
        build("bart", "seq2seq", config={"encoder_layerdrop": 0.2})


def test_dropout_that_cannot_follow_the_samples_is_refused(build: Build) -> None:
    build("xlnet", "classifier")
    with pytest.raises(ConfigError, match=r"what xlnet drops .* Set model\.dropout=0"):
        build("xlnet", "classifier", dropout=0.1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_flash_attention_must_not_drop(name: str, build: Build) -> None:
    for rate in (0.0, 0.1):
        model = build(name, "causal", dropout=rate)
        model.config._attn_implementation_internal = "flash_attention_2"
        if rate == 0:
            restrict_dropout(model)
            continue
        with pytest.raises(ConfigError, match=r"Set model\.attention=sdpa"):
            restrict_dropout(model)
