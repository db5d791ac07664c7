import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CanineConfig,
    CanineForSequenceClassification,
    PreTrainedTokenizerBase,
)

from truesweep.errors import ConfigError
from truesweep.models import Head, Pretrained
from truesweep.models.pretrained import Drawn

pytestmark = pytest.mark.numbers

LABELS = ("a", "b", "c")
IDS = torch.tensor([[5, 9, 7, 30, 8, 2]])


Build = Callable[..., Any]


def load(
    folder: Path, head: Head, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str] = LABELS
) -> Any:
    return Pretrained(name_or_path=str(folder)).build(head, tokenizer, max_length=8, labels=labels)


def logits(model: Any) -> Any:
    decoder = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **decoder).logits


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def without_gradient(model: Any) -> set[str]:
    """What a step leaves without a gradient; data-parallel training would wait for it."""
    decoder = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    model.zero_grad()
    model(input_ids=IDS, **decoder).logits.sum().backward()
    return {name for name in trained(model) if model.get_parameter(name).grad is None}


@pytest.fixture
def llama(tmp_path: Path, build: Build) -> Path:
    build("llama", "causal", context=16).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *(("gpt2", "causal"), ("llama", "causal"), ("qwen3", "causal"), ("lfm2", "causal")),
        *(("bert", "causal"), ("t5", "seq2seq"), ("bart", "seq2seq"), ("marian", "seq2seq")),
        *(("bert", "classifier"), ("modernbert", "classifier"), ("gpt2", "classifier")),
        *(("bart", "classifier"), ("t5", "classifier")),
    ],
)
def test_a_saved_model_comes_back_with_the_same_logits(
    name: str, head: Head, build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build(name, head)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path, head, tokenizer)
    assert all(module.training for module in loaded.modules())
    assert trained(loaded) == trained(model)
    for (key, weight), saved in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert weight.equal(saved), key
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-6)


def test_without_classes_there_is_nothing_to_reorder(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("llama", "causal", tie_embeddings=False)
    model.save_pretrained(tmp_path)
    loaded = Pretrained(name_or_path=str(tmp_path)).build("causal", tokenizer, max_length=8)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_an_untied_scaled_model_comes_back_untied(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("lfm2", "causal", tie_embeddings=False, init="scaled")
    model.get_output_embeddings().weight.data.normal_()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert logits(loaded).equal(logits(model))


def test_half_precision_weights_are_loaded_in_single(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    build("llama", "causal", context=16).bfloat16().save_pretrained(tmp_path)
    loaded = load(tmp_path, "causal", tokenizer)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_language_model_gets_a_new_classifier(
    llama: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load(llama, "classifier", tokenizer, ["x", "y", "z", "w"])
    assert logits(model).shape == (1, 4)
    assert model.config.id2label == {0: "x", 1: "y", 2: "z", 3: "w"}
    trained = load_file(llama / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert model.model.layers[0].mlp.up_proj.weight.equal(trained)


def test_a_classifier_is_replaced_for_other_classes_and_reordered_for_the_same(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("bert", "classifier")
    model.classifier.bias.data = torch.tensor([1.0, 2.0, 3.0])
    model.save_pretrained(tmp_path)
    other = load(tmp_path, "classifier", tokenizer, ["a", "b"])
    assert logits(other).shape == (1, 2)
    same = load(tmp_path, "classifier", tokenizer, ["c", "a", "b"])
    torch.testing.assert_close(logits(same), logits(model)[:, [2, 0, 1]])


def test_rows_are_added_for_added_tokens(
    llama: Path, larger_tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load(llama, "causal", larger_tokenizer)
    assert logits(model).shape == (1, 6, 54)


def test_a_bert_of_two_directions_becomes_one_that_looks_back(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("bert", "causal")
    model.config.is_decoder = False
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path, "causal", tokenizer)
    changed = IDS.clone()
    changed[:, -1] = 3
    first, second = loaded.eval()(IDS).logits, loaded(changed).logits
    torch.testing.assert_close(first[:, :-1], second[:, :-1])


@pytest.mark.parametrize(
    ("name", "trained_for", "task"),
    [("gpt2", "classifier", "classification"), ("bert", "masked", "mlm")],
)
def test_weights_that_learned_something_else_are_not_scored(
    name: str,
    trained_for: Head,
    task: str,
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    build(name, trained_for).save_pretrained(tmp_path)
    notes: list[str] = []
    Pretrained(name_or_path=str(tmp_path)).build("causal", tokenizer, max_length=8, notes=notes)
    said = [note for note in notes if isinstance(note, Drawn)]
    assert f"not for language modelling: set task={task}" in said[0]


@pytest.mark.parametrize(
    ("name", "trained_for", "task"),
    [("bert", "classifier", "classification"), ("bart", "seq2seq", "translation")],
)
def test_weights_that_are_missing_since_they_learned_something_else(
    name: str,
    trained_for: Head,
    task: str,
    build: Build,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    build(name, trained_for).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"not for language modelling: set task={task}"):
        load(tmp_path, "causal", tokenizer)


def test_weights_are_checked_even_where_shapes_would_do(
    llama: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    with torch.device("meta"):
        assert load(llama, "causal", tokenizer).device.type == "cpu"


def test_a_missing_folder_is_said_without_asking_the_hub(tmp_path: Path) -> None:
    for name in (str(tmp_path / "gone"), "./gone", "models/of/mine"):
        with pytest.raises(ConfigError, match="there is no folder"):
            Pretrained(name_or_path=name).check("causal", max_length=8)


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot load .* Name a folder with config\.json"):
        Pretrained(name_or_path=str(tmp_path)).check("causal", max_length=8)


def test_the_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'.")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", offline)
    with pytest.raises(ConfigError, match="cannot load someone/model: We couldn't connect"):
        Pretrained(name_or_path="someone/model").check("causal", max_length=8)


def test_missing_weights_are_not_made_up(llama: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    weights = load_file(llama / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    for head in ("causal", "classifier"):
        with pytest.raises(ConfigError, match=r"lacks weights .*layers\.1\.mlp\.up_proj"):
            load(llama, head, tokenizer)


def test_a_sample_longer_than_the_model_s_positions_is_refused(llama: Path) -> None:
    with pytest.raises(ConfigError, match=r"Set data\.max_length=16 or less"):
        Pretrained(name_or_path=str(llama)).check("causal", max_length=17)


def test_roberta_s_first_positions_are_not_for_tokens(build: Build, tmp_path: Path) -> None:
    build("roberta", "classifier", max_length=8).save_pretrained(tmp_path)
    roberta = Pretrained(name_or_path=str(tmp_path))
    roberta.check("classifier", max_length=8)
    with pytest.raises(ConfigError, match=r"than the 8 positions"):
        roberta.check("classifier", max_length=9)


def test_the_head_must_exist(llama: Path) -> None:
    with pytest.raises(ConfigError, match="no llama for translation"):
        Pretrained(name_or_path=str(llama)).check("seq2seq", max_length=8)


@pytest.mark.parametrize(
    ("name", "head"), [("marian", "seq2seq"), ("pegasus", "seq2seq"), ("bart", "causal")]
)
def test_all_that_is_trained_has_a_gradient(
    name: str, head: Head, build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    build(name, head).save_pretrained(tmp_path)
    assert without_gradient(load(tmp_path, head, tokenizer)) == set()


def test_classes_of_other_names_get_a_new_last_layer_and_it_is_said(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("bert", "classifier")
    model.save_pretrained(tmp_path)
    notes: list[str] = []
    classifier = Pretrained(name_or_path=str(tmp_path))
    loaded: Any = classifier.build(
        "classifier", tokenizer, max_length=8, labels=["x", "y", "z"], notes=notes
    )
    assert not torch.equal(loaded.classifier.weight, model.classifier.weight)
    assert "classifier.bias, classifier.weight are drawn anew" in notes[0]
    assert "its classes are a, b, c, those of the data x, y, z" in notes[0]
    told: list[str] = []
    classifier = Pretrained(name_or_path=str(tmp_path), labels=["z", "x", "y"])
    loaded = classifier.build(
        "classifier", tokenizer, max_length=8, labels=["x", "y", "z"], notes=told
    )
    torch.testing.assert_close(logits(loaded), logits(model)[:, [1, 2, 0]])
    assert told == []


def test_classes_without_names_are_numbers(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("bert", "classifier", labels=[f"LABEL_{i}" for i in range(12)])
    model.save_pretrained(tmp_path)
    as_text = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, …
    loaded = load(tmp_path, "classifier", tokenizer, as_text)
    torch.testing.assert_close(logits(loaded), logits(model)[:, [int(name) for name in as_text]])


def test_a_classifier_is_read_to_the_token_before_those_that_pad(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("gpt2", "classifier")
    model.config.pad_token_id = 17  # another one than the tokenizer's
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path, "classifier", tokenizer).eval()
    pad = int(tokenizer.pad_token_id)
    padded = torch.nn.functional.pad(IDS, (0, 2), value=pad)
    with torch.no_grad():
        alone = loaded(input_ids=IDS).logits
        beside = loaded(input_ids=padded, attention_mask=(padded != pad).long()).logits
    torch.testing.assert_close(beside, alone)


def test_a_model_that_fills_in_words_is_given_a_pooler(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    build("bert", "classifier").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {k: v for k, v in load_file(file).items() if "pooler" not in k}
    save_file(weights, file, metadata={"format": "pt"})
    notes: list[str] = []
    classifier = Pretrained(name_or_path=str(tmp_path))
    classifier.build("classifier", tokenizer, max_length=8, labels=LABELS, notes=notes)
    assert "bert.pooler.dense.bias, bert.pooler.dense.weight are drawn anew" in notes[0]
    without = {k: v for k, v in weights.items() if "layer.0.attention" not in k}
    save_file(without, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lacks weights of BertForSequenceClassification"):
        load(tmp_path, "classifier", tokenizer)


@pytest.mark.parametrize(
    ("kind", "named"),
    [("regression", "regression"), ("multi_label_classification", "multi label classification")],
)
def test_what_chooses_no_class_is_refused(
    kind: str, named: str, build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("bert", "classifier")
    model.config.problem_type = kind
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"was trained for {named}"):
        load(tmp_path, "classifier", tokenizer)


@pytest.mark.parametrize("kind", [None, "single_label_classification"])
def test_what_does_not_say_how_many_classes_it_chooses_is_said(
    kind: str | None, build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build("bert", "classifier")
    model.config.problem_type = kind
    model.save_pretrained(tmp_path)
    notes: list[str] = []
    classifier = Pretrained(name_or_path=str(tmp_path))
    classifier.build("classifier", tokenizer, max_length=8, labels=LABELS, notes=notes)
    assert not any(isinstance(note, Drawn) for note in notes)
    assert [note.partition(" (")[0] for note in notes] == [
        f"{tmp_path} does not say whether it chooses one class or several"
    ] * (kind is None)


def test_as_many_names_as_classes_are_needed(
    build: Build, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    build("bert", "classifier").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has 3 classes \(a, b, c\), and 2 names are given"):
        Pretrained(name_or_path=str(tmp_path), labels=["x", "y"]).classes()


@pytest.mark.parametrize("bytes_kept", [0, 7, 500, 3000])
def test_weights_that_are_cut_short(
    llama: Path, tokenizer: PreTrainedTokenizerBase, bytes_kept: int
) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:bytes_kept])
    with pytest.raises(ConfigError, match=r"name_or_path: cannot load .*llama.*Safetensor"):
        load(llama, "causal", tokenizer)


def test_a_configuration_of_a_far_larger_model_is_refused_before_it_takes_memory(
    llama: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    edit(llama / "config.json", hidden_size=1 << 15, intermediate_size=1 << 17)  # 100 GB
    with pytest.raises(ConfigError, match=r"config.json describes a model of 25.8G parameters"):
        load(llama, "causal", tokenizer)
    gemma = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    (llama / "config.json").write_text(json.dumps(gemma))
    with pytest.raises(ConfigError, match=r"describes a model of .* but its weights are"):
        load(llama, "causal", tokenizer)


def edit(file: Path, **changes: Any) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **changes}))


def test_a_model_without_a_table_of_tokens(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    names = dict(enumerate(LABELS))
    small: Any = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CanineConfig(**small, intermediate_size=8, num_hash_buckets=16, id2label=names)
    CanineForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be used for this task: .*embeddings"):
        load(tmp_path, "classifier", tokenizer)


@pytest.mark.parametrize(
    ("given", "dropped", "kept"),
    [
        ({"do_sample": False, "temperature": 0.6, "num_beams": 2}, "temperature", 2),
        ({"temperature": "hot", "num_beams": 2}, "temperature", 2),
        ({"do_sample": True, "temperature": 0.6}, "", None),
    ],
)
def test_settings_of_generation_that_cannot_be_saved(
    llama: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    given: dict[str, Any],
    dropped: str,
    kept: int | None,
) -> None:
    edit(llama / "generation_config.json", **given)
    notes: list[str] = []
    model = Pretrained(name_or_path=str(llama)).build(
        "causal", tokenizer, max_length=8, notes=notes
    )
    model.save_pretrained(tmp_path / "again")
    assert model.generation_config.num_beams == kept
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert [note.partition(" of ")[0] for note in notes] == ([dropped] if dropped else [])
