"""What sixteen heads for slices cost beside one head: the ratio of the times of a training step.

Both sides train the same encoder on the same batches with AdamW through the training loop's own step, in turn in one
process; each slice has a fifth of the examples. The middle is the median over pairs, with its 95 % interval.

    nice -n -20 taskset -c 1 python -m benchmarks.slice_heads      writes benchmarks/SLICE_HEADS.md; three minutes
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import Tensor, nn

from benchmarks.models import CLASSES, MODELS, Sizes, batch
from gradworks import loop, models
from gradworks.cost.hardware import processor
from gradworks.cost.pairs import Pairs, compare
from gradworks.methods import Method
from gradworks.spec import Batch
from gradworks.tasks import TaskSpec, kind
from gradworks.tasks.kinds._shared.sliced import Sliced

SLICES, SHARE, EXAMPLES, POOL = 16, 5, 32, 8
LIMIT = 1.05
TASK = "classification"


class Reads(nn.Module):
    """A model of the cost table whose inputs are named, as those of gradworks.models are."""

    def __init__(self, sizes: Sizes, slices: int) -> None:
        super().__init__()
        made = sizes.build()
        if not hasattr(made, "head"):  # of a perceptron
            made.head, made.mlp[-1] = made.mlp[-1], nn.Identity()
        self.inner, self.config, self.head = made, {"outputs": CLASSES}, made.head
        self.inner.head = nn.Identity()
        models.slice_heads(self, TASK, CLASSES, slices)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.head(self.inner(inputs["ids"]))


def side(sizes: Sizes, slices: int, pool: list[Batch]):
    """One optimizer step on the i-th batch of the pool."""
    base = kind(TaskSpec(TASK, "classification", ("text",), ("a", "b", "c"), ("accuracy",)))
    members = {f"s{k}": frozenset(key for b in pool for i, key in enumerate(b.ids) if (i + k) % SHARE == 0)
               for k in range(slices)}  # fmt: skip
    task = Sliced(base, members) if slices else base
    model, method = Reads(sizes, slices), Method(task=task, seed=0)
    settings = loop.Settings(len(pool), EXAMPLES, EXAMPLES, 1e-4)
    optimizer = loop.make_optimizer(model, settings)

    def named(one: Batch) -> Batch:
        inputs = {"ids": one.inputs}
        if slices:
            inputs["slices"] = task.factors(torch.from_numpy(task.inside(one.ids)).float())
        return Batch(TASK, one.ids, inputs, one.labels, one.mass)

    ready = [[[named(one)]] for one in pool]
    return lambda i: loop.step(model, method.backward, optimizer, ready[i % len(ready)], rate=1e-4, largest=1.0)


def measure(name: str, slices: int, seconds: float, pairs: tuple[int, int]) -> Pairs:
    """One head against the task's and those of `slices` slices."""
    sizes = MODELS[name]
    pool = [batch(sizes, EXAMPLES, seed) for seed in range(POOL)]
    sides = [side(sizes, k, pool) for k in (0, slices)]
    for one in sides:
        for i in range(4):
            one(i)
    return compare(*sides, "cpu", seconds, pairs, 0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bert-2x128", "bert-4x256", "gru", "bow"], choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=70.0, help="of each comparison (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("SLICE_HEADS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.models:
        found = measure(name, SLICES, args.seconds, (15, 2000))
        one, plain = found.ratio, found.seconds[0]
        verdict = "yes" if one.high <= LIMIT else "no" if one.low > LIMIT else "undecided"
        said = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}] | {one.n} | {verdict} |"
        rows.append(f"| {name} | {1000 * plain:.1f} ms | {said}")
        print(rows[-1], flush=True)
    text = f"""# What sixteen heads for slices cost

Written by `python -m benchmarks.slice_heads`. A training step (erm, AdamW, {EXAMPLES} examples of 64 tokens, float32,
one thread) of a task with {SLICES} slices, each of a fifth of the examples, over one of the task with its head alone:
median over pairs in turn, with its 95 % interval. On {processor()}, torch {torch.__version__.partition("+")[0]}.

| model | one head | {SLICES} slice heads / one head | pairs | at most {LIMIT} |
|---|---:|---:|---:|---|
""" + "\n".join(rows) + "\n"  # fmt: skip
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
