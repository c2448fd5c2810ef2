"""Peak memory of a side of a row, in a process of its own."""

from __future__ import annotations

from benchmarks.plain import Case, Data, batches_of, side
from gradworks.cost import memory

STEPS = 3  # beyond a period: the optimizer's state is there from the second step on
_IMPORTED = ("benchmarks.memory", "transformers.models.bert.modeling_bert")


def peak(case: Case, name: str) -> int:
    """Bytes at the peak of a few steps of a side, model and optimizer included, measured in a fresh process."""
    try:
        return memory.peak(_work, _first, (case, name), case.device, preload=_IMPORTED)
    except memory.Failed as error:
        raise RuntimeError(f"peak memory of {case.row.method} {case.row.backend}, {name}: {error}") from None


def _first(case: Case, name: str) -> None:
    _steps(case, name, case.sizes.small, 2 * case.row.period)


def _work(case: Case, name: str) -> None:
    _steps(case, name, case.sizes, STEPS + case.row.period)


def _steps(case: Case, name: str, sizes, count: int) -> None:
    data = Data(case, sizes, batches_of(case))
    one, _ = side(case, name, sizes)
    for i in range(count):
        one.step(*data(i))
