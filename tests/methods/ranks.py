"""One process with two micro-batches, or one of two; the second is `python ranks.py STORE CASE...`."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
from torch.nn import functional as F

from gradworks.methods import Method
from tests.methods.own_entries import GroupDro
from tests.methods.shipped import PAIRWISE, STAR
from tests.methods.toys import TASKS, Net, batch, build, gradients, split

OWN = {
    "smart-group_dro-reptile": (lambda: "smart", GroupDro, lambda: "reptile"),
    "dotprod-exact": (lambda: "supervised", lambda: "uniform", lambda: {"dotprod": {"form": "exact"}}),
    "erm-2": (lambda: "supervised", lambda: "reweight", lambda: {"erm": {"batches": 2}}),
    "uneven": (lambda: "supervised", lambda: "reweight", lambda: {"erm": {"batches": 2}}),
    "head-kept": (lambda: "smart", lambda: {"reweight": {"backend": "head"} | KEPT}, lambda: "dotprod"),
    "kept-3": (lambda: "rdrop", lambda: {"reweight": KEPT}, lambda: {"erm": {"batches": 3}}),
}
KEPT = {"clean_every": 2, "clean_momentum": 0.5}
CASES = {"-".join(triple): tuple(lambda name=name: name for name in triple) for triple in PAIRWISE} | OWN
WRITTEN = {  # kinds whose labels are tokens: the halves of a batch differ in mass, and in length
    f"{kind} {'-'.join(triple)}": (kind, triple)
    for kind in ("causal", "seq2seq")
    for triple in (
        ("supervised", "uniform", "erm"),
        ("supervised", "reweight", "reptile"),
        ("smart", "hard_mining", "dotprod"),
    )
}
TWO_STEPS = {"-".join(triple) for triple in STAR} | set(OWN)  # what an entry carries from step to step


def reduce(tensors):
    flat = torch.cat([t.flatten() for t in tensors])  # one message
    dist.all_reduce(flat)
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(part.view_as(t))


def descend(model) -> list[torch.Tensor | None]:
    """The gradient, after a step of SGD along it (importing an optimizer takes as long as all cases)."""
    found = gradients(model)
    for p in model.parameters():
        if p.grad is not None:
            p.data -= 0.1 * p.grad
    return found


def steps(case, rank: int, world: int) -> list[torch.Tensor] | str:
    """The gradients of the steps, on halves of six examples or on two and one, or why there are none."""

    def drawn(seed):
        halves = split(batch("three", 3, seed), 2) if case == "uneven" else split(batch("three", 6, seed), 3)
        return halves if world == 1 else [halves[rank]]

    method = Method(
        *(make() for make in CASES[case]), tasks=TASKS, seed=7, rank=rank, reduce=reduce if world > 1 else None
    )
    model, k, found = build(Net), method.batches, []
    for seed in (100, 140) if case in TWO_STEPS else (100,):
        wanted = method.clean_for(["three"] * k)
        clean = [drawn(seed + 20 + i) if one else [] for i, one in enumerate(wanted)] if method.clean else []
        try:
            method.backward(model, [drawn(seed + i) for i in range(k)], clean)
        except Exception as error:  # on every rank, or the others wait in vain
            return f"{type(error).__name__}: {error}"
        found += descend(model)
    return found


def written_steps(case, rank: int, world: int) -> list[torch.Tensor] | str:
    """The same of a model that writes text, dropout on; four examples are one half of a batch, three the other."""
    from tests import written  # which imports transformers

    name, triple = WRITTEN[case]
    kind, model = written.kind(name), written.model(name)
    data, found = written.examples(kind, model), []
    method = Method(*triple, tasks={"t": kind}, seed=7, rank=rank, reduce=reduce if world > 1 else None)

    def drawn(first):
        halves = [data.batch([i % 32 for i in rows]) for rows in (range(first, first + 4), range(first + 5, first + 8))]
        assert halves[0].mass.sum() != halves[1].mass.sum()
        return halves if world == 1 else [halves[rank]]

    for step in (0, 1):
        batches = [drawn(11 * step + 3 * i) for i in range(method.batches)]
        clean = [drawn(20 + 11 * step + 3 * i) for i in range(method.batches)] if method.clean else []
        try:
            method.backward(model, batches, clean)
        except Exception as error:  # on every rank, or the others wait in vain
            return f"{type(error).__name__}: {error}"
        found += descend(model)
    return found


def from_loaders(rank: int, world: int) -> list[torch.Tensor]:
    """Batches of a person's own loader: examples get names by position, and noise by name."""
    g = torch.Generator().manual_seed(3)
    rows = [(torch.randn(3, 4, generator=g), torch.randint(0, 2, (3,), generator=g)) for _ in range(8)]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 2)).double()
    found = []
    method = Method(
        weighting="random", seed=7, rank=rank, reduce=reduce if world > 1 else None,
        outputs=lambda m, b: m(b[0].double()), loss=lambda z, b: F.cross_entropy(z, b[1], reduction="none"),
    )  # fmt: skip
    for batches, clean in method.groups(rows[rank::world], accumulate=2 // world):
        method.backward(model, batches, clean)
        found += descend(model)
    return found


def one_side(rank: int, world: int, cases: list[str]) -> dict[str, list[torch.Tensor] | str]:
    found = {case: (written_steps if case in WRITTEN else steps)(case, rank, world) for case in cases}
    return found | {"from_loaders": from_loaders(rank, world)}


def one_of_two(rank: int, store: Path, cases: list[str]) -> dict[str, list[torch.Tensor] | str]:
    both = dist.FileStore(str(store), 2)
    dist.init_process_group("gloo", store=both, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        return one_side(rank, 2, cases)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    one_of_two(1, Path(sys.argv[1]), sys.argv[2:])
