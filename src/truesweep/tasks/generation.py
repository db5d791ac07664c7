"""Text from a model: sampling for language models, beam search for translation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a text is continued.

    Args:
        max_new_tokens: Tokens added at the most.
        temperature: 0 takes the likeliest token; 1 samples from the model as it is.
        top_k: Sample among so many likeliest tokens; None: among all.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = 50

    def arguments(self) -> dict[str, Any]:
        """The arguments of `GenerationConfig`."""
        if self.temperature == 0:
            return {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        return {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": True,
            "temperature": self.temperature,
            "top_k": self.top_k or 0,
        }


@torch.inference_mode()
def continue_ids(model: PreTrainedModel, ids: Sequence[int], sampling: Sampling) -> list[int]:
    """Continue a prompt; returns the prompt as far as it was read, and the continuation.

    A text never grows past the model's context: the prompt keeps its end, the continuation stops.

    Args:
        model: A causal language model.
        ids: The prompt's token ids, at least one.
        sampling: How the next tokens are chosen.
    """
    context = context_length(model) or len(ids) + sampling.max_new_tokens
    kept = list(ids)[-max(1, context - sampling.max_new_tokens) :]
    arguments = sampling.arguments()
    arguments["max_new_tokens"] = min(sampling.max_new_tokens, context - len(kept))
    generated = generate(model, torch.tensor([kept], device=model.device), **arguments)
    return [int(i) for i in generated[0]]


def generate(model: PreTrainedModel, input_ids: Tensor, **arguments: Any) -> Tensor:
    """`model.generate` under settings of our own only, in evaluation mode.

    What a checkpoint's `generation_config.json` or an architecture brings along does not apply, but
    for its special tokens.
    """
    own = model.generation_config
    special = {
        name: getattr(own, name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    }
    attention_mask = arguments.pop("attention_mask", torch.ones_like(input_ids))
    was_training = model.training
    model.eval()
    try:
        return model.generate(  # type: ignore[no-any-return, operator]
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=GenerationConfig(**special, **arguments),
        )
    finally:
        model.train(was_training)


def context_length(model: PreTrainedModel) -> int | None:
    """The longest sequence the model takes, in tokens; None where its positions know no end."""
    length = getattr(model.config, "max_position_embeddings", None)
    return int(length) if length else None
