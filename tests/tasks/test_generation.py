from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    xLSTMConfig,
    xLSTMForCausalLM,
)

from truesweep.compat import attention
from truesweep.tasks.generation import Sampling, continue_ids, generate

EOS = 2


def model(depth: int = 1) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=16,
            num_hidden_layers=depth,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=EOS,
        )
    )


def test_what_a_checkpoint_says_of_generation_does_not_apply_but_for_its_tokens() -> None:
    greedy = Sampling(max_new_tokens=12, temperature=0)
    expected = continue_ids(model(), [3, 4], greedy)
    loaded = model()
    own = loaded.generation_config = GenerationConfig(
        repetition_penalty=9.0, num_beams=-3, top_p=0.1, pad_token_id=0, eos_token_id=EOS
    )
    assert continue_ids(loaded, [3, 4], greedy) == expected
    assert loaded.generation_config is own


def test_padding_changes_no_answer_in_fp64() -> None:
    eager = model(depth=2).double()
    eager.set_attn_implementation("eager")
    alone = generate(eager, torch.tensor([[3, 4]]), max_new_tokens=5, do_sample=False)
    beside = torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    padded = generate(eager, beside, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert padded[0, 4:].tolist()[: alone.shape[1] - 2] == alone[0, 2:].tolist()
    assert attention(eager.config) == "eager"


def test_a_model_without_a_cache_that_works_generates_without_one() -> None:
    torch.manual_seed(1)
    small: Any = {"hidden_size": 32, "num_heads": 2, "num_hidden_layers": 1, "vocab_size": 16}
    ids: Any = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
    sizes: Any = {"qk_dim_factor": 2.0, "v_dim_factor": 2.0}
    xlstm = xLSTMForCausalLM(xLSTMConfig(**small, **ids, **sizes, embedding_dim=32, num_blocks=1))
    continued = continue_ids(xlstm, [3, 4], Sampling(max_new_tokens=3, temperature=0))
    with torch.no_grad():
        expected = xlstm.eval()(torch.tensor([[3, 4]]), use_cache=False).logits[0, -1].argmax()
    assert continued[2] == expected != EOS
