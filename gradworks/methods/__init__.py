"""Gradient methods as points in a product of three slots: what is minimised, how examples count, how steps are made.

    method = Method(objective="supervised", weighting="reweight", update="dotprod", task=task)

One file in objectives/, weightings/ or updates/ is one entry, and its file name is its name.
"""

from gradworks.methods._shared.method import Method

__all__ = ["Method"]
