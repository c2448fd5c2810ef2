"""Examples of several sequences each, read in one forward pass: choices, windows of a document.

An example stays one row of a batch: its inputs are (n, k, ...), which are read as (n * k, ...) rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The encodings of the sequences of an example as one."""
    return {f"{k} {key}": ids for k, one in enumerate(parts) for key, ids in one.items()}


def windows(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same of windows of a text, and `length`, their tokens in all: examples of as many windows share a batch."""
    return joined(parts) | {"length": sum(len(next(iter(one.values()))) for one in parts)}


def parts_of(encoding: dict[str, Any]) -> list[dict[str, Any]]:
    """What `joined` was made of; further keys are left out."""
    found: dict[int, dict[str, Any]] = {}
    for name, ids in encoding.items():
        number, _, key = name.partition(" ")
        if number.isdigit():
            found.setdefault(int(number), {})[key] = ids
    return list(found.values())


def pad(model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """(n, k, ...) inputs of n examples; one with fewer sequences than k gets more of one token, whose outputs mean
    nothing.
    """
    examples = [parts_of(one) for one in encodings]
    most = max(map(len, examples))
    for parts in examples:
        parts += [{key: ids[:1] for key, ids in parts[0].items()}] * (most - len(parts))
    made = model.collate([part for parts in examples for part in parts])
    return {key: tensor.unflatten(0, (len(examples), most)) for key, tensor in made.items()}


def rows(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """(n, k, ...) -> (n * k, ...)"""
    return {key: tensor.flatten(0, 1) for key, tensor in inputs.items()}


def embed(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(n, k * L, D) input embeddings of the sequences of each example, one after the other."""
    made = model.embed(rows(inputs))
    n = len(next(iter(inputs.values())))
    return made.reshape(n, -1, made.shape[-1])


def embedded_rows(inputs: dict[str, Tensor], embedded: Tensor | None) -> Tensor | None:
    """(n, k * L, D) -> (n * k, L, D), as the model takes them."""
    if embedded is None:
        return None
    n, k = next(iter(inputs.values())).shape[:2]
    return embedded.reshape(n * k, -1, embedded.shape[-1])


def needs_tokens(model: Any, where: str) -> None:
    """Raises InputError where a model has no vector for each token."""
    if not hasattr(model, "tokens"):
        raise InputError(f"{where}: {type(model).__name__} reads no sequence of tokens\n"
                         "expected a model with a vector for each token in its context: gru, transformer")  # fmt: skip


def without(inputs: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """Inputs that the model reads."""
    return {key: tensor for key, tensor in inputs.items() if key not in names}


def length(inputs: dict[str, Tensor]) -> int:
    """L, tokens of a sequence of (n, k, ...) inputs."""
    return max(tensor.shape[-1] for tensor in inputs.values())


def tokens(model: nn.Module, inputs: dict[str, Tensor], embedded: Tensor | None) -> Tensor:
    """(n, k * L, W) what the head reads of each token of the k sequences of each example; one forward pass."""
    n = len(next(iter(inputs.values())))
    found = model.tokens(rows(inputs), embedded_rows(inputs, embedded))
    return found.reshape(n, -1, found.shape[-1])


def ragged(lists: Sequence[Any]) -> np.ndarray:
    """(n,) objects."""
    import numpy as np

    made = np.empty(len(lists), dtype=object)
    made[:] = lists
    return made
