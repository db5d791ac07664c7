"""Whether what a model makes of a sample depends on the samples beside it, or on chance."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from truesweep.errors import ConfigError, in_short
from truesweep.models.documents import take_one_by_one
from truesweep.models.dropout import restrict_dropout
from truesweep.models.heads import Head
from truesweep.models.scratch import miniature
from truesweep.models.trials import logits, longest_sample, one_thread, sample

_SMALL = 20_000_000  # parameters of a model of which another one is drawn for the trial
_TOLERANCE = 1e-5  # of the largest logit; in 330 of transformers' it is 2e-6 at most, or over 7e-5
_SHORT, _LONG = 4, 9  # tokens of the samples that are tried
_TOKENS = 72  # on which noise is looked for
_COPIES = 80  # more tokens than an expert takes of a batch (64 in NLLB's, if it is trained)


@torch.no_grad()
def mixes_samples(model: PreTrainedModel, head: Head, training: bool) -> bool:
    """Whether the logits of a sample change with padding, or with the samples of its batch.

    FNet's and Nyströmformer's attention, ConvBERT's convolutions and XLNet's classifier see the
    padding; experts that take so many tokens of a batch see the other samples.

    Args:
        model: On the CPU. On the meta device, one of which there can be no small one passes.
        head: What it is for.
        training: Whether it is to be trained, too.
    """
    with _tried(model, head) as tried:
        if tried is None:
            return False
        try:
            # Training first: in evaluation, NLLB's experts come to take more tokens for good.
            return (training and _mixes(tried.train(), head)) or _mixes(tried.eval(), head)
        except ConfigError:
            raise  # dropout that cannot follow the samples, as it is to in training
        except (IndexError, RuntimeError, TypeError, ValueError):
            return False  # it cannot read the samples of the trial, which are none of the data's


@torch.no_grad()
def sees_padding_in_front(model: PreTrainedModel, generate: Callable[..., Any]) -> bool:
    """Whether what a causal model generates changes with padding in front of what it reads.

    The states of recurrent models run over it, such as RWKV's and xLSTM's.

    Args:
        model: As `mixes_samples` takes it.
        generate: Has a model generate, as `tasks.generation.generate` does.
    """
    with _tried(model, "causal") as tried:
        if tried is None:
            return False
        short, long = _rows(tried)
        padding = torch.full((len(long) - len(short),), tried.config.pad_token_id or 0)
        beside = torch.stack([torch.cat([padding, short]), long])
        mask = torch.ones_like(beside)
        mask[0, : len(padding)] = 0
        asked = {"max_new_tokens": 1, "do_sample": False}
        asked |= {"output_logits": True, "return_dict_in_generate": True}
        try:
            alone = generate(tried, short[None], **asked).logits[0]
            first = generate(tried, beside, attention_mask=mask, **asked).logits[0][:1]
        except (IndexError, RuntimeError, TypeError, ValueError):
            return False
        return _differ(alone, first)


@torch.no_grad()
def check_noise(model: PreTrainedModel, head: Head) -> None:
    """Refuse to train a model that draws random numbers of its own, or remembers evaluations.

    Random numbers besides dropout follow from how a batch is split, as the noise of PhiMoE's
    experts does. NLLB's experts take as many tokens in training as in the last evaluation, which
    nothing saves.

    Args:
        model: As `mixes_samples` takes it.
        head: What it is for.

    Raises:
        ConfigError: It does.
    """
    with _tried(model, head) as tried:
        if tried is None:
            return
        rows = _rows(tried)[1].repeat(_TOKENS // _LONG, 1)
        found, drawn = [], False
        try:
            for seed in (0, 1, 0):
                torch.default_generator.manual_seed(seed)
                before = torch.default_generator.get_state()
                found.append(logits(tried.train(), head, rows, torch.ones_like(rows)))
                drawn |= not torch.equal(before, torch.default_generator.get_state())
                logits(tried.eval(), head, rows[:1], torch.ones_like(rows[:1]))
        except ConfigError:
            raise
        except (IndexError, RuntimeError, TypeError, ValueError):
            return
        if _differ(found[0], found[2]):
            raise ConfigError(
                f"model: {model.config.model_type} keeps more of an evaluation than its weights "
                "hold, and what it learns would depend on when it was validated and resumed. Set "
                "another model"
            )
        # What is drawn may come to nothing, in the trial, or as Bart's choice of layers does.
        if _differ(found[0], found[1]) or (drawn and _names_noise(model)):
            raise ConfigError(
                f"model: {model.config.model_type} draws random numbers in training, such as to "
                "route tokens to experts, and what it learns would depend on how a batch is "
                "split. Set another model, or model.config.router_jitter_noise=0 if it has that"
            )


@torch.no_grad()
def keep_documents_apart(model: PreTrainedModel, max_length: int) -> None:
    """Have a language model keep documents side by side in a row apart, or refuse it.

    Positions that begin anew tell attention where a document begins. Convolutions and the states of
    state-space layers run on, unless each takes the documents one by one; some models take no
    positions.

    Args:
        model: As `mixes_samples` takes it.
        max_length: Tokens of a row at most.

    Raises:
        ConfigError: It lets documents see each other, or cannot read such a row.
    """
    with _tried(model, "causal") as tried:
        if tried is not None and tried is not model:
            _begin_early(tried, max_length)
        reason = "" if tried is None else _mixes_documents(tried)
        if tried is not None and reason and take_one_by_one(tried):
            reason = _mixes_documents(tried)
            if tried is not model:
                take_one_by_one(model)
    if reason:
        raise ConfigError(
            f"data.packing=documents: {model.config.model_type} {reason}. Set data.packing=false "
            "for each on its own, or a model with attention alone, such as llama or qwen3"
        )


def _begin_early(model: PreTrainedModel, max_length: int) -> None:
    """Have a model do in the short rows of a trial what it does in longer ones, if it is given any.

    Beyond so many tokens, Doge's attention drops those that seem to matter least.
    """
    for module in model.modules():
        if vars(module).get("keep_window_size", max_length) < max_length:
            vars(module)["keep_window_size"] = _SHORT


def _mixes_documents(model: PreTrainedModel) -> str:
    """Why a model cannot be given documents side by side; empty: it can."""
    short, long = _rows(model)
    read, windows = partial(model.eval(), use_cache=False), ((short, long), (long, short))
    ids = torch.stack([torch.cat(window) for window in windows])
    beside = torch.stack([torch.cat([torch.arange(len(r)) for r in window]) for window in windows])
    try:
        packed = read(input_ids=ids, position_ids=beside).logits
        alone = torch.cat([read(input_ids=row[None]).logits for row in (short, long)], dim=1)
        alone = torch.cat([alone, alone.roll(-len(short), 1)])
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        return f"cannot read documents side by side ({in_short(error)})"
    return "lets tokens see the documents beside their own" if _differ(alone, packed) else ""


def _names_noise(model: PreTrainedModel) -> bool:
    """Whether a setting of a model asks for noise, such as `router_jitter_noise`."""
    settings = model.config.get_text_config().to_dict()
    return any("noise" in name and bool(value) for name, value in settings.items())


@contextmanager
def _tried(model: PreTrainedModel, head: Head) -> Iterator[PreTrainedModel | None]:
    """A small model of its kind whose weights are not zero, or the model itself; None: neither.

    Modes and random numbers are the same afterwards.
    """
    meta = any(parameter.is_meta for parameter in model.parameters())
    modes = [(module, module.training) for module in model.modules()]
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), one_thread():
        torch.default_generator.manual_seed(0)
        try:
            if model.num_parameters() <= _SMALL:
                fresh = type(model)(copy.deepcopy(model.config)).float()
            else:
                fresh = miniature(model.config, head)
            restrict_dropout(fresh)
        except Exception:  # transformers, and a user's own model, raise what they like
            fresh = None if meta else model
        yield fresh
    for module, mode in modes:
        module.training = mode


def _mixes(model: PreTrainedModel, head: Head) -> bool:
    short, long = _rows(model)
    pad = model.config.get_text_config().pad_token_id or 0
    padded = torch.cat([short, torch.full((len(long) - len(short),), pad)])
    beside = torch.stack([padded, long])
    mask = (torch.arange(len(long)) < torch.tensor([[len(short)], [len(long)]])).long()
    alone = logits(model, head, short[None], torch.ones_like(short[None]))
    first = logits(model, head, beside, mask)[:1]
    if head != "classifier":
        first = first[:, : len(short)]
    full = getattr(model.config, "expert_capacity", None)
    copies = short.repeat(_COPIES if full else 2, 1)
    same = logits(model, head, copies, torch.ones_like(copies))
    return _differ(alone, first) or _differ(alone.expand_as(same), same)


def _rows(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Two samples, one shorter than the other."""
    longest = longest_sample(model, _LONG)
    return sample(model, min(_SHORT, longest - 1)), sample(model, longest)


def _differ(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() > _TOLERANCE * first.abs().max())
