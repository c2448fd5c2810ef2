"""The one learning-rate schedule, in fractions of a run's own steps, so that runs of other lengths compare."""

from __future__ import annotations


def linear(step: int, total: int, warmup: float) -> float:
    """Share of the peak rate at a step.

    Args:
        step: counted from 0.
        total: steps of the run.
        warmup: the fraction of them in which the rate rises linearly to 1; then it falls linearly to almost 0.
    """
    rise = max(1.0, warmup * total)
    return min((step + 1) / rise, (total - step) / (total - rise + 1), 1.0)
