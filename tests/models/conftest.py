from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from truesweep.models import Head, Scratch

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def make_tokenizer(words: int) -> PreTrainedTokenizerFast:
    vocabulary = {
        token: index for index, token in enumerate([*SPECIAL, *(f"w{i}" for i in range(words))])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """44 tokens; 0 pads, 1 begins, 2 ends."""
    return make_tokenizer(40)


@pytest.fixture(scope="session")
def larger_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(50)


@pytest.fixture
def build(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Any]:
    """Builds a small model with new weights, the same at each call."""

    def build(architecture: str, head: Head, **changes: Any) -> Any:
        dimensions: dict[str, Any] = {"depth": 2, "width": 32, "heads": 2}
        max_length = changes.pop("max_length", 8)
        torch.manual_seed(changes.pop("seed", 0))
        labels = changes.pop("labels", ["a", "b", "c"])
        scratch = Scratch(architecture=architecture, **(dimensions | changes))
        return scratch.build(head, tokenizer, max_length=max_length, labels=labels)

    return build
