"""Each task in its turn, in the order of the mixture, whatever its size: small tasks are read again sooner.

Where all batches of a group are of the same task, groups take turns.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradworks.schedules import group
from gradworks.spec import Needs


def tasks(step: int, needs: Needs, sizes: Mapping[str, int], seed: int) -> list[str]:
    """Batch number b of the run is of task b modulo the number of tasks; the seed does not matter."""
    names, k = list(sizes), group(needs, sizes)
    if needs.tasks == "same":
        first = step * needs.groups
        return [names[g % len(names)] for g in range(first, first + needs.groups) for _ in range(k)]
    first = step * needs.groups * k
    return [names[b % len(names)] for b in range(first, first + needs.groups * k)]


def shares(sizes: Mapping[str, float]) -> dict[str, float]:
    """Of a run's batches, by task."""
    return dict.fromkeys(sizes, 1 / len(sizes))
