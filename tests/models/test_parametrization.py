"""muP and CompleteP: against their tables, and against multipliers in the forward pass."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import AutoModelForCausalLM

from truesweep import optim
from truesweep.errors import ConfigError
from truesweep.models import Head
from truesweep.models.init import residual_writers
from truesweep.models.parametrization import Scale

pytestmark = pytest.mark.numbers

Build = Callable[..., Any]
ARCHITECTURES: list[tuple[str, Head]] = [
    *((name, "causal") for name in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "lfm2")),
    *((name, "seq2seq") for name in ("mbart", "bart", "marian")),
    ("bert", "masked"),
]
MUP: dict[str, Any] = {"parametrization": "mup", "base_width": 32}
COMPLETEP: dict[str, Any] = {"parametrization": "completep", "base_width": 32, "base_depth": 2}
IDS = torch.arange(4, 36).view(4, 8)


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    seq2seq = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    found: Tensor = model(input_ids=ids, **seq2seq).logits
    return found


def step(model: Any, optimizer: torch.optim.Optimizer) -> float:
    """A step on the same few tokens; the loss before it."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(logits(model).flatten(0, 1), IDS.flip(1).flatten())
    loss.backward()
    optimizer.step()
    return loss.item()


def groups_by_name(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


def adamw(model: Any, **settings: Any) -> Any:
    optimizer = optim.adamw(optim.parameter_groups(model, 0.1), **settings)
    optim.rescale(optimizer)
    return optimizer


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_parametrization_multiplies_the_ratios_of_roles(name: str, build: Build) -> None:
    model = build("llama", "causal", width=128, tie_embeddings=False, **MUP)

    def head(ratio: float) -> dict[str, Any]:
        groups = optim.parameter_groups(model, 0.1)
        optimizer = getattr(optim, name)(groups, lr=1.0, head_lr_ratio=ratio)
        optim.rescale(optimizer)
        return groups_by_name(model, optimizer)["lm_head.weight"]

    one, ten = head(1.0), head(10.0)
    assert one["lr"] == one[optim.OVER_BASE] == 1 / 4
    assert ten["lr"] == ten[optim.OVER_BASE] == 10 / 4
    assert ten["weight_decay"] == one["weight_decay"]


def test_each_role_learns_as_the_table_says(build: Build) -> None:
    # Four times as wide, three times as deep; the MLP has 96 features and 352, 3.667 times as many.
    model = build("llama", "causal", depth=6, width=128, tie_embeddings=False, **COMPLETEP)
    groups = groups_by_name(model, adamw(model, lr=1.0, weight_decay=0.1, eps=1.0))
    layer, ff = "model.layers.3", 352 / 96
    # name: learning rate, weight decay, epsilon
    table = {
        "model.embed_tokens.weight": (1, 0, 1 / 4),
        f"{layer}.input_layernorm.weight": (1, 0, 1 / 12),
        # Heads have four times the features: 1 / 2 of attention's 1 / 4 is not in 1 / sqrt(d).
        f"{layer}.self_attn.q_proj.weight": (1 / 8, 0.8, 1 / 6),
        f"{layer}.self_attn.k_proj.weight": (1 / 4, 0.4, 1 / 12),
        f"{layer}.self_attn.o_proj.weight": (1 / 12, 1.2, 1 / 4),
        f"{layer}.mlp.up_proj.weight": (1 / 4, 0.4, 1 / ff / 3),
        f"{layer}.mlp.down_proj.weight": (1 / ff / 3, 0.3 * ff, 1 / 4),
        "model.norm.weight": (1, 0, 1 / 4),
        "lm_head.weight": (1 / 4, 0.4, 1),
    }
    for name, expected in table.items():
        found = tuple(groups[name][key] for key in ("lr", "weight_decay", "eps"))
        assert found == pytest.approx(expected), name


def test_muons_steps_follow_the_spectral_condition(build: Build) -> None:
    model = build("llama", "causal", depth=6, width=128, tie_embeddings=False, **COMPLETEP)
    layer, ff = "model.layers.3", 352 / 96
    for rule in ("original", "match_rms_adamw"):
        optimizer = optim.muon(
            optim.parameter_groups(model, 0.1), lr=1.0, weight_decay=0.1, adjust_lr_fn=rule
        )
        small = build("llama", "causal", depth=2, width=32, tie_embeddings=False)
        base = optim.muon(
            optim.parameter_groups(small, 0.1), lr=1.0, weight_decay=0.1, adjust_lr_fn=rule
        )
        optim.rescale(optimizer)
        found, of_base = groups_by_name(model, optimizer), groups_by_name(small, base)

        def norm(groups: dict[str, dict[str, Any]], name: str, shape: tuple[int, int]) -> float:
            """The spectral norm of a step: the rate that Muon takes for a shape."""
            rows, columns = shape
            own = math.sqrt(max(1, rows / columns))
            if groups[name]["adjust_lr_fn"] == "match_rms_adamw":
                own = 0.2 * math.sqrt(max(shape))
            return float(groups[name]["lr"]) * own

        for name, shape, base_shape, expected in [
            ("self_attn.k_proj", (128, 128), (32, 32), 1),
            ("self_attn.q_proj", (128, 128), (32, 32), 1 / 2),
            ("self_attn.o_proj", (128, 128), (32, 32), 1 / 3),
            ("mlp.up_proj", (352, 128), (96, 32), math.sqrt(ff / 4)),
            ("mlp.down_proj", (128, 352), (32, 96), math.sqrt(4 / ff) / 3),
        ]:
            one = norm(found, f"{layer}.{name}.weight", shape)
            other = norm(of_base, f"model.layers.1.{name}.weight", base_shape)
            assert one / other == pytest.approx(expected), (rule, name)
            group = found[f"{layer}.{name}.weight"]
            assert group["lr"] * group["weight_decay"] == pytest.approx(0.1)  # as in the base
        assert found["lm_head.weight"]["lr"] == pytest.approx(0.5 / 4)


def test_starts_are_those_of_the_table(build: Build) -> None:
    model = build("llama", "causal", depth=6, width=128, tie_embeddings=False, **COMPLETEP)
    plain = build("llama", "causal", depth=6, width=128, tie_embeddings=False)
    layer, ff = "model.layers.3", 352 / 96
    for name, factor in {
        "model.embed_tokens.weight": 1,
        f"{layer}.self_attn.q_proj.weight": 1 / 4,
        f"{layer}.self_attn.v_proj.weight": 1 / 2,
        f"{layer}.self_attn.o_proj.weight": 1 / 6,
        f"{layer}.mlp.down_proj.weight": ff**-0.5 / 3,
        "lm_head.weight": 1 / 4,
        "model.norm.weight": 1,
    }.items():
        one, other = model.get_parameter(name), plain.get_parameter(name)
        torch.testing.assert_close(one, other * factor)
    # `init=scaled` follows the fan-in by itself; gpt2 follows the depth.
    scaled, given = (build("lfm2", "causal", init="scaled", width=128, **k) for k in (MUP, {}))
    assert all(
        one.equal(other)
        for (name, one), other in zip(scaled.named_parameters(), given.parameters(), strict=True)
        if "norm" not in name
    )
    deep = build("gpt2", "causal", depth=8, **COMPLETEP)
    base = build("gpt2", "causal", depth=2)
    name = "transformer.h.1.mlp.c_proj.weight"
    ratio = deep.get_parameter(name).std() / base.get_parameter(name).std()
    assert ratio.item() == pytest.approx(1 / 4, rel=0.1)


@pytest.mark.parametrize(("name", "head"), ARCHITECTURES)
@pytest.mark.parametrize("init", ["default", "scaled"])
def test_at_the_base_size_it_is_the_standard_one(
    name: str, head: Head, init: str, build: Build
) -> None:
    how = MUP if name in ("bert", "bart", "marian") else COMPLETEP
    models = [build(name, head, init=init, **k) for k in ({}, how)]
    optimizers = [adamw(model, lr=1e-2) for model in models]
    losses = [[step(m, o) for _ in range(3)] for m, o in zip(models, optimizers, strict=True)]
    assert losses[0] == losses[1]
    assert all(a.equal(b) for a, b in zip(*(m.parameters() for m in models), strict=True))
    assert len(optimizers[0].param_groups) == len(optimizers[1].param_groups)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_at_the_base_depth_both_are_the_same(optimizer: str, build: Build) -> None:
    losses = []
    for how in (MUP, COMPLETEP):
        model = build("llama", "causal", width=64, tie_embeddings=False, **how)
        own = getattr(optim, optimizer)(optim.parameter_groups(model, 0.1), lr=0.01)
        optim.rescale(own)
        losses.append([step(model, own) for _ in range(3)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("name", "head"), ARCHITECTURES)
def test_it_learns_as_with_multipliers_in_the_forward_pass(
    name: str, head: Head, build: Build
) -> None:
    """The papers' own form, with hooks: what is folded makes no difference."""
    how = MUP if name in ("bert", "bart", "marian") else COMPLETEP
    depth, heads = 6, 8 if name == "gpt2" else 2
    sizes = {"depth": depth, "width": 128, "heads": heads, "base_heads": 2, **how}
    folded, plain = (build(name, head, **sizes).double().eval() for _ in range(2))
    unfold(plain, depth_ratio=depth / 2 if how is COMPLETEP else 1.0)
    torch.testing.assert_close(logits(folded), logits(plain), rtol=1e-9, atol=1e-12)
    # A large epsilon, so that it counts.
    optimizers = [adamw(model, lr=1e-2, eps=1e-3) for model in (folded, plain)]
    losses = [
        [step(m, o) for _ in range(4)] for m, o in zip((folded, plain), optimizers, strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0][0] - losses[0][-1] > 0.05
    torch.testing.assert_close(logits(folded), logits(plain), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["lfm2", "gpt2"])
def test_what_is_saved_goes_on_and_is_a_plain_model(
    name: str, build: Build, tmp_path: Path
) -> None:
    sizes = {"depth": 3, "width": 64, "heads": 4, "base_heads": 2, **COMPLETEP}

    def begun() -> tuple[Any, Any]:
        model = build(name, "causal", **sizes).eval()
        optimizer = optim.muon(optim.parameter_groups(model, 0.1), lr=1e-2)
        optim.rescale(optimizer)
        return model, optimizer

    model, optimizer = begun()
    for _ in range(2):
        step(model, optimizer)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "x.ckpt")
    again, other = begun()
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)
    again.load_state_dict(loaded["model"])
    other.load_state_dict(loaded["optimizer"])
    assert [step(model, optimizer) for _ in range(2)] == [step(again, other) for _ in range(2)]
    model.save_pretrained(tmp_path / "exported")
    plain = AutoModelForCausalLM.from_pretrained(
        tmp_path / "exported", attn_implementation=model.config._attn_implementation
    )
    assert logits(plain.eval()).equal(logits(model))


def unfold(model: Any, depth_ratio: float) -> None:
    """Take what is folded out of the weights and into the forward pass."""
    model.scales = {
        name: scale if scale.fold == 1 else scale.folded(1 / scale.fold)
        for name, scale in folds_out(model).items()
    }
    for module in residual_writers(model):
        module.register_forward_hook(lambda _m, _i, out: out / depth_ratio)
    for module in model.modules():
        if hasattr(module, "scaling"):
            features = model.config.hidden_size // model.config.num_attention_heads
            module.scaling = 1 / features * 4  # 1 / sqrt(16) of the base, whose heads have 16
    if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        model.get_output_embeddings().register_forward_pre_hook(lambda _m, args: (args[0] / 4,))


@torch.no_grad()
def folds_out(model: Any) -> dict[str, Scale]:
    scales: dict[str, Scale] = model.scales
    for name, parameter in model.named_parameters():
        parameter.div_(scales[name].fold)
    return scales


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("how", ["standard", "mup"])
def test_activations_do_not_follow_the_width(how: str, optimizer: str, build: Build) -> None:
    """The coordinate check: what a few steps do to the features of each layer, by the width."""
    widths, changes = (64, 256), []
    for width in widths:
        model = build(
            *("llama", "causal"), width=width, heads=4, tie_embeddings=False,
            init="scaled", parametrization=how, base_width=64,
        )  # fmt: skip
        made = getattr(optim, optimizer)(optim.parameter_groups(model, 0.0), lr=0.01)
        optim.rescale(made)
        before = features(model)
        for _ in range(4):
            step(model, made)
        pairs = zip(before, features(model), strict=True)
        changes.append([(b - a).abs().mean().item() for a, b in pairs])
    slopes = [math.log(b / a, widths[1] / widths[0]) for a, b in zip(*changes, strict=True)]
    if how == "mup":
        assert max(map(abs, slopes)) < 0.3
    else:
        assert slopes[-1] > 0.7  # logits
        assert (slopes[1] > 0.7) == (optimizer == "adamw")  # Muon's steps have a norm by themselves


@torch.no_grad()
def features(model: Any) -> list[Tensor]:
    """Of each layer, and the logits."""
    found = model(input_ids=IDS, output_hidden_states=True)
    return [*found.hidden_states, found.logits]


def test_what_is_not_known_to_be_right_is_refused(build: Build) -> None:
    for name, head, settings, message in [
        ("t5", "seq2seq", MUP, "is not known to be right for t5.*llama"),
        ("modernbert", "masked", MUP, "is not known to be right for modernbert"),
        ("bert", "masked", COMPLETEP, "bert has its norms after the residual sum"),
        ("gpt2", "causal", MUP, "a head has 32 features, and 16 in the base model"),
        ("llama", "causal", {"parametrization": "mup"}, "needs model.base_width"),
        ("llama", "causal", {**MUP, "parametrization": "completep"}, "needs model.base_depth"),
        ("llama", "causal", {**MUP, "base_width": 33}, "base_width=33 is not divided by the 2"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build(name, head, **{"width": 64, **settings})
    build("gpt2", "causal", width=64, heads=4, base_heads=2, **MUP)
    model = build("llama", "causal", width=64, **MUP)
    optimizer = optim.sgd(optim.parameter_groups(model, 0.0))
    with pytest.raises(ConfigError, match="rules for AdamW and Muon, none for SGD"):
        optim.rescale(optimizer)
    assert isinstance(adamw(model), AdamW)
