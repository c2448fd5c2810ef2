"""Tasks drawn at random, in proportion to a root of their sizes: small tasks more often than their size asks for.

p(task) is proportional to size ** (1 / temperature): 1 is in proportion to size, large values are nearly uniform. Each
batch is drawn alone, or each group whose batches are of one task; so an epoch holds a task's batches in the mean only
(as sampled in multilingual BERT and T5; Raffel et al. 2020, section 3.5.2). Tasks of a group that are different are
drawn one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from gradworks.base import Section
from gradworks.schedules._shared import weighted
from gradworks.spec import Needs


class Options(Section):
    """temperature: 1 or more."""

    temperature: float = Field(2.0, ge=1)


def tasks(step: int, needs: Needs, sizes: Mapping[str, int], seed: int, *, temperature: float) -> list[str]:
    """The order depends on the seed, and on names and sizes of the tasks, not on their order in the mixture."""
    weights = _weights(sizes, temperature)
    return weighted.tasks(step, needs, len(sizes), lambda _: weights, seed)


def shares(sizes: Mapping[str, float], *, temperature: float) -> dict[str, float]:
    """Of a run's batches, by task."""
    weights = _weights(sizes, temperature)
    return {name: one / sum(weights.values()) for name, one in weights.items()}


def _weights(sizes: Mapping[str, float], temperature: float) -> dict[str, float]:
    return {name: size ** (1 / temperature) for name, size in sizes.items()}
