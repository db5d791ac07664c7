"""Preferences: losses are those of the formulas, from the model with and without its adapter."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.commands.conftest import SMALL, write_preferences
from tests.data.chat_styles import STYLES, TALK, ragged
from tests.data.test_chats import QUESTION, rows_of
from tests.rounding import FP64
from tests.tasks.test_sft import small
from truesweep.commands.evaluate import evaluate
from truesweep.commands.generate import Options, generate
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.data import Files
from truesweep.data.kinds import EncodedSplit
from truesweep.data.preferences import PREFERENCES
from truesweep.data.samples import Chat
from truesweep.data.source import Source
from truesweep.data.tokenizers import Byte
from truesweep.errors import DataError
from truesweep.jobs.parts import build
from truesweep.jobs.plan import plan
from truesweep.models import Lora, add_adapter
from truesweep.models.adapters import without_adapter
from truesweep.tasks.dpo import DirectPreference, answer_likelihoods

pytestmark = pytest.mark.numbers
WORSE = [*TALK[:-1], {"role": "assistant", "content": "I think, four wings."}]
CHATS = [Chat.of(TALK, rejected=WORSE), Chat.of(WORSE[:2], rejected=[*TALK[:1], WORSE[-1]])]


def adapted(tokenizer: Any, dropout: float = 0.0) -> Any:
    """A model whose adapter is not what it began as."""
    model = small("llama", tokenizer).double()
    add_adapter(model, Lora(r=2, dropout=dropout), "causal", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def batch_of(tokenizer: Any) -> Any:
    class At(Source):
        load: Any = None

    rows = {name: ragged(of) for name, of in PREFERENCES.marked(tokenizer, CHATS).items()}
    source = At(max_length=256)
    split = EncodedSplit(name="val", samples=CHATS, tokens=rows, source=source, tokenizer=tokenizer)
    return PREFERENCES.dataset(split).collate([0, 1])


def likelihoods(model: Any, tokenizer: Any) -> tuple[list[list[float]], list[list[int]]]:
    """By hand: sums of the log-probabilities of last answers, and how many tokens they have."""
    sums, counts = [], []
    for chat in CHATS:
        assert chat.rejected is not None
        row = []
        for messages in (chat.messages, chat.rejected.messages):
            ids = tokenizer.apply_chat_template(messages, return_dict=False)
            asked = tokenizer.apply_chat_template(
                messages[:-1], add_generation_prompt=True, return_dict=False
            )
            ids = ids[:-1]  # the line end behind the answer
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(asked), len(ids))
            row.append((sum(float(logits[i - 1, ids[i]]) for i in places), len(places)))
        sums.append([value for value, _ in row])
        counts.append([count for _, count in row])
    return sums, counts


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo"])
def test_losses_are_those_of_the_formulas(loss: Any) -> None:
    tokenizer = STYLES["zephyr"].tokenizer()
    model = adapted(tokenizer)
    ours, counts = likelihoods(model, tokenizer)
    before, _ = likelihoods(small("llama", tokenizer).double(), tokenizer)
    task = DirectPreference(model=model, tokenizer=tokenizer, loss=loss, beta=0.3, gamma=0.7)
    found, _, pairs = task.loss(batch_of(tokenizer))
    expected = 0.0
    for policy, reference, (n, m) in zip(ours, before, counts, strict=True):
        if loss == "simpo":
            margin = 0.3 * policy[0] / n - 0.3 * policy[1] / m - 0.7
            expected += math.log1p(math.exp(-margin))
        elif loss == "ipo":
            margin = (policy[0] - reference[0]) / n - (policy[1] - reference[1]) / m
            expected += (margin - 1 / (2 * 0.3)) ** 2
        else:
            margin = 0.3 * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
            expected += math.log1p(math.exp(-margin))
    assert int(pairs) == 2
    assert float(found.detach()) == pytest.approx(expected, rel=1e-9)
    found.backward()  # type: ignore[no-untyped-call]
    learns = [p for p in model.parameters() if p.requires_grad]
    assert learns
    assert all(p.grad is not None and bool(p.grad.any()) for p in learns)


def test_a_pair_of_which_an_answer_is_cut_off_does_not_count() -> None:
    tokenizer = STYLES["zephyr"].tokenizer()
    task = DirectPreference(model=adapted(tokenizer), tokenizer=tokenizer)
    whole, cut = (batch_of(tokenizer) for _ in range(2))
    cut["labels"][0, :, 1] = -100
    alone = {k: v[1:] for k, v in whole.items()}
    found, _, pairs = task.loss(cut)
    assert int(pairs) == int(task.targets(cut)) == 1
    assert float(found.detach()) == pytest.approx(float(task.loss(alone)[0].detach()), rel=1e-9)
    for one in (cut, alone):
        task.on_validation_epoch_start()
        task.evaluate(one, "val")
        assert task.figures()["loss"] == pytest.approx(float(found.detach()), rel=1e-9)


def test_label_smoothing_mixes_both_orders() -> None:
    tokenizer = STYLES["zephyr"].tokenizer()
    model = adapted(tokenizer)
    plain, smooth = (
        DirectPreference(model=model, tokenizer=tokenizer, label_smoothing=s) for s in (0, 0.2)
    )
    rewards = torch.tensor([[1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    mixed = 0.8 * plain.pair_losses(rewards) + 0.2 * plain.pair_losses(rewards.flip(1))
    torch.testing.assert_close(smooth.pair_losses(rewards), mixed)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_without_its_adapter_a_model_is_as_it_was() -> None:
    tokenizer = STYLES["zephyr"].tokenizer()
    base, ids = small("llama", tokenizer), torch.tensor([[5, 6, 7]])
    expected = base(input_ids=ids).logits
    fields: dict[str, Any] = {"target_modules": ["q_proj"], "init_lora_weights": False}
    model: Any = get_peft_model(base, LoraConfig(**fields)).get_base_model()
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    adapted = model(input_ids=ids).logits
    with without_adapter(model):
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert torch.equal(model(input_ids=ids).logits, adapted)
    assert not torch.equal(adapted, expected)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == learns


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {
            "prompt": [QUESTION],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        {
            "prompt": "q",
            "chosen": [QUESTION, {"role": "assistant", "content": "a"}],
            "rejected": [QUESTION, {"role": "assistant", "content": "b"}],
        },
    ],
)
def test_every_form_of_a_preference_is_read(row: dict[str, Any], workplace: Path) -> None:
    path = str(rows_of(Path("pairs.jsonl"), [row]))
    (chat,) = PREFERENCES.load(Files(train=path, val=path, test=path)).train
    assert isinstance(chat, Chat)
    assert chat.rejected is not None
    assert [chat.source, chat.target, chat.rejected.target] == ["q", "a", "b"]
    plain = str(rows_of(Path("chats.jsonl"), [{"prompt": "q", "completion": "a"}]))
    with pytest.raises(DataError, match="sample 1 of train, conversation 'q', has nothing"):
        PREFERENCES.load(Files(train=plain, val=plain, test=plain))


def test_pairs_that_are_none_are_told() -> None:
    def pair(question: str, worse: str) -> Chat:
        better = [QUESTION, {"role": "assistant", "content": "a"}]
        other = [{"role": "user", "content": question}, {"role": "assistant", "content": worse}]
        return Chat.of(better, rejected=other)

    tokenizer = PREFERENCES.complete(Byte().build(()))
    assert [*PREFERENCES.notes(tokenizer, [pair("q", "b")])] == []
    notes = [*PREFERENCES.notes(tokenizer, [pair("q", "b"), pair("r", "b"), pair("q", "a")])]
    assert notes[0].startswith("1 of 3 pairs have other texts before the better answer")
    assert notes[1].startswith("1 of 3 pairs have the same answer twice")


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_a_kept_reference_is_that_of_the_model_in_memory(loss: Any, workplace: Path) -> None:
    named = [*write_preferences(workplace), *SMALL, f"task.loss={loss}", "data.max_length=20"]
    planned = plan([*named, "adapter=none", "model.dropout=0.1", FP64])
    parts = build(planned.config)
    task: Any = parts.task
    reference: Any = copy.deepcopy(task.model).eval()
    assert parts.prepared.train.truncated
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    for dataset in parts.prepared.datasets.values():
        batch = dataset.collate(range(0, len(dataset), 3))
        ours, theirs = task.eval().rewards(batch), []
        for model in (task.model, reference):
            likelihoods = answer_likelihoods(model, batch)
            tokens = (batch["labels"] != -100).sum(1).clamp(min=1)
            theirs.append(likelihoods / tokens if loss == "ipo" else likelihoods)
        expected = task.beta * (theirs[0] - theirs[1])
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
        assert float(ours.detach().abs().max()) > 0.001


def kept(folder: Path) -> dict[str, int]:
    """What is kept of references, and since when."""
    files = (folder / "cache/references").rglob("*.npy")
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_a_whole_model_learns_what_is_better(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUESWEEP_CACHE", str(workplace / "cache"))
    asked = [*write_preferences(workplace), *SMALL, "adapter=none", "optimizer.lr=0.01"]
    assert train([*asked, "trainer.max_steps=6", "name=p"], [], None, False) == 0
    (run,) = (workplace / "outputs/p").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["test/loss"] < results["baseline/test/loss"] == pytest.approx(math.log(2))
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["train/loss"] == pytest.approx(math.log(2), rel=1e-5)  # the two are the same
    made = kept(workplace)
    capsys.readouterr()
    assert evaluate([str(run)], "test", "best", [], as_json=True) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["test/margin"] == pytest.approx(results["test/margin"], rel=1e-4)
    assert resume(run, ["trainer.max_steps=8"]) == 0
    assert kept(workplace) == made  # nothing is computed again
    assert len(made) == 3


def test_a_run_learns_what_is_better(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*write_preferences(workplace), *SMALL, "optimizer.lr=0.02", "adapter.dropout=0.1"]
    assert train([*asked, "trainer.max_steps=12", "name=p"], [], None, False) == 0
    (run,) = (workplace / "outputs/p").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["test/loss"] < results["baseline/test/loss"] == pytest.approx(math.log(2))
    assert results["test/accuracy"] > 0.9 > results["baseline/test/accuracy"]
    assert results["test/margin_standard_error"] > 0
    capsys.readouterr()
    assert evaluate([str(run)], "test", "best", [], as_json=True) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["test/margin"] == pytest.approx(results["test/margin"], rel=1e-4)
    assert generate(run, "red green", None, "best", Options(4)) == 0
    assert capsys.readouterr().out
