"""Two tasks at once beside each alone: both sides train on the same batches."""

import torch

from benchmarks import mixtures
from benchmarks.models import MODELS
from gradworks import loop


def test_both_sides_see_the_same_batches(monkeypatch):
    seen, step = [], loop.step

    def noted(model, backward, optimizer, batches, **more):
        seen.append((batches[0][0].task, batches[0][0].ids, batches[0][0].inputs["ids"]))
        return step(model, backward, optimizer, batches, **more)

    monkeypatch.setattr(loop, "step", noted)
    alone, both = mixtures.sides(MODELS["bow"])
    for i in range(9):  # over the end of an epoch
        alone(i), both(i)
        (one, other), (first, second) = seen[-4:-2], seen[-2:]
        for a, b in ((one, first), (other, second)):
            assert a[:2] == b[:2] and torch.equal(a[2], b[2])
    assert {task for task, *_ in seen} == set(mixtures.TASKS)
