"""What training leaves alone: parameters that no gradient reaches, or none that means anything.

Data-parallel training waits for the gradient of all that is trained.
"""

from torch import nn
from transformers import PreTrainedModel

from truesweep.models.heads import Head

_KEY_BIASES = {"bart", "mbart", "marian", "bert"}  # have biases of keys, and no rotary positions


def freeze(model: PreTrainedModel, head: Head) -> None:
    """Leave alone what cannot learn, in a new model or in one that was loaded."""
    if head == "causal":
        _freeze_cross_attention(model)
    _freeze_key_biases(model)
    _freeze_fixed_positions(model)


def _freeze_cross_attention(model: PreTrainedModel) -> None:
    """What the decoders of BART and its kin keep for an encoder that is not there."""
    for name, module in model.named_modules():
        if name.endswith(("encoder_attn", "encoder_attn_layer_norm")):
            module.requires_grad_(False)


def _freeze_key_biases(model: PreTrainedModel) -> None:
    """What changes nothing: a key's bias adds the same to all scores of a query.

    The softmax takes it out again. Its gradient is rounding, which AdamW would scale up to steps of
    the usual size, and other ones for each way of splitting a batch.
    """
    if model.config.model_type in _KEY_BIASES:
        for name, parameter in model.named_parameters():
            if name.endswith((".k_proj.bias", ".self.key.bias")):
                parameter.requires_grad_(False)


def _freeze_fixed_positions(model: PreTrainedModel) -> None:
    """Sines and cosines, which transformers freezes in new models, and not in those it loads."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and "Sinusoidal" in type(module).__name__:
            module.requires_grad_(False)
