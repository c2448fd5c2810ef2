"""Every label counts the same. Cost: one plain pass."""

from __future__ import annotations

from gradworks.methods._shared.bases import BaseWeighting

__all__ = ["Uniform"]


class Uniform(BaseWeighting):
    """Weights 1 per label (ERM, weights 1/N after the division)."""
