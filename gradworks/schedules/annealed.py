"""Tasks drawn at random, first in proportion to their sizes, later more evenly.

p(task) is proportional to size ** a with a = 1 - fall * (e - 1) / (E - 1) in epoch e of E (Stickland and Murray 2019,
arXiv:1902.02671, section 4.2, where fall is 0.8). An epoch is as many batches as all parts have.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from gradworks.base import Section
from gradworks.schedules._shared import weighted
from gradworks.spec import Needs


class Options(Section):
    """epochs: of the whole run, E. fall: of the exponent, from the first epoch to the last."""

    epochs: int = Field(ge=2)
    fall: float = Field(0.8, ge=0, le=1)


def tasks(step: int, needs: Needs, sizes: Mapping[str, int], seed: int, *, epochs: int, fall: float) -> list[str]:
    """The order depends on the seed, and on names and sizes of the tasks, not on their order in the mixture."""
    total = sum(sizes.values())

    def weights(batch: int) -> dict[str, float]:
        epoch = min(batch // total, epochs - 1)  # from 0
        return {name: size ** (1 - fall * epoch / (epochs - 1)) for name, size in sizes.items()}

    return weighted.tasks(step, needs, len(sizes), weights, seed)
