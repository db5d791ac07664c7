"""Every preset, for every head that transformers has for it, at several dimensions."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from truesweep.errors import ConfigError
from truesweep.models import PRESETS, Head, Scratch
from truesweep.models.heads import check_head

pytestmark = pytest.mark.numbers

CONF = Path(__file__).parents[2] / "conf" / "model"
LABELS = ("a", "b", "c")
LENGTH = 12
HEADS: tuple[Head, ...] = ("causal", "seq2seq", "classifier")


def fits(architecture: str, head: Head) -> bool:
    try:
        check_head(architecture, head)
    except ConfigError:
        return False
    return True


FITTING = [(name, head) for name in PRESETS for head in HEADS if fits(name, head)]
GENERATING = [(name, head) for name, head in FITTING if head != "classifier"]


def build(name: str, head: Head, tokenizer: PreTrainedTokenizerBase, **changes: Any) -> Any:
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert node.pop("_target_") == "truesweep.models.Scratch"
    torch.manual_seed(0)
    scratch = Scratch(**(node | {"depth": 2, "width": 32, "heads": 2} | changes))
    return scratch.build(head, tokenizer, max_length=LENGTH, labels=LABELS)


def inputs(head: Head, rows: int = 2) -> dict[str, Tensor]:
    ids = torch.randint(4, 44, (rows, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 2  # BART and T5 classify at the end of text
    decoder = {"decoder_input_ids": ids.flip(1)} if head == "seq2seq" else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **decoder}


def stacks(model: nn.Module) -> list[int]:
    """Lengths of the stacks of layers, those inside of layers left out."""
    return [
        len(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and not any(c.isdigit() for c in name.split("."))
    ]


def test_a_preset_is_shipped_for_every_architecture() -> None:
    shipped = {path.stem for path in CONF.glob("*.yaml")}
    assert shipped == {*PRESETS, "auto", "pretrained"}


@pytest.mark.parametrize(("name", "head"), FITTING)
@pytest.mark.parametrize(("depth", "width", "heads"), [(1, 64, 2), (3, 48, 6)])
def test_depth_width_and_heads_are_what_was_asked(
    name: str,
    head: Head,
    depth: int,
    width: int,
    heads: int,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = build(name, head, tokenizer, depth=depth, width=width, heads=heads).eval()
    output = model(**inputs(head), output_attentions=True)

    assert set(stacks(model)) == {depth}
    assert model.get_input_embeddings().weight.shape == (44, width)
    attentions = output.encoder_attentions if head == "seq2seq" else None
    for weights in attentions or output.get("attentions") or output.encoder_attentions:
        assert weights.shape == (2, heads, LENGTH, LENGTH)
    assert output.logits.shape == ((2, 3) if head == "classifier" else (2, LENGTH, 44))
    assert output.logits.isfinite().all()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("name", "head"), FITTING)
def test_a_step_of_training_lowers_the_loss(
    name: str, head: Head, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = build(name, head, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    targets = torch.tensor([0, 2]) if head == "classifier" else inputs(head)["input_ids"]
    losses = []
    for _ in range(6):
        logits = model(**inputs(head)).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]
    # DistributedDataParallel waits for the gradient of every parameter.
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "head"), FITTING)
def test_padding_changes_nothing_before_it(
    name: str, head: Head, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = build(name, head, tokenizer, context=LENGTH + 4, init="default").eval()
    batch = inputs(head)
    padded = {
        **batch,
        "input_ids": nn.functional.pad(batch["input_ids"], (0, 4), value=0),
        "attention_mask": nn.functional.pad(batch["attention_mask"], (0, 4)),
    }
    with torch.no_grad():
        expected, found = model(**batch).logits, model(**padded).logits
    if head == "causal":
        found = found[:, :LENGTH]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, head in FITTING if head == "causal"])
def test_no_logit_depends_on_a_later_token(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = build(name, "causal", tokenizer, init="default").eval()
    ids = inputs("causal")["input_ids"]
    changed = ids.clone()
    changed[:, 6:] = 5
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, model(input_ids=changed).logits
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after[:, 6:], before[:, 6:])


@pytest.mark.parametrize(("name", "head"), GENERATING)
def test_generation_is_greedy_and_the_cache_changes_nothing(
    name: str, head: Head, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = build(name, head, tokenizer, context=32, init="default", depth=3).eval()
    source = {key: inputs(head)[key] for key in ("input_ids", "attention_mask")}
    cached = model.generate(**source, max_new_tokens=5)
    plain = model.generate(**source, max_new_tokens=5, use_cache=False)
    assert cached.equal(plain)
    if head == "seq2seq":
        assert set(cached[:, 0].tolist()) == {0}  # padding starts the decoder
    assert model.generation_config.forced_eos_token_id is None
    assert model.generation_config.num_beams in (None, 1)


@pytest.mark.parametrize(("name", "head"), FITTING)
def test_shapes_are_known_without_memory(
    name: str, head: Head, tokenizer: PreTrainedTokenizerBase
) -> None:
    with torch.device("meta"):
        empty = build(name, head, tokenizer, dropout=0.1)
    shapes = {key: value.shape for key, value in build(name, head, tokenizer).state_dict().items()}
    assert {value.device.type for value in empty.state_dict().values()} == {"meta"}
    assert {key: value.shape for key, value in empty.state_dict().items()} == shapes


@pytest.mark.parametrize(("name", "head"), FITTING)
def test_labels_and_special_tokens_are_the_data_s(
    name: str, head: Head, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = build(name, head, tokenizer).config
    assert (config.vocab_size, config.pad_token_id) == (44, 0)
    assert (config.bos_token_id, config.eos_token_id) == (1, 2)
    if head == "classifier":
        assert config.id2label == {0: "a", 1: "b", 2: "c"}
        assert config.label2id == {"a": 0, "b": 1, "c": 2}
    if head == "seq2seq":
        assert config.decoder_start_token_id == 0
