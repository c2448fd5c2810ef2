"""What training on two tasks at once costs beside training on each alone, on the same batches.

A round is a batch of each task: drawn, trained on and stepped, by one model of two heads on the one side and by two
models of one head on the other, in turn in one process. The middle is the median over pairs, with its 95 % interval.

    nice -n -20 taskset -c 1 python -m benchmarks.mixtures      writes benchmarks/MIXTURES.md; two minutes
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import Tensor, nn

from benchmarks.models import CLASSES, LENGTH, MODELS, Sizes
from gradworks import loop
from gradworks.cost.hardware import processor
from gradworks.cost.pairs import Pairs, compare
from gradworks.data.batching import Examples, key
from gradworks.data.mixture import Mixture, Part
from gradworks.methods import Method
from gradworks.models._shared import heads
from gradworks.tasks import TaskSpec, kind

TASKS, ROWS, EXAMPLES, SEED = ("one", "other"), 256, 32, 0
LIMIT = 1.03


class Reads(heads.Headed):
    """A model of the cost table with a head, or one for each of several tasks."""

    def __init__(self, sizes: Sizes, outputs: heads.Sizes) -> None:
        super().__init__()
        self.inner = sizes.build()
        if hasattr(self.inner, "head"):
            last, self.inner.head = self.inner.head, nn.Identity()
        else:  # of a perceptron
            last, self.inner.mlp[-1] = self.inner.mlp[-1], nn.Identity()
        self.make_head(last.in_features, outputs)
        heads.redraw(self, SEED, first=True)

    def forward(self, inputs: Mapping[str, Tensor], embedded: None = None, task: str | None = None) -> Tensor:
        return self.answer(self.inner(inputs["ids"]), task)


def _part(name: str, vocabulary: int) -> Part:
    generator = torch.Generator().manual_seed(key(SEED, name))
    ids = torch.randint(1, vocabulary, (ROWS, LENGTH), generator=generator).tolist()
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    rows = [str(i) for i in range(ROWS)]
    made = Examples(name, rows, [{"ids": one} for one in ids], labels, _collate, strata=labels)
    return Part(made, made)


def _collate(encodings: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    return {"ids": torch.tensor([one["ids"] for one in encodings])}


def _run(sizes: Sizes, names: tuple[str, ...], seed: int) -> Callable[[int], object]:
    """The i-th step of a run on these tasks, with the draws of its batch."""
    kinds = {name: kind(TaskSpec(name, "classification", ("text",), ("a", "b", "c"), ("accuracy",))) for name in names}
    several = len(names) > 1
    model = Reads(sizes, dict.fromkeys(names, CLASSES) if several else CLASSES)
    method = Method(tasks=kinds, seed=0) if several else Method(task=kinds[names[0]], seed=0)
    vocabulary = next(m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding))
    mixture = Mixture({name: _part(name, vocabulary) for name in names}, "round_robin" if several else "single")
    return stepping(model, method, mixture, seed)


def stepping(model: nn.Module, method: Method, mixture: Mixture, seed: int) -> Callable[[int], object]:
    """The i-th step of a run, with the draws of its batches."""
    draws = mixture.draws(method.needs, EXAMPLES, None, seed)
    settings = loop.Settings(ROWS, EXAMPLES, EXAMPLES, 1e-4)
    optimizer = loop.make_optimizer(model, settings)

    def step(number: int) -> object:
        drawn = loop.cut(draws.step(number)[0], settings)
        return loop.step(model, method.backward, optimizer, drawn, rate=1e-4, largest=1.0)

    return step


def sides(sizes: Sizes) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """A round of each task alone, and of both together, on the same batches."""
    both = _run(sizes, TASKS, SEED)
    alone = [_run(sizes, (name,), key(SEED, "part", name)) for name in TASKS]
    return (
        lambda i: [one(i) for one in alone],
        lambda i: [both(2 * i + turn) for turn in range(len(TASKS))],
    )


def measure(name: str, seconds: float, pairs: tuple[int, int]) -> Pairs:
    """Both tasks together over each alone."""
    made = sides(MODELS[name])
    for i in range(4):
        for one in made:
            one(i)
    return compare(*made, "cpu", seconds, pairs, 0.003)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bert-2x128", "gru", "bow"], choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=40.0, help="of each comparison (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("MIXTURES.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.models:
        found = measure(name, args.seconds, (15, 2000))
        one, plain = found.ratio, found.seconds[0]
        verdict = "yes" if one.high <= LIMIT else "no" if one.low > LIMIT else "undecided"
        said = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}] | {one.n} | {verdict} |"
        rows.append(f"| {name} | {1000 * plain:.1f} ms | {said}")
        print(rows[-1], flush=True)
    text = f"""# What two tasks at once cost

Written by `python -m benchmarks.mixtures`. A round of two optimizer steps (erm, AdamW, {EXAMPLES} examples of {LENGTH}
tokens, float32, one thread), one on each task, their batches drawn: one model of two heads over two models of one head;
median over pairs in turn, with its 95 % interval. Two models also have twice the parameters, which a small model's
memory feels. On {processor()}, torch {torch.__version__.partition("+")[0]}.

| model | each alone | together / each alone | pairs | at most {LIMIT} |
|---|---:|---:|---:|---|
""" + "\n".join(rows) + "\n"  # fmt: skip
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
