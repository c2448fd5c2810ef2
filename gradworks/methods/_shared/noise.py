"""Dropout noise that is drawn once for all passes over a micro-batch under the same masks.

Replaying a mask by its key draws it again, which on a CPU is a seventh of a forward and backward pass, and each pass
keeps noise of its own for its backward pass. So where a pass meets `dropout` with the generator in the state in which
an earlier pass met it, it takes the noise that was drawn there: the same numbers, by construction, even if something
else draws from the generator. Other devices draw faster than they read, and other kinds of dropout are rare: both draw
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass
class Drawn:
    """Noise, and the states of the generator around its drawing."""

    noise: Tensor
    p: float
    before: Tensor
    after: Tensor


class Noise(TorchFunctionMode):
    """Inside, `torch.nn.functional.dropout` on the CPU takes noise that was drawn before.

    Args:
        drawn: what was drawn so far, in order; what is new is put in.
    """

    def __init__(self, drawn: list[Drawn]):
        super().__init__()
        self._drawn, self._at = drawn, 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not 0 < p < 1 or input.device.type != "cpu" or not input.numel():
            return F.dropout(input, p, training, inplace)
        noise = self._noise(input, p)
        return input.mul_(noise) if inplace else input * noise

    def _noise(self, like: Tensor, p: float) -> Tensor:
        """0 with probability p, else 1 / (1 - p), as `torch.nn.functional.dropout` draws it."""
        generator = torch.default_generator
        before = generator.get_state()
        for at, known in enumerate(self._drawn[self._at :], self._at):  # a pass may begin behind its embeddings
            same = known.p == p and known.noise.shape == like.shape and known.noise.dtype == like.dtype
            if same and known.noise.stride() == like.stride() and torch.equal(known.before, before):
                self._at = at + 1
                generator.set_state(known.after)
                return known.noise
        with torch.no_grad():
            noise = torch.empty_like(like).bernoulli_(1 - p).div_(1 - p)
        self._drawn[self._at :] = [Drawn(noise, p, before, generator.get_state())]
        self._at += 1
        return noise
