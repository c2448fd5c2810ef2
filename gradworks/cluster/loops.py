"""Which chains of stages are folded into one loop of Kubeflow where they would be too many tasks.

The items of a loop run the same component on other stages. Kubeflow knows one list of inputs for all of them, and one
list of outputs. So chains share a loop where they read the same and are read by the same others, as the cells of one
data set, seed and encoder: then the lineage of each item is exact. Where that makes too many loops, chains share one
where their stages and readers are alike, and the lineage of such a loop is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from gradworks.cluster import chains
from gradworks.cluster.chains import Chain
from gradworks.store.stages import Stage

Key = Callable[[Chain], Hashable]


def loops(found: Sequence[Chain], stages: Mapping[str, Stage], most: int) -> list[list[Chain]]:
    """The chains of each task, upstream first: in loops of equal lineage if these are at most `most`, else of alike.

    Args:
        found: chains; stages: all of theirs, both upstream first.
    """
    at = {stage.name: number for number, chain in enumerate(found) for stage in chain}
    waiting: dict[str, set[str]] = defaultdict(set)
    for stage in stages.values():
        for up in stage.ups:
            waiting[up].add(stage.name)

    def neighbours(chain: Chain) -> Hashable:
        own = {stage.name for stage in chain}
        return tuple(
            frozenset(at[name] for stage in chain for name in names(stage) if name not in own)
            for names in (lambda stage: stage.ups, lambda stage: waiting[stage.name])
        )

    # who waits for one waits for its loop, and does not begin where another in there failed
    def readers(chain: Chain) -> Hashable:
        return frozenset(stages[name].group for stage in chain for name in waiting[stage.name])

    exact = _folded(found, neighbours)
    return exact if len(exact) <= most else _folded(found, readers)


def _folded(found: Sequence[Chain], key: Key) -> list[list[Chain]]:
    """Chains of one depth do not wait for each other; the tasks of a loop share image, resources and artifacts."""
    alike: dict[Hashable, list[Chain]] = {}
    for depth, chain in sorted(zip(chains.depths(list(found)), found, strict=True), key=lambda one: one[0]):
        each = tuple((s.group, s.meta, tuple((out.name, out.kind, out.confusion) for out in s.outs)) for s in chain)
        alike.setdefault((depth, each, key(chain)), []).append(chain)
    return list(alike.values())
