from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from truesweep.data.kinds import LABELLED, TEXT, TRANSLATIONS
from truesweep.data.prepare import Prepared, prepare
from truesweep.data.samples import Kind, Labelled, Pair, Sample, Splits
from truesweep.data.source import Source
from truesweep.data.tokenizers import Char, TokenizerConfig

Prepare = Callable[..., tuple[Prepared, Source]]


@dataclass(kw_only=True)
class Memory(Source):
    """Samples given as they are, the same in each split that is not."""

    samples: list[Any] = field(default_factory=list)
    val: list[Any] | None = None
    test: list[Any] | None = None
    decontaminate: Literal["off", "warn", "drop"] = "off"  # since splits are the same

    def load(self, kind: Kind) -> Splits:
        val, test = (self.samples if part is None else part for part in (self.val, self.test))
        return Splits.of(kind, self.samples, val, test, origin={"from": "memory"})


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Prepare samples in memory, of the kind that they are."""

    def make(
        samples: list[Sample], tokenizer: TokenizerConfig | None = None, **keys: Any
    ) -> tuple[Prepared, Source]:
        kinds = {str: TEXT, Pair: TRANSLATIONS, Labelled: LABELLED}
        labels = keys.pop("labels", None)
        source = Memory(samples=samples, **{"batch_size": 1, **keys})
        cache, kind = tmp_path / "cache", kinds[type(samples[0])]
        return prepare(source, tokenizer or Char(), kind, cache, labels), source

    return make


@pytest.fixture
def pretrained(tmp_path: Path) -> Callable[..., Path]:
    """Save a byte-level tokenizer as models come with, and give its folder."""

    def make(template: str, **special: str) -> Path:
        names = list(dict.fromkeys(special.values()))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate([*names, *alphabet])}
        backend = Tokenizer(models.BPE(vocabulary, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, vocabulary[name]) for name in names]
        )
        folder = tmp_path / "pretrained"
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, clean_up_tokenization_spaces=True, **special
        )
        tokenizer.save_pretrained(folder)
        return folder

    return make
