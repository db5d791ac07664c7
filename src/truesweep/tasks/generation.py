"""Text from a model: sampling for language models, beam search for translation, answers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from truesweep.compat import attention
from truesweep.models.dimensions import positions
from truesweep.tasks.devices import is_sharded


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
    """Continue a prompt; returns the prompt and the continuation.

    Where a text outgrows the model's context, the model reads on from the last half of a context.

    Args:
        model: A causal language model.
        ids: The prompt's token ids, at least one.
        sampling: How the next tokens are chosen.
    """
    text = list(ids)
    end = len(text) + sampling.max_new_tokens
    context = context_length(model) or end
    while len(text) < end:
        read = text if len(text) < context else text[-max(1, context // 2) :]
        arguments = sampling.arguments()
        arguments["max_new_tokens"] = room = min(end - len(text), context - len(read))
        row = generate(model, torch.tensor([read], device=model.device), **arguments)[0]
        new = [int(i) for i in row[len(read) :]]
        text += new
        if len(new) < room:  # the model has ended the text
            break
    return text


class Leave(StoppingCriteria):
    """Ends all texts of a batch as they are.

    Args:
        asked: Whether to, looked at before every token.
    """

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked = asked

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """True for each of the texts, or for none."""
        ended = bool(self.asked())
        return torch.full(input_ids.shape[:1], ended, dtype=torch.bool, device=input_ids.device)


def generate(
    model: PreTrainedModel,
    input_ids: Tensor,
    leave: Callable[[], bool] = bool,
    **arguments: Any,
) -> Tensor:
    """`model.generate` under settings of our own only, in evaluation mode.

    What a checkpoint's `generation_config.json` or an architecture brings along does not apply, but
    for its special tokens.

    Args:
        model: The model.
        input_ids: What it reads, [batch, length].
        leave: Whether to end at once, with texts that are good for nothing.
        arguments: Of `GenerationConfig`, and `attention_mask`.
    """
    own = model.generation_config
    special = {
        name: getattr(own, name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    }
    attention_mask = arguments.pop("attention_mask", torch.ones_like(input_ids))
    was_training = model.training
    model.eval()

    def texts(**more: Any) -> Tensor:
        settings = GenerationConfig(**{**special, **arguments, **more})
        model.generation_config = settings  # from there comes what a call leaves open
        # Each new length would be compiled anew.
        with torch.compiler.set_stance("force_eager"):
            return model.generate(  # type: ignore[no-any-return, operator]
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList([Leave(leave)]),
                synced_gpus=is_sharded(model),  # ranks go on until the last of them is done
            )

    before = attention(model.config)
    if model.dtype == torch.float64 and before == "eager":
        # It takes a softmax of fp64's least number in fp32: NaN where all is padding, and from
        # there for all that follows.
        with suppress(ValueError):  # the architecture has no other
            model.set_attn_implementation("sdpa")
    try:
        return texts()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # transformers has no cache for the layers of some, such as xLSTM and AXK2.
        return texts(use_cache=False)
    finally:
        if before is not None and attention(model.config) != before:
            model.set_attn_implementation(before)
        model.generation_config = own
        model.train(was_training)


def context_length(model: PreTrainedModel) -> int | None:
    """The longest sequence the model takes, in tokens; None where its positions know no end."""
    return positions(model.config)
