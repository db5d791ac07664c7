"""New weights that follow from the names of parameters, whatever else a model has.

A model's weights are drawn one after the other from one generator, so that one layer more, or
another size of one layer, gives other weights to all. Drawn by name, each draw begins from a seed
of its own: that of the model, the name of the parameter, and where in it the drawing begins. Models
of one seed then begin with equal weights wherever names and shapes agree, and each weight has the
distribution that its architecture gives it. A table of a larger vocabulary begins with the rows of
the smaller one.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from truesweep.compat import before_each_draw, before_each_module, weights_left_for_later

Seeding = Literal["sequential", "by_name"]


class Initializer:
    """Draws the weights of one new model.

    Args:
        seeding: `sequential`: one after the other from torch's global generator; `by_name`: by the
            names of parameters, and the next number of that generator.
    """

    def __init__(self, seeding: Seeding) -> None:
        self._seed: int | None = None
        if seeding == "by_name":
            self._seed = int(torch.randint(2**63 - 1, (), device="cpu"))

    def build(self, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """A new model.

        Args:
            make: Makes it, with weights as transformers draws them.
        """
        if self._seed is None:
            return make()
        made: list[tuple[Tensor, Callable[[], Any]]] = []

        def keep(filled: Tensor | None, draw: Callable[[], Any]) -> None:
            if filled is not None:
                made.append((filled, draw))

        with weights_left_for_later(), torch.random.fork_rng(devices=[]), before_each_draw(keep):
            model = make()
        with self._drawing(model) as names, torch.no_grad():
            for filled, draw in made:  # layers of OpenAI's GPT draw when they are made only
                if names.has(filled):
                    draw()
            model.init_weights()
        return model

    @contextmanager
    def drawing(self, model: PreTrainedModel) -> Iterator[None]:
        """A context in which weights of a model are drawn, some or all."""
        if self._seed is None:
            yield
            return
        with self._drawing(model):
            yield

    @contextmanager
    def _drawing(self, model: PreTrainedModel) -> Iterator["_Names"]:
        names = _Names(model, self._seed)
        with (
            torch.random.fork_rng(devices=[]),
            before_each_module(names.enter),
            before_each_draw(names.seed),
        ):
            yield names


class _Names:
    """Seeds torch's global generator for each draw, by what is drawn.

    Args:
        model: Whose names they are.
        seed: What the same names have other weights by.
    """

    def __init__(self, model: PreTrainedModel, seed: int | None) -> None:
        self._seed = seed
        self._modules = {module: name for name, module in model.named_modules()}
        tensors = chain(model.named_buffers(), model.named_parameters())
        self._tensors = {_memory(tensor): name for name, tensor in tensors}
        self._module = ""
        self._beside = Counter[str]()

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the model's, or a part of one."""
        return _memory(tensor) in self._tensors

    def enter(self, module: nn.Module) -> None:
        """Note which module is initialized next."""
        self._module = self._modules[module]

    def seed(self, filled: Tensor | None, draw: Callable[[], Any]) -> None:
        """Seed the generator for one draw.

        Args:
            filled: What is drawn into; of a tensor that is not the model's, and is copied into it
                later, it counts which one of its module it is.
            draw: Draws.
        """
        if filled is not None and self.has(filled):
            what = f"{self._tensors[_memory(filled)]} {filled.storage_offset()}"
        else:
            what = f"{self._module}/{self._beside[self._module]}"
            self._beside[self._module] += 1
        digest = hashlib.sha256(f"{self._seed} {what}".encode()).digest()
        torch.default_generator.manual_seed(int.from_bytes(digest[:8]))


def _memory(tensor: Tensor) -> int:
    """Where a tensor lies, the same for all that are a part of it."""
    return tensor.untyped_storage().data_ptr()
