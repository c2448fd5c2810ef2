"""Stages that share a pod, one after the other: their names as one text, and the names of what they report.

Kubeflow knows such a chain as one task. Its parameter `stage` names all of them, `train@a -> evaluate@a`; the first has
its outputs as ever (`model`), the others with their own name behind (`metrics_of_evaluate`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

BETWEEN = " -> "  # in no stage's name: cluster/check.py refuses it there
_OF = "_of_"  # in no name of an output (see stages.py)


def joined(names: Iterable[str]) -> str:
    """The stages of a chain as one text; that of one stage is its name."""
    return BETWEEN.join(names)


def split(text: str) -> list[str]:
    """The stages of a chain."""
    return text.split(BETWEEN)


def owners(names: Sequence[str]) -> list[str]:
    """What the outputs of each stage of a chain end in, "" of the first; no two are equal."""
    seen: Counter[str] = Counter()
    ends = [""]
    for name in names[1:]:
        group = re.sub(r"[^a-z0-9]+", "_", (name.rpartition("@")[0] or name).lower()).strip("_") or "stage"
        seen[group] += 1
        ends.append(group + (f"_{seen[group]}" if seen[group] > 1 else ""))
    return ends


def output(name: str, owner: str) -> str:
    """The name of an output in its chain. `owner`: of `owners`."""
    return f"{name}{_OF}{owner}" if owner else name


def owned(name: str) -> tuple[str, str]:
    """An output's name in its stage, and its owner: the inverse of `output`."""
    own, _, owner = name.partition(_OF)
    return own, owner
