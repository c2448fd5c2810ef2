"""An entry written on the contract alone, outside the folders: the machinery must carry what is still to come."""

from __future__ import annotations

import torch

from gradworks.methods._shared.bases import BaseWeighting


class GroupDro(BaseWeighting):
    """State that moves once a step, by sums over micro-batches and ranks."""

    def __init__(self):
        self.q = torch.ones(2, dtype=torch.float64)

    def weights(self, here, outputs, losses):
        return self.q[here.batch.group] * here.batch.mass, None

    def end(self, done, reduce):
        sums = torch.zeros(len(done), 2, 2, dtype=torch.float64)
        for i, batch in enumerate(done):
            for b, one in batch:
                for k in (0, 1):
                    sums[i, k] += torch.stack([one.losses[b.group == k].sum(), (b.group == k).sum()])
        reduce([sums])
        total, count = sums.sum(0).unbind(1)
        self.q = self.q * torch.exp(0.1 * total / count.clamp_min(1))
        self.q = self.q / self.q.sum()

    def state_dict(self):
        return {"q": self.q.clone()}

    def load_state_dict(self, state):
        self.q = state["q"].clone()
