"""What tasks that read the same rows cost in one forward pass beside a forward pass for each.

A step of both sides is one optimizer step on the losses of k tasks (a sentence's class, the tags of its words, a value,
another class) over a batch of rows: drawn as one batch of a set (`together`), or as k batches, one of each task (`erm`
with `batches: k`). In turn in one process. The middle is the median over pairs, with its 95 % interval.

    nice -n -20 taskset -c 1 python -m benchmarks.together      writes benchmarks/TOGETHER.md; four minutes
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import Tensor

from benchmarks.mixtures import stepping
from benchmarks.models import LENGTH, MODELS, Sizes
from gradworks.base.together import sets_of
from gradworks.cost.hardware import processor
from gradworks.cost.pairs import Pairs, compare
from gradworks.data.batching import Examples, key
from gradworks.data.mixture import Mixture, Part
from gradworks.methods import Method
from gradworks.models._shared import heads
from gradworks.models.transformer import Transformer
from gradworks.tasks import TaskSpec, kind
from gradworks.tasks.kinds._shared.together import kinds_of

ROWS, EXAMPLES, SEED, MODEL = 256, 32, 0, "bert-4x256"
KINDS = {
    name: kind(TaskSpec(name, of, ("text",), classes, ()))
    for name, of, classes in (
        ("mood", "classification", ("bad", "fair", "good")),
        ("words", "tagging", tuple(f"tag{i}" for i in range(12))),
        ("worth", "regression", None),
        ("tone", "classification", ("calm", "loud")),
    )
}


def network(sizes: Sizes, names: list[str]) -> Transformer:
    """The encoder of the cost table, with a head for each task."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=sizes.vocabulary, hidden_size=sizes.width, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, intermediate_size=4 * sizes.width,
    )  # fmt: skip
    outputs = {name: KINDS[name].size for name in names}
    model = Transformer({"pooling": "cls", "dropout": 0.1}, BertModel(config), None, outputs)
    heads.redraw(model, SEED, first=True)
    return model.train()


def _part(name: str, model: Transformer, vocabulary: int) -> Part:
    """The same rows for every task, all words of one token."""
    generator = torch.Generator().manual_seed(key(SEED, "rows"))
    ids = torch.randint(1, vocabulary, (ROWS, LENGTH), generator=generator).tolist()
    own, made = KINDS[name], torch.Generator().manual_seed(key(SEED, name))
    encodings = [{"input_ids": one, "token_type_ids": [0] * LENGTH} for one in ids]
    labels: Tensor = (
        torch.randint(own.size, (ROWS,), generator=made) if own.size > 1 else torch.rand(ROWS, generator=made)
    )
    if own.spec.kind == "tagging":
        first = {"length": LENGTH, "first": tuple((0, i) for i in range(1, LENGTH - 1))}
        encodings = [{f"0 {part}": tokens for part, tokens in one.items()} | first for one in encodings]
        labels = torch.randint(own.size, (ROWS, LENGTH - 2), generator=made)
    rows = [str(i) for i in range(ROWS)]
    examples = Examples(name, rows, encodings, labels, functools.partial(own.pad, model), join=own.collate)
    return Part(examples, examples)


def side(sizes: Sizes, names: list[str], together: bool) -> Callable[[int], object]:
    """The i-th step of a run on these tasks, with the draws of its batches."""
    model = network(sizes, names)
    sets = sets_of([names] if together else [])
    tasks = kinds_of({name: KINDS[name] for name in names}, sets)
    method = Method(update={"erm": {"batches": len(tasks)}}, tasks=tasks, seed=0)
    parts = {name: _part(name, model, sizes.vocabulary) for name in names}
    mixture = Mixture(parts, "round_robin", together=sets)
    return stepping(model, method, mixture, SEED)


def measure(count: int, seconds: float, pairs: tuple[int, int]) -> Pairs:
    """A forward pass for each of so many tasks, and one for all."""
    made = [side(MODELS[MODEL], list(KINDS)[:count], together) for together in (False, True)]
    for i in range(4):
        for one in made:
            one(i)
    return compare(*made, "cpu", seconds, pairs, 0.003)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each comparison (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("TOGETHER.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for count in (2, 4):
        found = measure(count, args.seconds, (15, 2000))
        (apart, one), ratio = found.seconds, found.ratio
        said = f"{1000 * apart:.0f} ms | {1000 * one:.0f} ms | {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        rows.append(f"| {count} | {', '.join(list(KINDS)[:count])} | {said} | {1 / count:.2f} | {ratio.n} |")
        print(rows[-1], flush=True)
    text = f"""# What one forward pass for several tasks costs

Written by `python -m benchmarks.together`. An optimizer step (AdamW, {EXAMPLES} rows of {LENGTH} tokens, float32, one
thread) on the losses of k tasks over the same rows, their batches drawn: {MODEL} with a head for each task, one forward
pass for all (`together`) over one for each (`erm` with `batches: k`); median over pairs in turn, with its 95 %
interval. `words` are tags of 12 classes. 1 / k is the share of one forward and backward
pass in k; heads and optimizer add to it, and that k gradients are added up takes from it. On
{processor()}, torch {torch.__version__.partition("+")[0]}.

| k | tasks | each alone | together | together / each alone | 1 / k | pairs |
|---:|---|---:|---:|---:|---:|---:|
""" + "\n".join(rows) + "\n"  # fmt: skip
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
