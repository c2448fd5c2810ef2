"""Which artifacts of other tasks a task has as its inputs, for the lineage that Kubeflow shows.

A pod finds its inputs in S3 by itself, so an edge that is left out costs lineage, never a result. Left out are:

* Outputs of a loop. Kubeflow has them only as one list of all items, and each item below would seem to come from all.
* What exceeds `INPUTS`: the launcher gets its inputs with their metadata as one argument, of 128 KiB at most on Linux.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradworks.store.stages import Out, Stage

INPUTS = 65_536  # bytes of the inputs of one task, by the bounds below
_BYTES = {"Metrics": 8_000}  # of one artifact with the metadata that pod/outputs.py writes: 100 figures
_OTHER = 1_500  # of a pointer: five values and two URIs


@dataclass(frozen=True)
class Edge:
    """An artifact that a task reads. `source`: the stage that writes it; `name`: of the input."""

    source: str
    out: Out
    name: str


def edges(stages: Sequence[Stage], alone: dict[str, Stage]) -> list[Edge]:
    """The artifacts that a task reads from tasks of one stage; the smallest first where not all fit.

    Args:
        stages: of the task.
        alone: the stages above that have a task of their own, by name.
    """
    found = list(dict.fromkeys(pair for stage in stages for pair in _read(stage, alone)))
    found.sort(key=lambda pair: _BYTES.get(pair[1].kind, _OTHER))  # stable: else in the order of the pipeline
    left, kept = INPUTS, []
    for source, out in found:
        left -= _BYTES.get(out.kind, _OTHER)
        if left < 0:
            break
        kept.append(Edge(source, out, f"input_{len(kept) + 1}_{out.name}"))
    return kept


def _read(stage: Stage, alone: dict[str, Stage]) -> Iterator[tuple[str, Out]]:
    for up in stage.ups:
        for out in alone[up].outs if up in alone else ():
            if any(_overlap(path, out.path) for path in (*stage.deps, *stage.params)):
                yield up, out


def _overlap(a: str, b: str) -> bool:
    return a == b or a == "." or a.startswith(f"{b}/") or b.startswith(f"{a}/")
