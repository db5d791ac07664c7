"""Samples that a model is tried with before it is trained, and what it makes of them."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from truesweep.errors import ConfigError
from truesweep.models.dimensions import positions
from truesweep.models.dropout import SampleDropout
from truesweep.models.heads import Head

_SMALL = 50_000_000  # parameters that a model without memory is given for a trial


@contextmanager
def with_weights(model: PreTrainedModel) -> Iterator[PreTrainedModel | None]:
    """The model; if it is on the meta device a copy with weights, and none of a large one.

    Random numbers are the same afterwards.
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        if not any(parameter.is_meta for parameter in model.parameters()):
            yield model
        elif model.num_parameters() > _SMALL:
            yield None
        else:
            yield type(model)(copy.deepcopy(model.config))


def apart(model: PreTrainedModel) -> PreTrainedModel:
    """The model's modules once more, over the same weights, in evaluation mode.

    What a forward pass changes of a model is changed in these: BigBird's attention is another one
    for good after a short sample.
    """
    try:
        copied: PreTrainedModel = copy.deepcopy(
            model, {id(weight): weight for weight in model.parameters()}
        )
    except Exception:  # code of a model's own may keep what cannot be copied
        copied = model
    copied.eval()
    return copied


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute by one thread: several wait longer for each other than so few numbers take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def sample(model: PreTrainedModel, length: int) -> Tensor:
    """Tokens [length] that end as texts do, as many as the model has positions for."""
    config = model.config.get_text_config()
    end = config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    special = {config.pad_token_id, config.bos_token_id, end}
    known = [i for i in range(min(getattr(config, "vocab_size", 64), 64)) if i not in special] or [
        0
    ]
    row = [known[(5 * i + length) % len(known)] for i in range(length)]
    return torch.tensor([*row[:-1], row[-1] if end is None else end])


def longest_sample(model: PreTrainedModel, most: int) -> int:
    """How many tokens a sample may have, `most` at most."""
    return min(most, positions(model.config.get_text_config()) or most)


def logits(model: PreTrainedModel, head: Head, rows: Tensor, mask: Tensor) -> Tensor:
    """Those of rows [B, T], with dropout that is the same in each of them."""
    inputs: dict[str, Any] = {"input_ids": rows, "attention_mask": mask}
    if head in ("causal", "seq2seq"):
        inputs["use_cache"] = False  # as they are trained
    if head == "seq2seq":
        start = getattr(model.config, "decoder_start_token_id", None)
        starts = torch.full_like(rows[:, :1], start or 0)
        inputs["decoder_input_ids"] = torch.cat([starts, rows[:, :-1]], 1)
    with SampleDropout().of(0, 0, [0] * len(rows), rows.device):
        found: Tensor = model(**inputs).logits
    return found


_TOLERANCE = 1e-5  # of the largest logit; rounding gives 4e-7 at most, looking ahead 4e-3 or more


@torch.no_grad()
def check_causal(model: PreTrainedModel) -> None:
    """Raise a `ConfigError` if the logits of a token depend on the tokens after it.

    Some architectures have a language modelling head and attend both ways, such as XLNet without
    its permutations; their perplexity would come out near 1.

    Args:
        model: with weights as they are drawn at first: not all zero.
    """
    last = model.config.get_text_config().vocab_size - 1
    one_future = torch.tensor([[last, last - 1] * 4], device=model.device).clamp(min=0)
    another = one_future.clone()
    another[:, 4:] = max(0, last - 2)
    training = model.training
    model.eval()
    first, second = (
        model(input_ids=ids, use_cache=False).logits[:, :4] for ids in (one_future, another)
    )
    model.train(training)
    if (first - second).abs().max() > _TOLERANCE * first.abs().max():
        raise ConfigError(
            f"model.architecture: {model.config.model_type} sees the tokens that it should "
            "predict, so it is no language model. Set another model, such as llama or lfm2."
        )
