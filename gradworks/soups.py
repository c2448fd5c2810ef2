"""Weight-space soups: one model whose weights are the mean of those of several (Wortsman et al., ICML 2022).

A mean of weights is a model only where the members' weights mean the same: one architecture, one vocabulary, and one
start from which all were trained. The first two are checked. The third is the caller's: members that began with weights
of their own (of an encoder that was not pretrained, each seed's) give a mean that answers at chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gradworks.base import artifacts
from gradworks.base.errors import InputError

CONFIG, TOKENIZER = "gradworks.json", "tokenizer.json"  # of a model folder, see gradworks/models


def check_alike(folders: Sequence[Path]) -> None:
    """Raises InputError that names two models whose architecture or vocabulary differs."""
    first = folders[0]
    for folder in folders[1:]:
        mine, other = (artifacts.read_json(one / CONFIG) for one in (folder, first))
        key = next((key for key in sorted({*mine, *other}) if mine.get(key) != other.get(key)), None)
        if key is not None:
            raise InputError(
                f"{folder}: {key} is {mine.get(key)!r}, and {other.get(key)!r} in {first}\n"
                "expected models of one architecture: a mean of weights is none; `ensemble` takes the mean of answers"
            )
        files = [one / TOKENIZER for one in (folder, first)]
        if len({file.read_bytes() if file.exists() else b"" for file in files}) > 1:
            raise InputError(
                f"{folder}: another vocabulary than {first}\n"
                "expected one, or a row of the embeddings is another word's; `ensemble` takes the mean of answers"
            )


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, added up in double precision; those that are no floating-point numbers must be equal.

    Args:
        states: state dictionaries of the same names and shapes. Their order matters to rounding only.

    Raises:
        InputError: names, shapes, or numbers that cannot be averaged, differ.
    """
    made = {}
    for name, tensor in states[0].items():
        own = [state.get(name) for state in states]
        if any(one is None or one.shape != tensor.shape for one in own) or len({len(s) for s in states}) > 1:
            raise InputError(f"{name}: not in all models, or of another shape\nexpected models of one architecture")
        if tensor.is_floating_point():
            made[name] = torch.stack([one.double() for one in own]).mean(0).to(tensor.dtype)
            continue
        if any(not torch.equal(one, tensor) for one in own):
            raise InputError(
                f"{name}: whole numbers that differ between models\nexpected equal ones: they have no mean"
            )
        made[name] = tensor
    return made


def greedy(ranked: Sequence[int], value: Callable[[list[int]], tuple[float, ...]]) -> list[int]:
    """The members of the greedy soup: each in turn stays where the soup is no worse with it (their algorithm 1).

    Args:
        ranked: members, that with the best score on held-out examples first.
        value: of the soup of some members on the same held-out examples, higher is better. Cost: one for each member.
    """
    kept: list[int] = []
    best: tuple[float, ...] | None = None
    for one in ranked:
        found = value([*kept, one])
        if best is None or found[:1] >= best[:1]:
            kept, best = [*kept, one], found
    return kept
