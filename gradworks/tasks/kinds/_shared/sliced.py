"""A task with a head of its own for each of its slices, beside the task's, on one encoder.

The heads are blocks of rows of one linear layer, so one forward pass and one matrix product serve them all, and to
every objective, weighting and update the task is one task with one head. The loss of example i of a batch of n is

    l_0(i) + weight * sum over slices k of [i in k] * n / n_k * l_k(i)

with l_k the task's loss on the outputs of head k and n_k the members in the batch, all its micro-batches and ranks: its
mean over the batch is the task's mean loss plus the weighted sum of each slice's mean over its members, 0 where there
are none. What a method does to examples it does to this loss: a weighting multiplies it, the whole of it.

Each slice's head starts as a copy of the task's (as in the code of Hancock et al. 2019). Their predictions are combined
when the model answers; which slices an example is in is known then, as it is in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import words
from gradworks.base.errors import InputError
from gradworks.tasks.kinds import classification, regression
from gradworks.tasks.kinds._shared.parts import Texts
from gradworks.tasks.kinds._shared.several import without

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks.kinds import Kind

COMBINE = ("mean", "defer", "residual", "task")
_KEY = "slices"  # of encodings: (K,) 0 or 1; of a batch's inputs: see `factors`


def reads_one_vector(kind: Kind) -> bool:
    """Whether a task's head reads one vector of each example."""
    made = type(kind)
    plain = all(getattr(made, part, None) is getattr(Texts, part) for part in ("outputs", "respond", "tuned"))
    return plain and made.loss in (classification.Kind.loss, regression.Kind.loss) and bool(kind.size)


def check(kind: Kind, where: str) -> None:
    """Raises InputError where a task cannot have heads for slices: they read one vector of each example."""
    if not reads_one_vector(kind):
        raise InputError(
            f"{where}: found slices of {kind.name}, a task of kind {kind.spec.kind}\n"
            "expected a task whose head reads one vector of each example: classification, regression"
        )


def check_mixtures(mixtures: Mapping[str, Any], known: Collection[str], kind: Kind, where: str) -> None:
    """Raises InputError where a mixture's slices are not known, or its task cannot have their heads."""
    for name, one in mixtures.items():
        for wanted in one.slices or ():
            check(kind, f"{where}.{name}.slices")
            if wanted not in known:
                raise InputError(words.unknown(f"{where}.{name}.slices", wanted, known))


class Sliced:
    """A kind with slices; what is not here is the kind's own.

    Args:
        kind: of the task; see `check`.
        members: slice -> ids, in the order of the heads.
        combine: how `respond` makes one answer of all heads', see `combined`.
        weight: of each slice's loss; 0 trains the task's head alone.

    Attributes:
        kind: the task's.
        names: of the slices.
        size: outputs of all heads.
    """

    def __init__(
        self, kind: Kind, members: Mapping[str, frozenset[str]], combine: str = "mean", weight: float = 1.0
    ) -> None:
        if combine not in COMBINE:
            raise ValueError(f"combine: found {combine!r}, expected one of: {', '.join(COMBINE)}")
        self.kind, self.names, self.combine, self.weight = kind, tuple(members), combine, weight
        self._members = tuple(members.values())
        self.size = kind.size * (1 + len(self.names))

    def __getattr__(self, name: str) -> Any:
        if name == "kind":  # not made yet: a copy
            raise AttributeError(name)
        found = getattr(self.kind, name)
        return self._smoothed if name == "smoothed" else found

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Any]:
        """The kind's, and which slices each row is in."""
        encodings, labels = self.kind.encode(table, model, max_length, where)
        keys = table["id"].to_pylist()
        return [
            one | {_KEY: tuple(int(key in own) for own in self._members)}
            for key, one in zip(keys, encodings, strict=True)
        ], labels

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The kind's, and how much each example counts for each head: of the whole batch, before it is cut."""
        import torch

        inputs = self.kind.pad(model, [without(one, _KEY) for one in encodings])
        inside = torch.tensor([one[_KEY] for one in encodings], dtype=torch.float32).view(len(encodings), -1)
        return inputs | {_KEY: self.factors(inside)}

    def factors(self, inside: Tensor) -> Tensor:
        """(n, K) 0 or 1 of a whole batch -> (n, 1 + K): 1, and weight * n / n_k for members of slice k."""
        import torch

        of = self.weight * inside * len(inside) / inside.sum(0).clamp_min(1)
        return torch.cat([torch.ones(len(inside), 1), of], 1)

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """One tensor (n, (1 + K) * size): the task's head first. One forward pass."""
        return self.kind.outputs(model, _plain(batch), embedded)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.kind.embed(model, _plain(batch))

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) see the module."""
        return self._summed(outputs, batch, self.kind.loss)

    def _smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        return self._summed(outputs, batch, lambda z, of: self.kind.smoothed(z, of, share))

    def _summed(self, outputs: Outputs, batch: Batch, loss: Any) -> Tensor:
        heads, n = 1 + len(self.names), len(outputs[0])
        labels = batch.labels.repeat_interleave(heads, 0)
        flat = outputs[0].reshape(n * heads, self.kind.size)
        each = loss((flat,), dataclasses.replace(batch, labels=labels)).view(n, heads)
        return (batch.inputs[_KEY].to(each) * each).sum(1)

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) of the task's head: what a regulariser compares is the task's own predictions."""
        return self.kind.divergence(self._first(p), self._first(q))

    def _first(self, outputs: Outputs) -> Outputs:
        return (outputs[0][:, : self.kind.size],)

    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n, ...) of the task's head."""
        return self.kind.answers(self._first(outputs))

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """(n, ...) of all heads together, in one forward pass."""
        return self.together(self.heads(model, batch), self._inside(encodings), self.combine)

    def heads(self, model: nn.Module, batch: Batch) -> np.ndarray:
        """(n, 1 + K, ...) the answers of each head."""
        z = self.outputs(model, batch)[0].float().cpu()
        made = self.kind.answers((z.reshape(-1, self.kind.size),))
        return made.reshape(len(z), 1 + len(self.names), *made.shape[1:])

    def apart(self) -> Apart:
        """The same task, whose answers are those of each head."""
        return Apart(self)

    def _inside(self, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        import numpy as np

        return np.array([one[_KEY] for one in encodings], dtype=bool).reshape(len(encodings), -1)

    def inside(self, ids: Sequence[str]) -> np.ndarray:
        """(n, K) which slices each example is in."""
        import numpy as np

        return np.array([[key in own for own in self._members] for key in ids], dtype=bool).reshape(len(ids), -1)

    def together(self, answers: np.ndarray, inside: np.ndarray, how: str) -> np.ndarray:
        """One answer of all heads'; see `combined`."""
        return combined(answers, inside, how, self.kind.calibrated)

    def scoring(self, metrics: Sequence[str]) -> Sliced:
        return self


class Apart:
    """A task with slices whose answers are (n, 1 + K, ...), those of each head."""

    def __init__(self, sliced: Sliced) -> None:
        self._sliced = sliced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sliced, name)

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        return self._sliced.heads(model, batch)


def combined(answers: np.ndarray, inside: np.ndarray, how: str, probabilities: bool) -> np.ndarray:
    """(n, ...) one answer of all heads'.

    Args:
        answers: (n, 1 + K, ...) of the task's head and those of the slices.
        inside: (n, K) which slices each example is in; the heads of the others are never asked.
        how: `mean`: of the task's head and those of the example's slices. `defer`: the mean of the latter, the task's
            head where there are none (both: Hancock et al. 2019, `ensemble_slices`). `residual`: the task's head plus
            what each slice's differs by, summed; of logits where the answers are probabilities. `task`: its head alone.
        probabilities: answers are (n, 1 + K, C) probabilities, not numbers.
    """
    import numpy as np

    if how == "task":
        return answers[:, 0]
    if how == "residual":
        z = np.log(answers.clip(1e-300)) if probabilities else answers
        moved = z[:, 0] + (_like(inside, answers[:, 1:]) * (z[:, 1:] - z[:, :1])).sum(1)
        if not probabilities:
            return moved
        moved = np.exp(moved - moved.max(-1, keepdims=True))
        return moved / moved.sum(-1, keepdims=True)
    first = ~inside.any(1) if how == "defer" else np.ones(len(inside), dtype=bool)
    weights = np.column_stack([first, inside]).astype(float)
    return (_like(weights / weights.sum(1, keepdims=True), answers) * answers).sum(1)


def _like(weights: np.ndarray, answers: np.ndarray) -> np.ndarray:
    return weights.reshape(*weights.shape, *[1] * (answers.ndim - 2))


def _plain(batch: Batch) -> Batch:
    return dataclasses.replace(batch, inputs=without(batch.inputs, _KEY))
