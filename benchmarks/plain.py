"""The two sides of a comparison: plain training by hand, and a method or a peer. One call is one optimizer step.

`python -m benchmarks.plain` compares plain training itself: see `plain_table.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import nn

from benchmarks import peers
from benchmarks.models import MODELS, Classification, Sizes, batch
from benchmarks.rows import Row
from gradworks import Method
from gradworks.spec import Batch, Drawn, StepReport

POOL = 4  # groups of batches that the rounds take in turn
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Case:
    """A row of the results: what is measured on which model with which clean batch.

    `n`: examples in a batch. `precision`: "float32", or "bf16" for autocast.
    """

    row: Row
    model: str
    fraction: float | None
    device: str = "cpu"
    precision: str = "float32"

    @property
    def n(self) -> int:
        return 16 if self.model == "bert-4x256" and self.fraction is None else 32

    @property
    def sizes(self) -> Sizes:
        return MODELS[self.model]

    def build(self, sizes: Sizes, dropout: float = 0.1, seed: int = 0) -> nn.Module:
        return sizes.build(dropout, self.row.attention, seed).to(self.device)

    def method(self, task: Classification, seed: int = 0) -> Method:
        return Method(**self.row.slots, task=task, seed=seed)

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()


class Data:
    """Groups of batches with the clean batches beside them: the same for both sides, each alone a micro-batch."""

    def __init__(self, case: Case, sizes: Sizes, batches: int, pool: int = POOL, length: int | None = None):
        made = {} if length is None else {"length": length}
        clean = round(case.n * case.fraction) if case.fraction else 0

        def draw(n: int, seed: int) -> list[list[Batch]]:
            return [[batch(sizes, n, seed + i, case.device, **made)] for i in range(batches)]

        self.groups = [(draw(case.n, 100 * k), draw(clean, 100 * k + 50) if clean else []) for k in range(1, pool + 1)]

    def __call__(self, step: int) -> tuple[Sequence[Drawn], Sequence[Drawn]]:
        return self.groups[step % len(self.groups)]


class Plain:
    """Plain training on the train batches of a step, as one writes it by hand."""

    def __init__(self, case: Case, model: nn.Module, task: Classification):
        self._case, self.model, self._task = case, model, task
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step(self, batches: Sequence[Drawn], clean: Sequence[Drawn]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        for drawn in batches:
            for one in drawn:
                with self._case.autocast():
                    loss = self._task.loss(self._task.outputs(self.model, one), one).mean()
                (loss / (len(batches) * len(drawn))).backward()
        self._optimizer.step()


class OfMethod:
    """The same with `Method.backward`."""

    def __init__(self, case: Case, model: nn.Module, task: Classification):
        self._case, self.model, self.method = case, model, case.method(task)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
        self.report: StepReport | None = None

    def step(self, batches: Sequence[Drawn], clean: Sequence[Drawn]) -> None:
        with self._case.autocast():
            self.report = self.method.backward(self.model, batches, clean)
        self._optimizer.step()


class OfPeer:
    """The same with somebody else's gradient."""

    def __init__(self, case: Case, model: nn.Module, task: Classification):
        self._case = case
        self._peer = getattr(peers, case.row.peer)(model, task)
        self.model = self._peer.model
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.score: torch.Tensor | None = None

    def step(self, batches: Sequence[Drawn], clean: Sequence[Drawn]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        with self._case.autocast():
            self.score = self._peer.gradient(batches[0][0], clean[0][0] if clean else None)
        self._optimizer.step()


Side = Plain | OfMethod | OfPeer


def side(case: Case, name: str, sizes: Sizes) -> tuple[Side, Classification]:
    """ "plain" or "method" (a peer where the row names one), each with a model, an optimizer and a task of its own."""
    kind: Callable = Plain if name == "plain" else OfPeer if case.row.peer else OfMethod
    task = Classification()
    return kind(case, case.build(sizes), task), task


def batches_of(case: Case) -> int:
    """How many batches a step of the case consumes.

    Raises:
        ValueError: an entry of the method is not there, or refuses an option.
        ModuleNotFoundError: a peer is not installed.
    """
    if case.row.peer:
        getattr(peers, case.row.peer).check()
        return 1
    return case.method(Classification()).batches


if __name__ == "__main__":
    from benchmarks.plain_table import main

    main()
