"""A guard against architectures that read what they should predict."""

import torch
from transformers import PreTrainedModel

from truesweep.errors import ConfigError


@torch.no_grad()
def check_causal(model: PreTrainedModel) -> None:
    """Raise a `ConfigError` if the logits of a token depend on the tokens after it.

    Some architectures have a language modelling head and attend both ways, unless told otherwise;
    their perplexity would come out near 1.

    Args:
        model: with weights as they are drawn at first: not all zero.
    """
    training, vocabulary = model.training, model.config.get_text_config().vocab_size
    one_future = torch.tensor([[0, 1, 0, 1]]) % vocabulary
    another = torch.tensor([[0, 1, 1, 0]]) % vocabulary
    model.eval()
    first, second = (model(input_ids=ids).logits[:, :2] for ids in (one_future, another))
    model.train(training)
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-5):
        raise ConfigError(
            f"model.architecture: {model.config.model_type} sees the tokens that it should "
            "predict, so it is no language model. Set another model, such as llama or lfm2."
        )
