"""The one task of a mixture of one part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradworks.schedules import group
from gradworks.spec import Needs


def tasks(step: int, needs: Needs, sizes: Mapping[str, int], seed: int) -> list[str]:
    """That task for every batch."""
    return [*sizes] * (group(needs, sizes) * needs.groups)


def refusal(needs: Needs, tasks: Sequence[str]) -> str:
    """Several tasks need an order."""
    return f"{len(tasks)} tasks\nexpected one, or another schedule" if len(tasks) > 1 else ""


def shares(sizes: Mapping[str, float]) -> dict[str, float]:
    """All of a run's batches."""
    return dict.fromkeys(sizes, 1.0)
