"""The control that trusts the loss: only the examples of a batch with the highest losses count.

"Hard mining" of Ren et al. (2018, section 4.1), who take the highest losses of a larger batch among the majority class
alone; and online hard example mining (Shrivastava, Gupta, Girshick, CVPR 2016), which takes them among all examples, as
here. Examples with equal losses are treated alike: those that tie with the last one chosen count too.

Cost: one plain pass. With gradient accumulation or several ranks the choice is over the whole batch, so losses must be
known before the first gradient: a forward pass without a graph over every micro-batch, 1/3 pass more (with a graph
where the objective holds something that its first pass makes, at what that pass costs).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradworks.methods._shared.bases import BaseWeighting
from gradworks.methods._shared.options import number
from gradworks.spec import Outputs, Pass, Reduce, Visit

__all__ = ["HardMining"]


class HardMining(BaseWeighting):
    """Weight 1 for the `keep` share of a batch's examples with the highest losses, 0 for the others.

    Args:
        keep: share of the examples that count, in (0, 1]; their number is rounded up. 1 is `uniform`.
    """

    holds = True
    once = False
    once_alone = True  # see `prepare`

    def __init__(self, keep: float = 0.5):
        self._keep = number("keep", keep, above=0)
        if self._keep > 1:
            raise ValueError(f"keep: found {keep!r}, expected a share of at most 1")

    def prepare(self, visit: Visit) -> None:
        """Choose over all micro-batches and ranks; a batch that is one pass alone is chosen from as it is computed."""
        if visit.single:
            return
        theta = [p.detach() for p in visit.passes[0].parameters]
        losses = []
        for here in visit.passes:
            outputs = here.outputs() if visit.holds else here.moved(theta)
            losses.append(here.loss(outputs).detach())
        chosen = self._chosen(torch.cat(losses), visit.reduce)
        for here, part in zip(visit.passes, chosen.split([len(one) for one in losses]), strict=True):
            here.held["chosen"] = part

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, None]:
        chosen = here.held.pop("chosen") if "chosen" in here.held else self._chosen(losses.detach())
        return chosen * here.batch.mass.to(losses), None

    def _chosen(self, losses: Tensor, reduce: Reduce | None = None) -> Tensor:
        """(n,) which examples count; a loss that is not a number counts as the highest."""
        if reduce is None:
            return ~(losses < losses.topk(self._number(len(losses))).values[-1])
        reduce(count := [losses.new_tensor(len(losses), dtype=torch.float32)])
        keys = _ordered(losses)
        return keys >= _largest(keys, self._number(int(count[0])), reduce)

    def _number(self, n: int) -> int:
        return math.ceil(self._keep * n - 1e-9)  # 0.28 * 25 is a little above 7


def _ordered(losses: Tensor) -> Tensor:
    """(n,) int64 in the order of the losses, NaN last: the bits of a float64, all but the sign flipped if negative."""
    values = torch.where(losses.isnan(), torch.nan, losses.double() + 0.0)  # one kind of NaN, one kind of zero
    bits = values.view(torch.int64)
    return torch.where(bits < 0, bits ^ torch.iinfo(torch.int64).max, bits)


def _largest(keys: Tensor, k: int, reduce: Reduce) -> Tensor:
    """() the k-th largest key over all ranks, exactly, by sums alone: byte after byte from a histogram of each."""
    found, alive = torch.zeros_like(keys[0]), torch.ones_like(keys, dtype=torch.bool)
    for shift in range(56, -8, -8):
        byte = (keys >> shift) & 255
        byte = byte ^ 128 if shift == 56 else byte  # the first byte has the sign
        reduce(counts := [torch.bincount(byte[alive], minlength=256)])
        above = counts[0].flip(0).cumsum(0).flip(0)  # keys with this byte or a higher one
        digit = (above >= k).sum() - 1
        k = k - (above[digit] - counts[0][digit])
        alive &= byte == digit
        found = (found << 8) | (digit ^ 128 if shift == 56 else digit)
    return found
