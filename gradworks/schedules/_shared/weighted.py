"""Draws of tasks by weights, keyed: of one task, or of several different ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping

from gradworks.spec import Needs


def uniform(*key: int | str) -> float:
    """A number in [0, 1): the first 53 bits of the blake2b digest of the parts joined by '/'."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def different(k: int, number: int, weights: Mapping[str, float], seed: int) -> list[str]:
    """The k smallest of exponential times with the weights as rates: draws without replacement (Efraimidis, 2006)."""
    times = {name: -math.log1p(-uniform(seed, "group", number, name)) / rate for name, rate in weights.items()}
    return sorted(times, key=lambda name: (times[name], name))[:k]


def tasks(step: int, needs: Needs, count: int, weights: Callable[[int], Mapping[str, float]], seed: int) -> list[str]:
    """Independent draws by weight: of each batch, of each group whose batches are of one task, or of different ones.

    Args:
        step, needs, seed: as of a schedule. count: of the tasks.
        weights: of the tasks at a batch of the run, counted from 0; their order does not matter.
    """
    k = needs.batches if needs.batches != "one_per_task" else count
    numbers = range(step * needs.groups, (step + 1) * needs.groups)  # of the groups
    if needs.tasks == "different" or needs.batches == "one_per_task":
        return [name for g in numbers for name in different(k, g, weights(g * k), seed)]
    if needs.tasks == "same":
        return [name for g in numbers for name in different(1, g, weights(g * k), seed) * k]
    batches = range(numbers.start * k, numbers.stop * k)
    return [name for b in batches for name in different(1, b, weights(b), seed)]
