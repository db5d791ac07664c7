"""Supervised fine-tuning: losses are those of transformers, answers those of each prompt alone."""

import json
import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.commands.conftest import SMALL, write_chats, write_preferences
from tests.data.chat_styles import STYLES, ragged
from tests.data.test_chats import by_hand
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.commands.generate import Options, generate
from truesweep.commands.train import train
from truesweep.data.chats import ChatKind
from truesweep.data.datasets import Subset
from truesweep.data.kinds import EncodedSplit
from truesweep.data.samples import Chat
from truesweep.data.source import Source
from truesweep.errors import ConfigError, DataError
from truesweep.jobs.plan import plan
from truesweep.models import Scratch
from truesweep.models.batching import keep_documents_apart
from truesweep.tasks.sft import Answers, SupervisedFineTuning
from truesweep.tasks.summarization import Rouge

pytestmark = pytest.mark.numbers


def small(architecture: str, tokenizer: Any, context: int = 256) -> Any:
    torch.manual_seed(0)
    scratch = Scratch(architecture=architecture, depth=2, width=32, heads=2, init="default")
    model: Any = scratch.build("causal", tokenizer, max_length=context)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # so that all that is read matters
    return model.eval()


def dataset(
    tokenizer: Any,
    chats: list[Chat],
    packing: bool | Literal["documents"] = False,
    max_length: int = 256,
    **settings: Any,
) -> Any:
    kind = ChatKind(**settings)
    rows = {name: ragged(of) for name, of in kind.marked(tokenizer, chats).items()}

    class At(Source):
        load: Any = None

    source = At(max_length=max_length, packing=packing)
    split = EncodedSplit(name="val", samples=chats, tokens=rows, source=source, tokenizer=tokenizer)
    return kind.dataset(split)


@pytest.mark.parametrize("name", STYLES)
def test_losses_are_those_of_transformers(name: str) -> None:
    style = STYLES[name]
    tokenizer = style.tokenizer()
    model = small("llama", tokenizer).double()
    first = 1 if style.system else 0
    chats = [Chat.of(style.messages), Chat.of(style.messages[: first + 2])]
    ids, inside = by_hand(style, tokenizer)
    labels = [i if answer else -100 for i, answer in zip(ids, inside, strict=True)]
    task = SupervisedFineTuning(model=model, tokenizer=tokenizer)
    batch = dataset(tokenizer, chats).collate([0, 1])
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        nll, count = task.score_tokens(batch)
        loss, _, total = task.loss(batch)
    assert count[0] == sum(inside)
    shifted = torch.tensor(labels[1:])
    by_torch = cross_entropy(theirs.logits[0, :-1], shifted, ignore_index=-100)
    assert float(nll[0] / count[0]) == pytest.approx(float(by_torch), rel=1e-12)
    assert float(nll[0] / count[0]) == pytest.approx(float(theirs.loss), rel=1e-6)  # in fp32
    assert float(loss / total) == pytest.approx(float(nll.sum() / count.sum()), rel=1e-12)
    guessed = theirs.logits[0, :-1].argmax(-1).tolist()
    right = sum(g == label for g, label in zip(guessed, labels[1:], strict=True))
    task.on_validation_epoch_start()
    task.score_tokens(dataset(tokenizer, chats).collate([0]))
    accuracy: Any = task.metrics["accuracy"]
    assert float(accuracy.compute()) == pytest.approx(right / sum(inside))


@pytest.mark.parametrize(
    ("architecture", "context", "new"),
    [
        *((name, 256, 12) for name in ("llama", "gpt2", "qwen3", "lfm2")),
        *((name, 256, 12) for name in ("rwkv", "xlstm")),  # read what pads in front
        ("gpt2", 160, 150),
    ],
)
def test_answers_do_not_depend_on_what_is_asked_beside_them(
    architecture: str, context: int, new: int
) -> None:
    style = STYLES["zephyr"]
    tokenizer = style.tokenizer()
    task = SupervisedFineTuning(
        model=small(architecture, tokenizer, context), tokenizer=tokenizer, max_new_tokens=new
    )
    texts = ["How many legs?", "wings?", "Be brief. And how many legs and wings, I think?"]
    chats = [
        Chat.of([{"role": "user", "content": t}, {"role": "assistant", "content": "None."}])
        for t in texts
    ]
    batch = dataset(tokenizer, chats).collate([0, 1, 2])
    ids, mask, references = task.asked(batch, [0, 1, 2])
    assert references == ["None."] * 3
    assert (mask[:, -1] == 1).all()
    assert not mask.all()
    together = task.generate_texts(ids, mask)
    assert len(set(together)) > 1
    assert together == [task.answer(text, False) for text in texts]


def test_an_answer_ends_where_the_template_ends_one() -> None:
    tokenizer = STYLES["phi-3"].tokenizer()
    model = small("llama", tokenizer)
    task = SupervisedFineTuning(model=model, tokenizer=tokenizer, max_new_tokens=5)
    end, text = (tokenizer.convert_tokens_to_ids(t) for t in ("<|end|>", "<|endoftext|>"))
    assert task.ends(tokenizer) == sorted([end, text])
    ids = torch.tensor([[5, 6, 7]])
    assert task.generate_texts(ids, torch.ones_like(ids)) != [""]
    direction = model.model(input_ids=ids).last_hidden_state[0, -1].detach()
    model.lm_head.weight.data[end] = 10 * direction  # by far the likeliest
    assert task.generate_texts(ids, torch.ones_like(ids)) == [""]
    warned = SupervisedFineTuning(model=model, tokenizer=STYLES["alpaca"].tokenizer())
    assert "does not learn to end one" in next(warned.warnings(()))
    assert not list(task.warnings(()))


def talks(count: int) -> list[Chat]:
    """Conversations of one to three answers, of different lengths."""
    draw = random.Random(0)
    words = ["How", "many", "legs", "and", "wings,", "I", "think?", "None.", "Be", "brief."]

    def said() -> str:
        return " ".join(["I", *draw.choices(words, k=draw.randint(0, 5))])

    def turns() -> list[Any]:
        number = draw.randint(1, 3)
        return [{"role": r, "content": said()} for r in ("user", "assistant") * number]

    return [Chat.of(turns()) for _ in range(count)]


@pytest.mark.parametrize("truncation", ["left", "right"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gemma3_text"])
def test_packed_conversations_learn_as_single_ones(architecture: str, truncation: str) -> None:
    tokenizer = STYLES["zephyr"].tokenizer()
    model, chats = small(architecture, tokenizer).double(), talks(20)
    keep_documents_apart(model, 64)
    found: list[Any] = []
    ways: tuple[Any, ...] = (False, "documents")
    for packing in ways:
        data = dataset(tokenizer, chats, packing, max_length=60, truncation=truncation)
        task = SupervisedFineTuning(model=model, tokenizer=tokenizer)
        model.zero_grad()
        total, _, count = task.loss(data.collate(list(range(len(data)))))
        total.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        lost = data.truncated, data.cut, data.without_target, data.longest
        found.append((float(total.detach()), int(count), gradient, lost, data))
    (loss, count, gradient, lost, alone), (packed, same, its, cut, windows) = found
    assert packed == pytest.approx(loss, rel=1e-5)
    assert same == count
    assert cut == lost
    assert lost[0]  # some are too long
    assert (its - gradient).abs().max() < 1e-5 * gradient.abs().max()
    assert len(windows) < len(alone)
    assert windows.lengths.max() <= 60
    targets = [data.target_counts(len(tokenizer)).tolist() for data in (alone, windows)]
    assert targets[0] == targets[1]
    first = Subset(windows, np.array([1]))
    assert len(first.scored) == len(windows.windows[1])
    assert first.scored.collate([0])["source"] == [chats[windows.windows[1][0]].source]


def test_models_that_mix_packed_conversations_are_refused(workplace: Path) -> None:
    named = [*write_chats(workplace), *SMALL, "data.packing=documents"]
    with pytest.raises(ConfigError, match="rwkv lets tokens see the documents beside their own"):
        plan([*named, "model=auto", "model.architecture=rwkv"])
    overfit = plan([*named, "data.max_length=64", "debug=overfit"])
    assert overfit.metrics[0] == "val/loss"
    with pytest.raises(ConfigError, match="cannot be put side by side"):
        plan([*write_preferences(workplace), *SMALL, "data.packing=documents"])


def test_exact_match_and_rouge_are_means_over_answers() -> None:
    metric = Answers()
    metric.update(["a cat sat", " Four.\n", ""], ["the cat sat", "Four.", "No."])
    found = metric.compute()
    assert float(found["exact_match"]) == pytest.approx(1 / 3)
    assert float(found["rougeL"]) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_scores_of_texts_have_one_type() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does with bf16-true
    try:
        for metric in (Answers(), Rouge()):
            rows = metric.by_sample(metric.statistics(["a cat"], ["the cat"]))
            assert {values.dtype for values in rows.values()} == {torch.float64}
    finally:
        torch.set_default_dtype(before)


def test_a_run_is_trained_scored_asked_and_exported(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [*write_chats(workplace), *SMALL, "model.init=default", "task.max_new_tokens=6"]
    asked = [*named, "data.max_length=48", "optimizer.lr=0.02", "trainer.max_steps=24", "name=s"]
    assert train(asked, [], None, False) == 0
    (run,) = (workplace / "outputs/s").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["test/loss"] < results["baseline/test/loss"]
    for figure in ("loss", "accuracy", "exact_match", "rougeL"):
        assert results[f"test/{figure}_standard_error"] >= 0
    assert results["val/samples"] > 0
    capsys.readouterr()
    assert evaluate([str(run)], "test", "best", [], as_json=True) == 0
    again = json.loads(capsys.readouterr().out)
    known = {k: v for k, v in again.items() if isinstance(results.get(k), float)}
    assert known == pytest.approx({k: results[k] for k in known}, rel=1e-5)
    assert generate(run, "red green blue", None, "best", Options()) == 0
    said = capsys.readouterr().out.strip()
    typed = '[{"role": "user", "content": "red green blue"}]'
    assert generate(run, typed, None, "best", Options()) == 0
    assert capsys.readouterr().out.strip() == said
    assert generate(run, "red " * 99 + "red green blue", None, "best", Options(2)) == 0
    assert "tokens was cut after 48 (data.max_length)" in capsys.readouterr().err
    assert export(run, workplace / "out", "best") == 0
    tokenizer: Any = AutoTokenizer.from_pretrained(workplace / "out")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "red green blue"}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    model: Any = AutoModelForCausalLM.from_pretrained(workplace / "out")
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id]
    out = model.generate(**prompt, max_new_tokens=6, do_sample=False)
    text = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == said
    capsys.readouterr()
    assert generate(workplace / "out", "red green blue", None, "best", Options(6)) == 0
    assert capsys.readouterr().out.strip() == said
    assert generate(workplace / "out", "red green", None, "best", Options(3, 0.0, raw=True)) == 0
    assert capsys.readouterr().out.startswith("red green")
    assert generate(workplace / "out", "red", None, "best", Options(3, top_k=3)) == 0
    assert "--top-k changes nothing" in capsys.readouterr().err


def test_answers_that_are_all_cut_off_are_refused(workplace: Path) -> None:
    with pytest.raises(DataError, match=r"no answer within data\.max_length=3"):
        plan([*write_chats(workplace), *SMALL, "data.max_length=3"])
    planned = plan([*write_chats(workplace), *SMALL, "data.max_length=12", "task.truncation=left"])
    assert any("are cut there" in warning for warning in planned.warnings)
