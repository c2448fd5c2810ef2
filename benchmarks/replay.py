"""What the check costs that a batch gives the same twice (`gradworks/methods/_shared/replay.py`), as a share of a run.

Each method is run with the check at its default interval; the CPU time spent in the check (the look at every step
whether one is due, and the checks themselves, the first of which is cold) over the CPU time of all the rest.

    python -m benchmarks.replay     prints the table and writes benchmarks/REPLAY.md: four minutes on one core
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import nn

from benchmarks.models import CLASSES, Classification, Sizes, batch
from gradworks import Method, models
from gradworks.base.artifacts import atomic_file
from gradworks.data import tokenizer
from gradworks.methods._shared.replay import EVERY
from gradworks.spec import Batch

FILE, STEPS, POOL = Path(__file__).parent / "REPLAY.md", 401, 4
EXAMPLES, WORDS, VOCABULARY, BOUND = 32, 16, 1000, 0.01
ENTRIES: dict[str, dict[str, Any]] = {
    "sam": {"update": "sam"},
    "rdrop": {"objective": "rdrop"},
    "reweight, logit_fd": {"weighting": {"reweight": {"backend": "logit_fd"}}},
    "reweight, auto": {"weighting": "reweight"},
    "dotprod": {"update": "dotprod"},
}
OWN = {  # of params.yaml, and the cheapest step there is
    "bow": {"model": "bow", "embedding": 64},
    "gru": {"model": "gru", "embedding": 64, "hidden": 64},
    "transformer": {"model": "transformer", "layers": 2, "width": 64, "heads": 2},
}
BERT = Sizes("bert", VOCABULARY, 64, layers=2, heads=2)  # transformers' own, with another head
TABLE = f"""# The check that a batch gives the same twice

Its share of the CPU time of a run of {{}} steps with the default interval, {EVERY}: batches of {EXAMPLES} texts, one
thread. At most {BOUND:.0%} is asked for. Made by `python -m benchmarks.replay`.

| model | method | checks | share |
|---|---|---|---|
"""


def own(options: dict[str, Any], n: int) -> tuple[nn.Module, list[Batch]]:
    """A model of gradworks', and batches of pairs of texts for it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY))]
    kind = models.find(options["model"])
    with tempfile.TemporaryDirectory() as folder:
        kind.prepare(kind.Options(**options), tokenizer.wordpiece(words, lowercase=True), Path(folder), 2, None)
        model = models.create(Path(folder), CLASSES, 0)
    g, found = torch.Generator().manual_seed(n), []
    for _ in range(2 * POOL):
        drawn = torch.randint(VOCABULARY, (n, 2, WORDS), generator=g).tolist()
        texts = [tuple(" ".join(f"w{i}" for i in text) for text in pair) for pair in drawn]
        inputs, labels = model.collate(model.encode(texts, 3 * WORDS)), torch.randint(CLASSES, (n,), generator=g)
        found.append(Batch("pairs", [str(i) for i in range(n)], inputs, labels, torch.ones(n)))
    return model, found


def made(name: str, n: int) -> tuple[nn.Module, list[Batch]]:
    """A model, and batches for it."""
    if name in OWN:
        return own(OWN[name], n)
    return BERT.build(), [batch(BERT, n, seed, length=2 * WORDS) for seed in range(2 * POOL)]


def row(name: str, entry: str, steps: int) -> str:
    """A run of one method on one model."""
    (model, batches), (_, clean) = made(name, EXAMPLES), made(name, EXAMPLES // 4)
    method = Method(**ENTRIES[entry], task=Classification())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    check, found, inside = method._replay.check, 0, 0.0

    def timed(*args: Any) -> int:
        nonlocal found, inside
        begun = time.process_time()
        examples = check(*args)
        inside += time.process_time() - begun
        found += examples > 0
        return examples

    method._replay.check = timed
    begun = time.process_time()
    for i in range(steps):
        of = slice(2 * (i % POOL), 2 * (i % POOL) + method.batches)
        method.backward(model, [[b] for b in batches[of]], [[b] for b in clean[of]] if method.clean else [])
        optimizer.step()
    share = inside / (time.process_time() - begun - inside)
    return f"| {name} | {entry} | {found} | {share:.2%}{' more than asked for' * (share > BOUND)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--models", nargs="+", choices=("bert-2x64", *OWN), default=("bert-2x64", *OWN))
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    text = TABLE.format(args.steps)
    for name in args.models:
        for entry in ENTRIES:
            text += (line := row(name, entry, args.steps))
            print(line, end="", flush=True)
    with atomic_file(args.out) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
