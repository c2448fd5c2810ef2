"""Which artifacts of other tasks a task has as its inputs, for the lineage that Kubeflow shows.

A pod finds its inputs in S3 by itself, so an edge that is left out costs lineage, never a result. Left out are:

* Outputs of a loop. Kubeflow has them only as one list of all items, and each item below would seem to come from all.
* What exceeds `INPUTS`: the launcher gets its inputs with their metadata as one argument, of 128 KiB at most on Linux.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradworks.cluster.chains import Chain
from gradworks.store import chains
from gradworks.store.stages import Out, Stage

INPUTS = 65_536  # bytes of the inputs of one task, by the bounds below
_BYTES = {"Metrics": 8_000}  # of one artifact with the metadata that pod/outputs.py writes: 100 figures
_OTHER = 1_500  # of a pointer: five values and two URIs


@dataclass(frozen=True)
class Edge:
    """An artifact that a task reads.

    Attributes:
        source: the stage that writes it; output: its name among the outputs of that stage's task.
        name: of the input.
    """

    source: str
    out: Out
    output: str
    name: str


def edges(task: Sequence[Chain], alone: Sequence[Chain]) -> list[Edge]:
    """The artifacts that a task reads from tasks that are no loops; the smallest first where not all fit.

    Args:
        task: the stages of its pods.
        alone: those of each task that is no loop.
    """
    made = {stage.name: (stage, owner) for chain in alone for stage, owner in zip(chain, _owners(chain), strict=True)}
    found = list(dict.fromkeys(one for chain in task for one in _read(chain, made)))
    found.sort(key=lambda one: _BYTES.get(one[1].kind, _OTHER))  # stable: else in the order of the pipeline
    left, kept = INPUTS, []
    for source, out, output in found:
        left -= _BYTES.get(out.kind, _OTHER)
        if left < 0:
            break
        kept.append(Edge(source, out, output, f"input_{len(kept) + 1}_{out.name}"))
    return kept


def _owners(chain: Chain) -> list[str]:
    return chains.owners([stage.name for stage in chain])


def _read(chain: Chain, made: dict[str, tuple[Stage, str]]) -> Iterator[tuple[str, Out, str]]:
    inside = {stage.name for stage in chain}
    for stage in chain:
        for up in stage.ups:
            if up in inside or up not in made:
                continue
            source, owner = made[up]
            for out in source.outs:
                if any(_overlap(path, out.path) for path in (*stage.deps, *stage.params)):
                    yield up, out, chains.output(out.name, owner)


def _overlap(a: str, b: str) -> bool:
    return a == b or a == "." or a.startswith(f"{b}/") or b.startswith(f"{a}/")
