"""Plain Lightning, as its documentation and that of torchmetrics and transformers show it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.text import BLEUScore, Perplexity
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

MODELS = {
    "lm": AutoModelForCausalLM,
    "translation": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}
Sample = dict[str, Any]
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def load(task: str, folder: Path, samples: Path) -> list[Sample]:
    """The samples of a file, tokenized; `index` is a sample's place in the file."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    if task == "lm":
        lines = samples.with_suffix(".txt").read_text().splitlines()
        rows = [{"input_ids": bos + ids(line) + eos} for line in lines]
        found: list[Sample] = [{**row, "labels": row["input_ids"]} for row in rows]
    elif task == "translation":
        sides = [samples.with_suffix(end).read_text().splitlines() for end in (".de", ".en")]
        found = [
            {"input_ids": ids(source) + eos, "labels": ids(target) + eos, "reference": target}
            for source, target in zip(*sides, strict=True)
        ]
    else:
        lines = samples.with_suffix(".tsv").read_text().splitlines()[1:]
        names = MODELS[task].from_pretrained(folder).config.label2id
        found = [
            {"input_ids": bos + ids(text) + eos, "label": names[label]}
            for text, label in (line.split("\t") for line in lines)
        ]
    return [{**sample, "index": i} for i, sample in enumerate(found)]


class Collate:
    """Pads rows: inputs with the pad token, labels with -100."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pad = tokenizer.pad_token_id

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch of samples."""
        inputs = [sample["input_ids"] for sample in samples]
        batch: dict[str, Any] = {
            "input_ids": padded(inputs, self.pad),
            "attention_mask": padded([[1] * len(row) for row in inputs], 0),
            "index": [sample["index"] for sample in samples],
        }
        if "label" in samples[0]:
            batch["labels"] = torch.tensor([sample["label"] for sample in samples])
        else:
            batch["labels"] = padded([sample["labels"] for sample in samples], -100)
        if "reference" in samples[0]:
            batch["reference"] = [sample["reference"] for sample in samples]
        return batch


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows below each other, as wide as the longest."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


class Stock(pl.LightningModule):
    """A transformer with the loss that it computes itself, and torchmetrics.

    Args:
        task: `lm`, `translation` or `classification`.
        folder: The model in Hugging Face layout.
        lr: Learning rate of SGD.
    """

    def __init__(self, task: str, folder: Path, lr: float = 0.1) -> None:
        super().__init__()
        self.task = task
        self.lr = lr
        self.model = MODELS[task].from_pretrained(folder).train()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.samples = SumMetric()
        if task == "classification":
            self.f1 = MulticlassF1Score(self.model.config.num_labels, average="macro")
        else:
            self.perplexity = Perplexity(ignore_index=-100)
        if task == "translation":
            self.bleu = BLEUScore()

    def forward(self, batch: dict[str, Any]) -> Any:
        """The model's output, with its loss."""
        keys = ("input_ids", "attention_mask", "labels")
        return self.model(**{key: batch[key] for key in keys})

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The mean loss of a batch."""
        loss: Tensor = self(batch).loss
        self.log("train/loss", loss, batch_size=len(batch["index"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the loss over ranks, and the metrics."""
        output, rows = self(batch), len(batch["index"])
        self.log("val/loss", output.loss, sync_dist=True, batch_size=rows)
        self.samples(rows)
        self.log("val/samples", self.samples, on_epoch=True, batch_size=rows)
        if self.task == "classification":
            self.f1(output.logits, batch["labels"])
            self.log("val/f1_macro", self.f1, on_epoch=True, batch_size=rows)
            return
        logits, labels = output.logits, batch["labels"]
        if self.task == "lm":
            logits, labels = logits[:, :-1], labels[:, 1:]
        self.perplexity(logits, labels)
        self.log("val/perplexity", self.perplexity, on_epoch=True, batch_size=rows)
        if self.task == "translation":
            self.bleu(self.translate(batch), [[text] for text in batch["reference"]])
            self.log("val/bleu", self.bleu, on_epoch=True, batch_size=rows)

    def translate(self, batch: dict[str, Any]) -> list[str]:
        """Greedy translations of a batch."""
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=12,
            num_beams=1,
            do_sample=False,
        )
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def configure_optimizers(self) -> Any:
        """Plain gradient descent: weights differ by what gradients differ by."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def loader(
    task: str, folder: Path, samples: Path, batch_size: int, **options: Any
) -> DataLoader[Any]:
    """A loader over the samples of a file."""
    collate = Collate(AutoTokenizer.from_pretrained(folder))
    found: Any = load(task, folder, samples)
    return DataLoader(found, batch_size, collate_fn=collate, **options)


def trainer(devices: int = 1, **options: Any) -> pl.Trainer:
    """A trainer on so many ranks, started by fork."""
    torch.set_num_threads(1)
    strategy = "ddp_fork" if devices > 1 else "auto"
    chosen = {"enable_checkpointing": False, **QUIET, **options}
    return pl.Trainer(devices=devices, strategy=strategy, **chosen)
