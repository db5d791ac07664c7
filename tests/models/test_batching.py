"""Models whose figures would follow from how samples are put into batches are found."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from truesweep.errors import ConfigError
from truesweep.models import batching
from truesweep.models.batching import check_noise, mixes_samples
from truesweep.models.trials import logits

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("fnet", "classifier"),
        ("fnet", "masked"),
        ("nystromformer", "classifier"),
        ("convbert", "masked"),
        ("xlnet", "classifier"),
        ("prophetnet", "seq2seq"),
        ("fsmt", "seq2seq"),
    ],
)
def test_what_sees_padding_is_found(name: str, head: Any, build: Build) -> None:
    model = build(name, head, max_length=16)
    assert mixes_samples(model, head, training=True)
    assert mixes_samples(model, head, training=False)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("name", "head", "keys"),
    [
        ("gpt2", "causal", {"dropout": 0.2}),
        ("llama", "causal", {"init": "scaled"}),
        ("lfm2", "causal", {}),
        ("mixtral", "causal", {}),
        ("modernbert", "masked", {}),
        ("roberta", "classifier", {"dropout": 0.2}),
        ("bart", "classifier", {}),
        ("t5", "seq2seq", {"dropout": 0.2}),
        ("m2m_100", "seq2seq", {}),
        ("mbart", "seq2seq", {}),
    ],
)
def test_others_are_not(name: str, head: Any, keys: dict[str, Any], build: Build) -> None:
    model = build(name, head, **keys)
    assert not mixes_samples(model, head, training=True)
    check_noise(model, head)


def test_no_weights_are_needed(build: Build) -> None:
    with torch.device("meta"):
        mixing, other = build("fnet", "masked"), build("bert", "masked")
    assert mixes_samples(mixing, "masked", training=True)
    assert not mixes_samples(other, "masked", training=True)


@pytest.mark.parametrize(
    ("name", "head", "mixing"),
    [("fnet", "masked", True), ("prophetnet", "seq2seq", True), ("llama", "causal", False)],
)
def test_a_large_model_is_known_by_a_small_one(
    name: str, head: Any, mixing: bool, build: Build
) -> None:
    with torch.device("meta"):
        large = build(name, head, width=2048, heads=16)
    assert large.num_parameters() > 50_000_000
    assert mixes_samples(large, head, training=True) == mixing
    check_noise(large, head)


def test_the_noise_of_a_large_model_is_found(build: Build) -> None:
    with torch.device("meta"):
        noisy = build("phimoe", "causal", width=1024, heads=8)
        quiet = build("mixtral", "causal", width=1024, heads=8)
    with pytest.raises(ConfigError, match="phimoe draws random numbers"):
        check_noise(noisy, "causal")
    check_noise(quiet, "causal")


@pytest.mark.parametrize("width", [16, 32])
def test_noise_that_came_to_nothing_in_the_trial_is_found(width: int, build: Build) -> None:
    noisy = build("phimoe", "causal", width=width, heads=2)
    with pytest.raises(ConfigError, match="phimoe draws random numbers"):
        check_noise(noisy, "causal")
    noisy.config.router_jitter_noise = 0.0
    check_noise(noisy, "causal")
    check_noise(build("bart", "seq2seq", width=16, heads=2), "seq2seq")  # draws for layers it keeps


def test_a_model_of_another_make_passes(build: Build) -> None:
    class Own(type(build("bert", "masked"))):  # type: ignore[misc]
        def __init__(self, config: Any, needed: int) -> None:
            super().__init__(config)

    own = Own(build("bert", "masked").config, 1)
    assert not mixes_samples(own, "masked", training=True)
    check_noise(own, "masked")


def test_the_state_of_random_numbers_stays(build: Build) -> None:
    model = build("fnet", "masked")
    before = torch.get_rng_state()
    mixes_samples(model, "masked", training=True)
    check_noise(model, "masked")
    assert torch.get_rng_state().equal(before)


def test_the_trial_waits_for_no_threads(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several wait for each other 50 times as long as such numbers take, beside busy processes."""
    used = []

    def counted(*args: Any) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return logits(*args)

    monkeypatch.setattr(batching, "logits", counted)
    model, before = build("bert", "classifier"), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert not mixes_samples(model, "classifier", training=True)
        check_noise(model, "classifier")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}


@pytest.mark.parametrize(
    ("name", "head", "depth"), [("phimoe", "causal", 2), ("switch_transformers", "seq2seq", 4)]
)
def test_noise_in_training_is_refused(name: str, head: Any, depth: int, build: Build) -> None:
    with pytest.raises(ConfigError, match=f"model: {name} draws random numbers in training"):
        check_noise(build(name, head, depth=depth), head)


def test_noise_that_is_turned_off_is_not(build: Build) -> None:
    config = {"router_jitter_noise": 0.0}
    check_noise(build("switch_transformers", "seq2seq", depth=4, config=config), "seq2seq")


@pytest.mark.parametrize("ask", [check_noise, partial(mixes_samples, training=True)])
def test_dropout_that_cannot_follow_the_samples_is_refused(ask: Any, build: Build) -> None:
    """An expert's tokens are of several samples; the trial took the error for a strange model's."""
    model = build("switch_transformers", "seq2seq", depth=4, dropout=0.1)
    with pytest.raises(ConfigError, match=r"this architecture mixes samples.*model\.dropout=0"):
        ask(model, "seq2seq")


def test_what_evaluations_leave_behind_is_found(build: Build) -> None:
    with pytest.raises(ConfigError, match="nllb-moe keeps more of an evaluation"):
        check_noise(build("nllb-moe", "seq2seq", depth=4), "seq2seq")
