"""What a step of each side does: passes as the report says, as hooks see them, and floating-point operations."""

from __future__ import annotations

from typing import Any

from benchmarks.plain import Case, Data, OfMethod, batches_of, side
from benchmarks.rows import Work
from gradworks.cost.operations import Operations


def counts(case: Case, warm_up: int = 3) -> dict[str, Any]:
    """Of a period of steps after the first ones, over plain training on the same batches.

    Returns:
        passes: `StepReport.passes`; forward, backward: passes seen by hooks, in thirds; operations: the ratio of
        floating-point operations. None where it cannot be seen: of peers, and of operations that cannot be counted
        (see gradworks/cost/operations.py).
    """
    sizes, period = case.sizes, case.row.period
    k = batches_of(case)
    data = Data(case, sizes, k)
    operations = {}
    found: dict[str, Any] = {}
    for name in ("plain", "method"):
        one, task = side(case, name, sizes)
        for i in range(warm_up * period if name == "method" else 1):
            one.step(*data(i))
        task.forward = task.backward = 0
        passes = 0.0
        with Operations() as counted:
            for i in range(period):
                one.step(*data(i))
                if isinstance(one, OfMethod):
                    passes += one.report.passes / k
        operations[name] = None if counted.not_counted else counted.total
        if isinstance(one, OfMethod):
            examples = k * case.n * period
            found = {
                "passes": passes / period, "forward": task.forward / examples, "backward": task.backward / examples,
            }  # fmt: skip
    ratio = operations["method"] / operations["plain"] if all(operations.values()) else None
    return {"passes": None, "forward": None, "backward": None} | found | {"operations": ratio}


def agrees(found: dict[str, Any], floor: Work | None) -> bool | None:
    """Whether all that was counted is the floor's; None where there is nothing to compare."""
    if floor is None or found.get("passes") is None:
        return None
    pairs = [(found["passes"], floor.passes), (found["forward"], floor.forward), (found["backward"], floor.backward)]
    return all(seen is None or abs(seen - least) <= 1e-6 for seen, least in pairs)
