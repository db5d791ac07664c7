"""What a model makes of a sample follows from the sample, and from what the model has learned."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
)

from tests.commands.conftest import SMALL, write_data
from truesweep.commands.evaluate import evaluate, score
from truesweep.data.tokenizers import Byte
from truesweep.errors import ConfigError
from truesweep.jobs.parts import build
from truesweep.jobs.plan import plan

pytestmark = pytest.mark.numbers

TINY: dict[str, Any] = {
    "vocab_size": 260,
    "d_model": 32,
    "max_position_embeddings": 64,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "init_std": 0.5,
}


def test_a_model_that_sees_padding_reads_each_sample_alone(workplace: Path) -> None:
    asked = [*write_data(workplace)["classification"], *SMALL, "model=auto"]
    asked.append("model.architecture=fnet")
    losses = []
    for size in (1, 7):
        sizes = [f"data.eval_batch_size={size}", f"data.micro_batch_size={size}"]
        planned = plan([*asked, *sizes])
        assert "what fnet makes of a sample changes with padding" in " ".join(planned.warnings)
        parts = build(planned.config)
        assert parts.data.micro_batch_size == 1
        figures = score(planned.config, parts.task, parts.prepared, parts.source, "val")
        losses.append(figures["val/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_noise_is_refused_before_anything_is_spent(workplace: Path) -> None:
    asked = [*write_data(workplace)["lm"], *SMALL, "model=auto", "model.architecture=phimoe"]
    with pytest.raises(ConfigError, match="phimoe draws random numbers in training"):
        plan(asked)


@pytest.mark.parametrize(
    "model",
    [
        (MBartForConditionalGeneration, MBartConfig(**TINY, decoder_start_token_id=None)),
        (MBartForConditionalGeneration, MBartConfig(**TINY, decoder_start_token_id=7)),
        (BartForConditionalGeneration, BartConfig(**TINY, decoder_start_token_id=7)),
    ],
    ids=["mbart", "mbart-start", "bart"],
)
def test_a_loaded_decoder_starts_as_it_has_learned_to(
    workplace: Path, model: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(workplace)
    torch.manual_seed(0)
    model[0](model[1]).save_pretrained("folder")
    Byte().build(()).save_pretrained("folder")
    paths = [f"{group}.name_or_path=folder" for group in ("model", "tokenizer")]
    asked = ["task=translation", "model=pretrained", "tokenizer=pretrained", *paths, "data=files"]
    asked += ["data.source=de", "data.target=en", "data.test=few", "task.max_new_tokens=2"]
    pairs = [("red blue", "ROT"), ("cold", "KALT WARM"), ("old", "A")]
    for end, side in (("de", 0), ("en", 1)):
        Path(f"few.{end}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
    assert evaluate(asked, "test", "best", [], as_json=True) == 0
    ours = json.loads(capsys.readouterr().out)["test/loss"]
    theirs = AutoModelForSeq2SeqLM.from_pretrained("folder").eval()
    tokenizer = AutoTokenizer.from_pretrained("folder")
    nll, count = 0.0, 0
    for pair in pairs:
        source, target = (torch.tensor([[*tokenizer(text).input_ids, 2]]) for text in pair)
        with torch.no_grad():
            nll += float(theirs(input_ids=source, labels=target).loss) * target.shape[1]
        count += target.shape[1]
    assert ours == pytest.approx(nll / count, rel=1e-5)


def test_languages_are_named_and_stand_before_what_is_generated(workplace: Path) -> None:
    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    letters = [(f"{space}{c}", -1.0) for c in "abcdefghijklmnopqrstuvwxyz" for space in ("", "▁")]
    tokenizer = MBart50Tokenizer(vocab=[*pieces, *letters])
    torch.manual_seed(0)
    tiny = {**TINY, "vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 0}
    MBartForConditionalGeneration(MBartConfig(**tiny)).save_pretrained("folder")
    tokenizer.save_pretrained("folder")
    asked = [*write_data(workplace)["translation"], *SMALL]
    asked = [word for word in asked if not word.startswith(("model", "tokenizer"))]
    asked += [f"{group}=pretrained" for group in ("model", "tokenizer")]
    asked += [f"{group}.name_or_path=folder" for group in ("model", "tokenizer")]
    said = " ".join(plan(asked).warnings)
    assert "marks both sides by en_XX. Name them by tokenizer.source_language=" in said
    named = ["tokenizer.source_language=de_DE", "tokenizer.target_language=zh_CN"]
    with pytest.raises(ConfigError, match=r"no such language; did you mean zh_CN"):
        plan([*asked, named[0], "tokenizer.target_language=zh_CM"])
    planned = plan([*asked, *named])
    assert "marks" not in " ".join(planned.warnings)
    parts = build(planned.config)
    ids: list[list[int]] = []
    task: Any = parts.task
    decode = task.tokenizer.batch_decode

    def look(rows: torch.Tensor, **how: Any) -> Any:
        ids.extend(rows.tolist())
        return decode(rows, **how)

    task.tokenizer.batch_decode = look
    task.answer("red blue", packing=False)
    german, chinese = (tokenizer.convert_tokens_to_ids(name) for name in ("de_DE", "zh_CN"))
    assert task.input_ids("red")[0, 0] == german
    assert ids[0][:2] == [2, chinese]
    batch = parts.prepared.val.collate([0])
    assert batch["labels"][0, 0] == chinese
