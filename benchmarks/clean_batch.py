"""How large a clean batch must be: the split-half correlation of the scores of `reweight`.

A score u_i = <clean gradient, gradient of example i> is worth something when another clean batch of the same size would
have given about the same scores: the same training examples, under the same dropout masks, are scored with two clean
batches of m examples, drawn independently from the clean split, and the two lists are correlated within each training
batch, where weights are normalised. Clean batches are drawn as training batches are (of like length), at random, with
the classes in equal numbers, or so and of like length, as the loop draws them. Data, model and training are those of
the default benchmark (params.yaml): the condition `noise`, the encoder `gru`, plain training. The stages that make the
data are run into a temporary folder; two minutes on one core.

    python -m benchmarks.clean_batch     prints the table and writes benchmarks/CLEAN_BATCH.md
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from gradworks import base, models, tasks
from gradworks.base import artifacts
from gradworks.cell import Train
from gradworks.data.batching import Examples, balanced_rows, order, stream
from gradworks.data.tables import to_examples
from gradworks.methods import Method

PARAMS = Path("params.yaml")
CONDITION, ENCODER = "noise", "gru"
SIZES, MOMENTS = (4, 8, 16, 32, 64, 128), (0, 50, 300)
BATCHES, PAIRS = 8, 400  # training batches that are scored; pairs of clean batches of each size
ENOUGH = 0.5
Found = dict[tuple[str, int, int], float]  # correlation by (draw, steps of training, size)


def run_stages(folder: Path, seeds: int) -> None:
    """Sources, splits of every seed, encoder."""

    def run(name: str, *arguments: object) -> None:
        command = [sys.executable, "-m", f"components.{name}", "--params", str(PARAMS), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    fetched = folder / "fetch"
    run("fetch", "--source", "synthetic", "--out", fetched / "synthetic")
    run("pretrain", "--encoder", ENCODER, "--data", fetched, "--out", folder / ENCODER)
    for seed in range(seeds):
        run("corrupt", "--condition", CONDITION, "--seed", seed, "--data", fetched, "--out", folder / f"{seed}")


def gradients(model: torch.nn.Module, task: object, examples: Examples, rows: list[int]) -> torch.Tensor:
    """(n, P) the gradient of each example, each under a dropout mask of its own."""
    found = []
    for start in range(0, len(rows), 8):
        batch = examples.batch(rows[start : start + 8])
        for loss in task.loss(task.outputs(model, batch), batch):
            parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            found.append(torch.cat([g.flatten() for g in parts]))
    return torch.stack(found)


def products(
    model: torch.nn.Module, task: object, train: Examples, clean: Examples, size: int, seed: int
) -> torch.Tensor:
    """(2, BATCHES * n, clean) inner products of the gradients of training and clean examples, these under two masks.

    u for any clean batch is the mean of its columns, because the clean gradient is a mean over examples.
    """
    torch.manual_seed(seed)
    drawn = [rows for rows in order(train.lengths, size, seed, 0) if len(rows) == size][:BATCHES]
    scored = torch.cat([gradients(model, task, train, rows) for rows in drawn])
    every = list(range(len(clean)))
    return torch.stack([scored @ gradients(model, task, clean, every).T for _ in range(2)])


def of_like_length(clean: Examples, size: int, seed: int) -> Iterator[list[int]]:
    """The first of each epoch: batches of one epoch share no example, so they are not independent."""
    for epoch in count():
        yield next(rows for rows in order(clean.lengths, size, seed, epoch) if len(rows) == size)


def at_random(clean: Examples, size: int, seed: int) -> Iterator[list[int]]:
    """Of any length."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(len(clean), generator=generator)[:size].tolist()


def balanced(clean: Examples, size: int, seed: int) -> Iterator[list[int]]:
    """Equal numbers of every class, of any length."""
    return balanced_rows(clean.labels, size, seed)


def balanced_alike(clean: Examples, size: int, seed: int) -> Iterator[list[int]]:
    """Equal numbers of every class and of like length, as in training."""
    return balanced_rows(clean.labels, size, seed, lengths=clean.lengths)


DRAWS = {
    "of like length, as training batches": of_like_length,
    "at random": at_random,
    "classes in equal numbers": balanced,
    "classes in equal numbers, of like length": balanced_alike,
}


def correlation(scores: torch.Tensor, drawn: Iterator[list[int]], batch: int) -> float:
    """Mean over pairs of clean batches and over training batches of `batch` examples."""
    share = torch.zeros(2, PAIRS, scores.shape[-1])
    for half in share:
        for one, rows in zip(half, drawn, strict=False):
            one[rows] = 1 / len(rows)
    u = (scores @ share.transpose(1, 2)).unflatten(1, (-1, batch))  # (2, BATCHES, n, PAIRS)
    x, y = u - u.mean(2, keepdim=True)
    return float(torch.cosine_similarity(x, y, dim=1).mean())


def one_seed(folder: Path, seed: int) -> Found:
    """Train plainly and look at the scores at every moment."""
    settings, task = base.section(PARAMS, "train", Train), tasks.of(PARAMS)
    model = models.create(folder / ENCODER, task.size, seed).train()
    splits = {}
    for name in ("train", "clean"):
        file = folder / f"{seed}" / f"{name}.parquet"
        table = artifacts.read_parquet(file, ["id", *task.spec.texts, "label"])
        splits[name] = to_examples(table, task, model, settings.max_length, str(file))
    train, clean = splits["train"], splits["clean"]
    total = round(settings.epochs * -(-len(train) // settings.batch))
    rise = settings.warmup * total
    rate = settings.learning_rate
    optimizer = torch.optim.AdamW(
        models.parameter_groups(model, settings.weight_decay), lr=rate[ENCODER] if isinstance(rate, dict) else rate
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    method, drawn, found = Method(task=task, seed=seed), stream(train, settings.batch, seed), {}
    for step in range(max(MOMENTS) + 1):
        if step in MOMENTS:
            scores = products(model, task, train, clean, settings.batch, 1000 * seed + step)
            for how, draw in DRAWS.items():
                for size in SIZES:
                    found[how, step, size] = correlation(scores, draw(clean, size, seed), settings.batch)
        method.backward(model, [[next(drawn)]])
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min((step + 1) / rise, (total - step) / (total - rise + 1), 1.0)
        optimizer.step()
    return found


def written(found: list[Found]) -> str:
    """The table as Markdown."""
    n = len(found)
    means = {key: statistics.mean(one[key] for one in found) for key in found[0]}
    errors = {key: statistics.stdev(one[key] for one in found) / n**0.5 for key in found[0]}
    lines = [
        "| clean batch | m | " + " | ".join(f"{step} steps" for step in MOMENTS) + " |",
        "|---" * (2 + len(MOMENTS)) + "|",
    ]
    for how in DRAWS:
        for m in SIZES:
            cells = [f"{means[how, step, m]:.2f} ± {errors[how, step, m]:.2f}" for step in MOMENTS]
            lines.append(f"| {how} | {m} | " + " | ".join(cells) + " |")
        enough = [next((str(m) for m in SIZES if means[how, step, m] >= ENOUGH), "none") for step in MOMENTS]
        lines.append(f"| | smallest with {ENOUGH} or more | " + " | ".join(f"**{m}**" for m in enough) + " |")
    return "\n".join([
        "# Size of the clean batch", "",
        "Split-half correlation of the scores of `reweight`: how much the scores of the same training examples agree",
        f"between two independent clean batches of m examples (mean ± standard error over n = {n} seeds of data, order",
        f"and initialisation; per seed {BATCHES} training batches, {PAIRS} pairs of clean batches), after as many",
        f"steps of plain training; condition `{CONDITION}`, encoder `{ENCODER}`, all as in params.yaml.", "",
        *lines, "",
        "Made by `python -m benchmarks.clean_batch`.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("CLEAN_BATCH.md"))
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds: found {args.seeds}, expected at least 2")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run_stages(Path(folder), args.seeds)
        found = [one_seed(Path(folder), seed) for seed in range(args.seeds)]
    text = written(found)
    print(text)
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
