"""The task's own loss. Cost: one plain pass."""

from __future__ import annotations

from gradworks.methods._shared.bases import BaseObjective

__all__ = ["Supervised"]


class Supervised(BaseObjective):
    """Minimise the loss of the labels (empirical risk)."""
