"""Where the time of a step goes, beside plain training: its passes, the optimizer, and everything else.

For rows that miss their target. Passes are forward and backward through the model with the gradients that come out;
everything else is the method's arithmetic on lists of gradients, its figures for the log, and Python.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks.plain import Case, Data, batches_of, side
from gradworks.methods._shared.passes import MicroBatch

ROUNDS = 9
PARTS = ("passes", "optimizer", "other")


class _Clock:
    """Adds up the time spent in functions; one that is called by another counts once."""

    def __init__(self) -> None:
        self.spent = {"passes": 0.0, "optimizer": 0.0}
        self._inside = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            if self._inside:
                return function(*args, **more)
            self._inside, begun = True, time.process_time()
            try:
                return function(*args, **more)
            finally:
                self.spent[part] += time.process_time() - begun
                self._inside = False

        return run


@contextlib.contextmanager
def _watched(clock: _Clock) -> Iterator[None]:
    own = {name: getattr(MicroBatch, name) for name in ("outputs", "moved", "loss", "backward")}
    for name, function in own.items():
        setattr(MicroBatch, name, clock.timed("passes", function))
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(MicroBatch, name, function)


def profile(case: Case) -> dict[str, dict[str, float]]:
    """Parts of a step of each side by name, over the whole of a plain step: medians of interleaved rounds.

    On a CPU with one thread; for rows that make their passes through `spec.Pass` (not ghost's).
    """
    data, period = Data(case, case.sizes, batches_of(case)), case.row.period
    sides = {name: side(case, name, case.sizes)[0] for name in ("plain", "method")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for i in range(ROUNDS + 3):
        for name, one in sides.items():
            clock = _Clock()
            own = one._optimizer.step
            one._optimizer.step = clock.timed("optimizer", own)
            with _watched(clock):
                begun = time.process_time()
                for j in range(period):
                    one.step(*data(i * period + j))
                whole = time.process_time() - begun
            one._optimizer.step = own
            rest = whole - sum(clock.spent.values())
            spent = clock.spent | ({"other": rest} if name == "method" else {"passes": rest, "other": 0.0})
            if i >= 3:  # what a method measures first is over
                found[name].append(spent | {"whole": whole})
    plain = median(one["whole"] for one in found["plain"])
    return {
        name: {part: median(one[part] for one in rounds) / plain for part in PARTS} for name, rounds in found.items()
    }
