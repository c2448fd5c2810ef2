"""Which passes of a model are of one kind: one examination of `ghost` counts for all of them.

A kind is the graph without its sizes (`structure.py`), the calls that were recorded and how their rows relate to the
examples, whether parameters are read beside these calls, the task, the mode, and which parameters are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gradworks.methods.weightings._shared.layers import Use
from gradworks.methods.weightings._shared.losses import row_wise
from gradworks.methods.weightings._shared.structure import Walk, digest, fingerprint


class Kinds:
    """The kinds of the passes of one model: 16 hex digits, the same in every process."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[str, bool]] = {}

    def __call__(
        self, outputs: Sequence[Tensor], losses: Tensor, uses: Sequence[Use], trained: Sequence[Tensor], *further: Any
    ) -> tuple[str, bool]:
        """The kind of a pass, and whether its losses are made of operations that do not mix rows.

        Args:
            outputs, losses: of the pass.
            uses: what was recorded.
            trained: parameters.
            further: strings and numbers that are part of the kind.

        Raises:
            Uneven: rows were picked by values and are not examples.
        """
        n, ends = len(losses), [z.grad_fn for z in outputs]
        seen = fingerprint(ends, n, leaves={id(p): j for j, p in enumerate(trained)})
        seen += fingerprint([losses.grad_fn], n, ends, look=False)
        for use in uses:
            seen += use.name, use.x.shape
        key = (n, *further, *seen)
        if key not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            names = {use.edge.node: use.name for use in uses}
            whole, behind = Walk(ends, names, n), Walk([losses.grad_fn], names, n, ends, look=False)
            kind = digest([*further, n == 1, *_calls(whole, uses, trained, n), whole.pairs, behind.pairs])
            self._known[key] = kind, n == 1 or row_wise(behind)
        return self._known[key]


def _calls(walk: Walk, uses: Sequence[Use], parameters: Sequence[Tensor], n: int) -> tuple[list, set]:
    """How often each trained parameter is read, and how the inputs of the recorded calls relate to the examples."""
    called: dict[int, int] = {}
    for use in uses:
        for p in (use.weight, use.bias):
            if p is not None:
                called[id(p)] = called.get(id(p), 0) + 1
    reads = walk.reads()
    # 1: something else than the recorded calls reads it, 0: nothing else, -1: less than the calls (a GRU's own weights)
    met = [(j, id(p)) for j, p in enumerate(parameters) if id(p) in reads or id(p) in called]
    more = [(j, _sign(reads.get(p, 0) - called.get(p, 0))) for j, p in met]
    leads = [(use.name, use.time_major, use.x.shape[: use.x.ndim - use.rule.tail(use)[0]]) for use in uses]
    lengths = {size for _, _, lead in leads for size in lead[1:]}
    return more, {(name, *_relation(lead, time_major, n, lengths)) for name, time_major, lead in leads}


def _relation(lead: Sequence[int], time_major: bool, n: int, lengths: set[int]) -> tuple[str, str]:
    """How the first two dimensions of a layer's input relate to the examples and to the lengths of the pass."""
    if time_major:
        lead = lead[1:]
    first = lead[0] if lead else 0
    if first in (n, 1):
        rows = "n" if first == n else "1"
    elif first % n or not first:
        rows = "other"
    else:  # all positions in one dimension are as many rows of each example as there are positions elsewhere
        rows = "positions" if first // n in lengths else "several"
    return rows, "n" if not time_major and len(lead) > 1 and lead[1] == n else "."


def _sign(x: int) -> int:
    return (x > 0) - (x < 0)
