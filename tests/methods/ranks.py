"""What test_ranks.py runs: one process with two micro-batches, or `python ranks.py RANK WORLD OUT` as one of two."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist

from gradworks.methods import Method
from tests.methods.own_entries import OBJECTIVES, UPDATES, WEIGHTINGS
from tests.methods.toys import TASKS, Net, batch, build, split

CASES = [("supervised", w, u) for w in WEIGHTINGS for u in ("erm", "erm2", "dotprod")]
CASES += [
    (o, w, u) for o in ("rdrop", "smart") for w in ("group_dro", "reweight") for u in ("dotprod", "reptile", "sam")
]


def one_side(rank: int, world: int) -> dict[str, list[torch.Tensor]]:
    """Two optimizer steps of every case on two halves: here, or one half here and one on the other rank."""

    def reduce(tensors):
        flat = torch.cat([t.flatten() for t in tensors])  # one message
        dist.all_reduce(flat)
        for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            t.copy_(part.view_as(t))

    def drawn(seed):
        halves = split(batch("three", 6, seed), 3)
        return halves if world == 1 else [halves[rank]]

    found = {}
    for o, w, u in CASES:
        method = Method(
            OBJECTIVES[o](), WEIGHTINGS[w](), UPDATES[u](), tasks=TASKS, seed=7, rank=rank,
            reduce=reduce if world > 1 else None,
        )  # fmt: skip
        model = build(Net)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for seed in (100, 140):
            k = method.batches
            method.backward(model, [drawn(seed + i) for i in range(k)], [drawn(seed + 20 + i) for i in range(k)])
            optimizer.step()
        found[f"{o}-{w}-{u}"] = [p.detach() for p in model.parameters()]
    return found


if __name__ == "__main__":
    rank, world, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    store = dist.FileStore(str(out.with_suffix(".store")), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = one_side(rank, world)
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()
