"""Which artifacts of other tasks a task has as its inputs, for the lineage that Kubeflow shows.

A pod finds its inputs in S3 by itself, so an edge that is left out costs lineage, never a result. Kubeflow has the
outputs of a loop only as one list of all items. Left out are:

* What a loop reads where its items do not all read it, and a loop's outputs where a reader does not read all items':
  one would seem to come from what it never saw. Loops are made so that this is rare, see loops.py.
* Outputs of a loop that another loop reads: Kubeflow collects them outside of loops only.
* What exceeds `INPUTS`: the launcher gets its inputs with their metadata as one argument, of 128 KiB at most on Linux.
  One artifact of each task comes first, its metrics if it has some, so that the tasks stay connected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradworks.cluster.chains import Chain
from gradworks.store import chains
from gradworks.store.stages import Out, Stage

INPUTS = 100_000  # bytes of the inputs of one task, by the bounds below
_BYTES = {"Metrics": 1_400}  # of one artifact: name, URI, type, and the metadata that pod/outputs.py writes
_OTHER = 1_100


@dataclass(frozen=True)
class Edge:
    """An artifact that a task reads, or the list of those of a loop.

    Attributes:
        source: a stage of the task that writes it; output: its name among the outputs of that task.
        items: of the list; 1 = no loop writes it.
        name: of the input.
    """

    source: str
    out: Out
    output: str
    items: int
    name: str


def edges(tasks: Mapping[str, Sequence[Chain]]) -> dict[str, list[Edge]]:
    """The artifacts that each task reads from others.

    Args:
        tasks: name -> the chains of its pods; more than one are a loop.
    """
    at = {stage.name: task for task, loop in tasks.items() for chain in loop for stage in chain}
    stages = {stage.name: stage for loop in tasks.values() for chain in loop for stage in chain}
    owners = {
        stage.name: owner
        for loop in tasks.values()
        for chain in loop
        for stage, owner in zip(chain, chains.owners([one.name for one in chain]), strict=True)
    }
    return {task: _named(list(_read(loop, tasks, at, stages, owners))) for task, loop in tasks.items()}


def _read(
    loop: Sequence[Chain],
    tasks: Mapping[str, Sequence[Chain]],
    at: Mapping[str, str],
    stages: Mapping[str, Stage],
    owners: Mapping[str, str],
) -> Iterator[tuple[str, str, Out, str, int]]:
    """(task, one of its stages, output, the output's name there, items) that all chains of a task read."""
    each = [{(up, out.name): out for up, out in _outs(chain, stages)} for chain in loop]
    read: dict[tuple[str, str], dict[str, Out]] = {}  # (task, name of an output) -> the stages that write it
    for up, name in each[0]:
        if all((up, name) in other for other in each):
            read.setdefault((at[up], chains.output(name, owners[up])), {})[up] = each[0][up, name]
    for (task, output), written in read.items():
        items = len(tasks[task])
        if len(written) == items and (items == 1 or len(loop) == 1):
            up, out = next(iter(written.items()))
            yield task, up, out, output, items


def _outs(chain: Chain, stages: Mapping[str, Stage]) -> Iterator[tuple[str, Out]]:
    """Outputs of stages outside that a chain reads."""
    inside = {stage.name for stage in chain}
    for stage in chain:
        for up in stage.ups:
            for out in stages[up].outs if up in stages and up not in inside else ():
                if any(_overlap(path, out.path) for path in (*stage.deps, *stage.params)):
                    yield up, out


def _named(found: list[tuple[str, str, Out, str, int]]) -> list[Edge]:
    """Those that fit: one of each task, then the smallest."""
    first: dict[str, tuple[str, str, Out, str, int]] = {}
    for one in sorted(found, key=lambda one: one[2].kind != "Metrics"):  # stable: else in the order of the pipeline
        first.setdefault(one[0], one)
    rest = sorted((one for one in found if one is not first[one[0]]), key=_size)
    left, kept = INPUTS, []
    for one in (*sorted(first.values(), key=_size), *rest):
        left -= _size(one)
        if left < 0:
            break
        _, up, out, output, items = one
        kept.append(Edge(up, out, output, items, f"input_{len(kept) + 1}_{out.name}"))
    return kept


def _size(one: tuple[str, str, Out, str, int]) -> int:
    return _BYTES.get(one[2].kind, _OTHER) * one[4]


def _overlap(a: str, b: str) -> bool:
    return a == b or a == "." or a.startswith(f"{b}/") or b.startswith(f"{a}/")
