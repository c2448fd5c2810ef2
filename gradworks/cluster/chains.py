"""Which stages share a pod.

A pod costs its start (15 s on a small cluster, minutes where a node has to come), so a stage goes on in the pod of the
stage before it

* where nothing else waits for that one (`fetch` and the only `corrupt` that reads it), or
* where it is the only one with that one's key (`train@KEY` and `evaluate@KEY`; the report waits for both),

if all else that it reads was made before the pod began, and both ask for the same (image, resources, retries, a timeout
or none) and neither for a pod of its own or for several nodes. Each is a stage of its own in there: see pod/chain.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from gradworks.store.meta import Meta
from gradworks.store.stages import Stage

Chain = tuple[Stage, ...]


def chains(stages: Mapping[str, Stage]) -> list[Chain]:
    """Every stage in exactly one chain, upstream first; most chains are of one stage. `stages`: upstream first."""
    above: dict[str, set[str]] = {}
    waiting: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages.values():
        above[stage.name] = set(stage.ups).union(*(above[up] for up in stage.ups))
        for up in stage.ups:
            waiting[up].append(stage)
    found: list[Chain] = []
    taken: set[str] = set()
    for stage in stages.values():
        if stage.name in taken:
            continue
        chain = [stage]
        while (more := _next(chain, waiting[chain[-1].name], above)) is not None:
            chain.append(more)
            taken.add(more.name)
        found.append(tuple(chain))
    return found


def depths(found: list[Chain]) -> list[int]:
    """How many chains come before each at least, itself counted: those of one depth do not wait for each other."""
    depth: dict[str, int] = {}
    for chain in found:  # upstream first: all that a chain reads was made before its first stage could begin
        own = {stage.name for stage in chain}
        ups = {up for stage in chain for up in stage.ups} - own
        depth |= dict.fromkeys(own, 1 + max((depth[up] for up in ups), default=0))
    return [depth[chain[0].name] for chain in found]


def _next(chain: list[Stage], waiting: list[Stage], above: Mapping[str, set[str]]) -> Stage | None:
    """The stage that goes on in the pod, of those that wait for its last one."""
    there = above[chain[0].name] | {stage.name for stage in chain}
    fit = [one for one in waiting if there.issuperset(one.ups) and _share(chain[0].meta, one.meta)]
    for one in fit:
        if all(other is one or one.name in above[other.name] for other in waiting):
            return one
    same = [one for one in fit if _key(one) and _key(one) == _key(chain[-1])]
    return same[0] if len(same) == 1 else None


def _key(stage: Stage) -> str:
    return stage.name.removeprefix(stage.group)


def _share(a: Meta, b: Meta) -> bool:
    """Whether stages that ask for this may run in one pod. Their timeouts add up."""
    asked = [(m.kind, m.resources, m.retries, m.seconds is None) for m in (a, b)]
    return asked[0] == asked[1] and a.resources.nodes == 1 and "own" not in (a.pod, b.pod)
