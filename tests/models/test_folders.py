"""Trained weights as they are found, against transformers and peft by themselves."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from truesweep.data import tokenizers
from truesweep.errors import ConfigError
from truesweep.models import Head, Lora, Pretrained, add_adapter
from truesweep.models.adapters import save_adapter

pytestmark = pytest.mark.numbers

Build = Callable[..., Any]
IDS = torch.tensor([[5, 9, 7, 30, 8, 2], [4, 4, 40, 6, 21, 2]])
LABELS = ("a", "b", "c")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def plain(name: Path | str) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.float32, attn_implementation="eager"
    )


def load(name: Path | str, tokenizer: PreTrainedTokenizerBase, head: Head = "causal") -> Any:
    labels = LABELS if head == "classifier" else ()
    return Pretrained(name_or_path=str(name)).build(head, tokenizer, max_length=8, labels=labels)


def whole(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def sharded(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def pickled(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def pickled_in_shards(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    state = model.state_dict()
    files = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(state)}
    for file in set(files.values()):
        torch.save({n: t for n, t in state.items() if files[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def half(model: Any, folder: Path) -> None:
    model.half().save_pretrained(folder)


def bfloat16(model: Any, folder: Path) -> None:
    model.bfloat16().save_pretrained(folder)


def padded(model: Any, folder: Path) -> None:
    model.resize_token_embeddings(64, mean_resizing=False)
    model.save_pretrained(folder)


def without_tokens(model: Any, folder: Path) -> None:
    model.config.pad_token_id = None
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()


FORMS = [whole, sharded, pickled, pickled_in_shards, half, bfloat16, padded, without_tokens]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_gives_what_transformers_gives(
    form: Callable[[Any, Path], None],
    tied: bool,
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    form(build("llama", "causal", tie_embeddings=tied), tmp_path)
    loaded = load(tmp_path, tokenizer)
    assert torch.equal(logits(loaded), logits(plain(tmp_path)))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.config.pad_token_id == tokenizer.pad_token_id
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_added_tokens_change_nothing_for_the_others(
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    larger_tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    build("llama", "causal").save_pretrained(tmp_path)
    more = logits(load(tmp_path, larger_tokenizer))
    assert more.shape[-1] == len(larger_tokenizer)
    assert torch.equal(more[..., : len(tokenizer)], logits(plain(tmp_path)))


def test_a_model_in_the_hub_s_cache_needs_no_network(
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository, commit = tmp_path / "models--someone--small", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    build("llama", "causal").save_pretrained(repository / "snapshots" / commit)
    tokenizers.save(tokenizer, repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    loaded = load("someone/small", tokenizers.load("someone/small"))
    assert torch.equal(logits(loaded), logits(plain("someone/small")))
    with pytest.raises(ConfigError, match="cannot load someone/other"):
        load("someone/other", tokenizer)


class Told:
    """Says so when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.write_text, (self.file, "code was run")


def test_pickled_code_is_not_run(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    build("llama", "causal").config.save_pretrained(tmp_path)
    torch.save({"lm_head.weight": Told(tmp_path / "told")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot load .*eights"):
        load(tmp_path, tokenizer)
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("model-*.safetensors")).unlink(),
        lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "llama'),
    ],
)
def test_damage_is_a_sentence(
    damage: Callable[[Path], None],
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    sharded(build("llama", "causal"), tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigError, match="name_or_path: cannot load"):
        load(tmp_path, tokenizer)


def test_a_configuration_of_other_dimensions_is_a_sentence(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    whole(build("llama", "causal"), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 64}))
    with pytest.raises(ConfigError, match=r"lacks weights .*mlp"):
        load(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("quantised", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
    ],
)
def test_quantised_weights_are_a_sentence(
    quantised: dict[str, Any],
    method: str,
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    whole(build("llama", "causal"), tmp_path)
    config = tmp_path / "config.json"
    fields = {**json.loads(config.read_text()), "quantization_config": quantised}
    config.write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=rf"are quantised \({method}\), and can be neither"):
        load(tmp_path, tokenizer)


def test_code_of_its_own_is_not_run(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    auto = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (tmp_path / "own.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(ConfigError, match="is built by code of its own, which is not run"):
        load(tmp_path, tokenizer)


def test_the_text_part_of_a_model_of_images(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    small: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 32}
    text = {**small, "head_dim": 16, "num_key_value_heads": 1, "vocab_size": 44}
    vision = {**small, "image_size": 8, "patch_size": 4, "model_type": "siglip_vision_model"}
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=43
    )
    both = Gemma3ForConditionalGeneration(config)
    both.save_pretrained(tmp_path)
    loaded = load(tmp_path, tokenizer)
    assert type(loaded).__name__ == "Gemma3ForCausalLM"
    both.set_attn_implementation("eager")
    torch.testing.assert_close(logits(loaded), logits(both), rtol=0, atol=1e-6)
    loaded.save_pretrained(tmp_path / "text")
    assert torch.equal(logits(plain(tmp_path / "text")), logits(loaded))


@pytest.fixture
def adapter(build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Any:
    """Makes the folder of an adapter and the model that was trained with it."""
    pytest.importorskip("peft", reason="needs peft (pip install peft)")
    build("llama", "causal").save_pretrained(tmp_path / "base")

    def adapter(head: Head) -> tuple[Path, Any]:
        torch.manual_seed(1)
        model = load(tmp_path / "base", tokenizer, head)
        tuner = add_adapter(model, Lora(r=2), head, seed=0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)  # as large as the weights: sums round as theirs do
        (tmp_path / head).mkdir()
        save_adapter(tuner, tmp_path / head, str(tmp_path / "base"))
        return tmp_path / head, model

    return adapter


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own use of it
def test_an_adapter_is_added_to_its_base(
    adapter: Any, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder, model = adapter("causal")
    loaded = load(folder, tokenizer)
    assert (logits(loaded) - logits(plain(tmp_path / "base"))).abs().max() > 0.01
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)
    theirs = importlib.import_module("peft").PeftModel.from_pretrained(
        plain(tmp_path / "base"), folder
    )
    torch.testing.assert_close(logits(loaded), logits(theirs), rtol=1e-5, atol=1e-5)
    assert all(".lora_" not in name for name, _ in loaded.named_parameters())
    assert all(p.requires_grad for p in loaded.parameters())
    add_adapter(loaded, Lora(r=2), "causal", seed=0)


def test_an_adapter_whose_base_is_another_or_gone(
    adapter: Any, build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder, _ = adapter("causal")
    build("gpt2", "causal").save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"cannot load .*causal"):
        load(folder, tokenizer)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"cannot load .*causal"):
        load(folder, tokenizer)


def test_an_adapter_of_a_classifier(adapter: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    folder, _ = adapter("classifier")
    with pytest.raises(ConfigError, match="does not name its classes"):
        load(folder, tokenizer, "classifier")


def test_an_adapter_without_a_base(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ConfigError, match="names no base_model_name_or_path"):
        load(tmp_path, tokenizer)


def write_gguf(model: Any, file: Path, tokens: Sequence[str] = ()) -> None:
    """A Llama as llama.cpp keeps it: other names, and the halves of a rotation side by side.

    Its tokens, if there are any: `<pad>`, `<bos>`, `<eos>`, `<unk>`, and bytes as GPT-2 has them.
    """
    gguf = importlib.import_module("gguf")
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([3] * 4 + [1] * (len(tokens) - 4))  # control tokens, then others
        writer.add_token_merges([f"{tokens[-1][0]} {tokens[-1][1]}"])
        writer.add_pad_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(3)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if "q_proj" in name or "k_proj" in name:
            heads, width = config.num_attention_heads, config.hidden_size
            tensor = tensor.view(heads, 2, -1, width).transpose(1, 2).reshape(width, width)
        known = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(known, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf(build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = build("llama", "causal", config={"rope_parameters": {"rope_theta": 1e4}})
    write_gguf(model, tmp_path / "model.gguf")
    assert torch.equal(logits(load(tmp_path / "model.gguf", tokenizer)), logits(model))


def test_gguf_without_its_package(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"needs the package gguf.*truesweep\[gguf\]"):
        load(tmp_path / "model.gguf", tokenizer)


def test_pieces_without_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(ConfigError, match=r"needs the package sentencepiece.*pip install"):
        tokenizers.load(tmp_path)
