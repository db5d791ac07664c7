"""Every method of the installed peft either works from first to last, or is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import Tensor
from torch.nn import functional

from truesweep.errors import ConfigError
from truesweep.models import Head, Lora, add_adapter, count_parameters
from truesweep.models.adapters import (
    base_of,
    merge_adapter,
    merged,
    save_adapter,
    trained_state,
    whole_state,
    without_adapter,
)
from truesweep.models.heads import AUTO_CLASSES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # peft's, of what is not said
Build = Callable[..., Any]
METHODS = {kind.__name__: kind for kind in PEFT_TYPE_TO_CONFIG_MAPPING.values()}
SETTINGS: dict[str, dict[str, Any]] = {
    "AdaLoraConfig": {"total_step": 10},
    "C3AConfig": {"block_size": 16},
    "CPTConfig": {"task_type": "CAUSAL_LM"},
    "DeftConfig": {"decomposition_method": "qr"},
    "LNTuningConfig": {"target_modules": ["layer_norm", "input_layernorm", "LayerNorm"]},
    "MissConfig": {"r": 4},
    "RoadConfig": {"group_size": 16},
    "ShadowConfig": {"shadow_dropout": 0.0},
    "ShiraConfig": {"r": 4},
    "TrainableTokensConfig": {"token_indices": [5, 6]},
    "VBLoRAConfig": {"vector_length": 16, "num_vectors": 8},
    "WaveFTConfig": {"n_frequency": 200},
}
"""What the methods need for models as small as these."""
TO_WHAT_IS_READ = "is not supported, as it adds to what a model reads"
REFUSED = {
    "AdaLoraConfig": "shares out ranks as it trains",
    "AdaptionPromptConfig": TO_WHAT_IS_READ,
    "CPTConfig": TO_WHAT_IS_READ,
    "CartridgeConfig": TO_WHAT_IS_READ,
    "LilyConfig": "a mean over all samples of a micro-batch",
    "MultitaskPromptTuningConfig": TO_WHAT_IS_READ,
    "PolyConfig": "asks of each sample which task it belongs to",
    "PrefixTuningConfig": TO_WHAT_IS_READ,
    "PromptEncoderConfig": TO_WHAT_IS_READ,
    "PromptTuningConfig": TO_WHAT_IS_READ,
    "PveraConfig": "draws random numbers for each micro-batch",
    "ShadowConfig": "trains a network beside the model",
    "XLoraConfig": "mixes adapters that were trained before",
}
if not hasattr(METHODS["AdamssConfig"], "random_seed"):
    REFUSED["AdamssConfig"] = "has other parts wherever it is loaded"
WORKING = sorted(METHODS.keys() - REFUSED.keys())
UNMERGED = {"BeftConfig"}  # into layers without a bias
MODELS: dict[Head, str] = {"causal": "llama", "seq2seq": "t5", "classifier": "bert"}
IDS = torch.tensor([[1, 5, 6, 7, 8, 2], [1, 9, 10, 11, 2, 0], [1, 6, 12, 13, 5, 2]])
LABELS: dict[Head, Tensor] = {"causal": IDS, "seq2seq": IDS, "classifier": torch.tensor([0, 1, 2])}


def described(name: str) -> Any:
    return METHODS[name](**SETTINGS.get(name, {}))


def logits(model: Any, head: Head, ids: Tensor = IDS) -> Tensor:
    beside = {"decoder_input_ids": ids} if head == "seq2seq" else {}
    found: Tensor = model(input_ids=ids, attention_mask=(ids != 0).long(), **beside).logits
    return found


def gradients(model: Any, head: Head, size: int) -> dict[str, Tensor]:
    """Of the sum over all targets, from so many samples at a time."""
    model.zero_grad()
    for ids, labels in zip(IDS.split(size), LABELS[head].split(size), strict=True):
        found = logits(model, head, ids).flatten(0, -2)
        functional.cross_entropy(found, labels.flatten(), reduction="sum").backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def learn(model: Any, head: Head) -> None:
    """Two steps, long ones, so that everything moves."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        gradients(model, head, len(IDS))
        optimizer.step()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("head", MODELS)
@pytest.mark.parametrize("name", WORKING)
def test_a_method_works_from_first_to_last(
    name: str, head: Head, build: Build, bases: Path, tmp_path: Path
) -> None:
    if (name, head) == ("TrainableTokensConfig", "classifier"):
        with pytest.raises(ConfigError, match="leaves no other layers to be trained, as those of"):
            add_adapter(build("bert", head), described(name), head, seed=0)
        return
    base = bases / head
    model, again = build(MODELS[head], head).eval(), build(MODELS[head], head).eval()
    if not base.is_dir():
        model.save_pretrained(base)
    with torch.no_grad():
        before = logits(model, head)
    with torch.device("meta"):
        planned = build(MODELS[head], head)
        add_adapter(planned, described(name), head, seed=0)
    tuner = add_adapter(model, described(name), head, seed=0)
    assert count_parameters(planned) == count_parameters(model)
    assert all(parameter.is_meta for parameter in planned.parameters())

    model.train()
    whole, split = gradients(model, head, len(IDS)), gradients(model, head, 1)
    assert whole.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for key, gradient in whole.items():  # some methods compute in fp32 whatever they are given
        torch.testing.assert_close(split[key], gradient, rtol=1e-3, atol=1e-4 * largest)
    learn(model, head)
    model.eval()
    with torch.no_grad():
        after = logits(model, head)
        assert (after - before).abs().max() > 1e-5
        with without_adapter(model):
            assert torch.equal(logits(model, head), before)

        kept = trained_state(model, model.state_dict())
        torch.rand(3)  # what is drawn follows from the seed alone
        resumed = add_adapter(again, described(name), head, seed=0)
        again.load_state_dict(whole_state(again, kept, base_of(model)))
        assert torch.equal(logits(again, head), after)

        save_adapter(resumed, tmp_path, str(base))
        config = peft.PeftConfig.from_pretrained(str(tmp_path))
        if head == "seq2seq":  # whose own class in peft 0.19 asks transformers for what it had
            config.task_type = None
        plain: dict[str, Any] = {"attn_implementation": model.config._attn_implementation}
        loaded = AUTO_CLASSES[head].from_pretrained(base, **plain)
        theirs = peft.PeftModel.from_pretrained(loaded, tmp_path, config=config).eval()
        assert torch.equal(logits(theirs, head), after)

        merges = [lambda: merged(model, tuner)]
        if head != "classifier":  # whose folder does not name its classes
            merges.append(lambda: with_folder(AUTO_CLASSES[head].from_pretrained(base), tmp_path))
        for merge in merges:
            if name in UNMERGED and head != "classifier":
                with pytest.raises(ConfigError, match=f"peft cannot merge {name}: .* has no bias"):
                    merge()
                continue
            torch.testing.assert_close(logits(merge(), head), after, rtol=1e-4, atol=1e-4)


def with_folder(model: Any, folder: Path) -> Any:
    merge_adapter(model, folder)
    return model.eval()


@pytest.mark.parametrize("name", sorted(REFUSED.keys() & METHODS.keys()))
def test_a_method_that_cannot_work_is_refused_by_name(name: str, build: Build) -> None:
    with torch.device("meta"):
        model = build("llama", "causal")
        with pytest.raises(ConfigError, match=rf"adapter: {name} .*{REFUSED[name]}.*\.") as refused:
            add_adapter(model, described(name), "causal", seed=0)
    assert "\n" not in str(refused.value)


KNOWN = set(vars(peft.LoraConfig()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "eva"),
        ("alora_invocation_tokens", [5]),
        ("arrow_config", {"top_k": 1}),
        ("kasa_config", {"beta": 1e-4}),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("monteclora_config", {"num_samples": 2}),
        ("velora_config", {"num_groups": 4}),
    ],
)
def test_what_a_lora_cannot_be_is_refused(field: str, value: Any, build: Build) -> None:
    if field not in KNOWN:
        pytest.skip(f"this peft has no {field}")
    adapter = Lora(config={field: value})
    with torch.device("meta"):
        model = build("llama", "causal")
        with pytest.raises(ConfigError, match=rf"^adapter\.config\.{field}.* is not supported, as"):
            add_adapter(model, adapter, "causal", seed=0)


def test_biases_that_are_trained_are_left_out_with_the_adapter(build: Build) -> None:
    """Else the reference of DPO would change as they do."""
    model = build("gpt2", "causal").eval()
    with torch.no_grad():
        before = logits(model, "causal")
    add_adapter(model, Lora(config={"bias": "all"}), "causal", seed=0)
    learn(model, "causal")
    with torch.no_grad():
        after = logits(model, "causal")
        with without_adapter(model):
            assert torch.equal(logits(model, "causal"), before)
        assert torch.equal(logits(model, "causal"), after)


def test_nothing_to_train_is_refused(build: Build) -> None:
    adapter = peft.TrainableTokensConfig(token_indices=[])
    with pytest.raises(ConfigError, match="TrainableTokensConfig trains nothing as it is"):
        add_adapter(build("llama", "causal"), adapter, "causal", seed=0)


def test_a_start_whose_gradients_are_rounding_is_refused(build: Build) -> None:
    if "DeftConfig" not in METHODS:
        pytest.skip("this peft has no DeftConfig")
    with pytest.raises(ConfigError, match=r"Set adapter\.decomposition_method=qr"):
        add_adapter(build("llama", "causal"), METHODS["DeftConfig"](), "causal", seed=0)
