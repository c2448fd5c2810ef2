"""Tasks in proportion to their sizes: the batches of one epoch of all parts, shuffled, epoch after epoch.

So every example of every part is read once in an epoch of the mixture, as in MT-DNN (Liu et al. 2019, algorithm 1).
Where all batches of a group are of the same task, groups are shuffled in their place. Where they are of different
tasks, a group's tasks are drawn one by one in proportion to the sizes of those that are left; proportions then hold
only as far as that can be: a task is at most once in a group.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from gradworks.schedules import group
from gradworks.schedules._shared import weighted
from gradworks.spec import Needs


def tasks(step: int, needs: Needs, sizes: Mapping[str, int], seed: int) -> list[str]:
    """The order depends on the seed, and on names and sizes of the tasks, not on their order in the mixture."""
    k = group(needs, sizes)
    numbers = range(step * needs.groups, (step + 1) * needs.groups)  # of the groups
    if needs.tasks == "different" or needs.batches == "one_per_task":
        return [name for g in numbers for name in weighted.different(k, g, sizes, seed)]
    if needs.tasks == "same":
        return [name for g in numbers for name in [_at(g, sizes, seed)] * k]
    return [_at(b, sizes, seed) for b in range(numbers.start * k, numbers.stop * k)]


def _at(number: int, sizes: Mapping[str, int], seed: int) -> str:
    """The task of a batch, or group, of the run."""
    epoch, place = divmod(number, sum(sizes.values()))
    return _epoch(tuple(sizes.items()), seed, epoch)[place]


@functools.lru_cache(maxsize=2)  # one step may reach into the next epoch
def _epoch(sizes: tuple[tuple[str, int], ...], seed: int, epoch: int) -> list[str]:
    places = [(weighted.uniform(seed, "epoch", epoch, name, i), name) for name, size in sizes for i in range(size)]
    return [name for _, name in sorted(places)]


def shares(sizes: Mapping[str, float]) -> dict[str, float]:
    """Of a run's batches, by task."""
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}
