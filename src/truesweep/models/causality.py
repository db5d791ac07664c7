"""A guard against architectures that read what they should predict."""

import torch
from transformers import PreTrainedModel

from truesweep.errors import ConfigError

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
