"""`python -m benchmarks.plain`: plain training with gradworks over the same by hand, on every model.

Writes PLAIN.md after every row. Models: those of the cost table, and those of this repository at the sizes of the
default benchmark.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.models import MODELS, ON_CPU, Classification, batch
from gradworks import Method, loop, models
from gradworks.base import read_yaml
from gradworks.base.artifacts import atomic_file
from gradworks.cost.hardware import hardware
from gradworks.cost.pairs import Ratio, ratio
from gradworks.learning_rate import linear
from gradworks.spec import Batch, Outputs

FOLDER = Path(__file__).parent
# of params.yaml; its bow is none of the default benchmark's
ENCODERS = {"gru, default benchmark": "gru", "transformer, default benchmark": "uncased", "bow, small": None}
BOW = {"model": "bow", "vocabulary": 1000, "embedding": 64, "hidden": 64}
NAMES = (*ENCODERS, *ON_CPU)
SIDES = ("Method.backward", "loop.fit")
N, POOL, LARGEST, RATE = 32, 8, 1.0, 1e-4
WARM_UP, LEAST = 3, 15  # blocks
BLOCK = 0.1  # seconds of one side, about
BOUND = 1.03

HEAD = """# What plain training costs with gradworks

Generated: `python -m benchmarks.plain`

Time over that of a loop of bare torch on the same batches, which are made beforehand: the median over pairs of blocks,
with its 95 % interval, by process time on one thread; the blocks of the two sides alternate in one process.

`Method.backward`: `Method().backward(...)` and fused AdamW, against the forward pass, `.backward()` of the mean loss
and fused AdamW. It also computes the norm of the gradient for the log, which reads all of it once: on a model that is
little else than an embedding with dense gradients that is most of what it costs.

`loop.fit`: the whole training loop, with its log, checks, clipping and schedule, against the same by hand:
`.backward()`, `clip_grad_norm_`, the learning rate, fused AdamW. Here the norm is wanted on both sides.
"""


class Mapped(Classification):
    """For models that read a mapping of tensors."""

    def outputs(self, model: nn.Module, batch: Batch, embedded: Any = None) -> Outputs:
        return (model(batch.inputs),)


@dataclass
class Made:
    """One model's: what builds it, its task and its batches."""

    build: Callable[[], nn.Module]
    task: Classification
    batches: list[Batch]


def made(name: str, folder: Path) -> Made:
    """The model of that name; an encoder is written to `folder`."""
    if name in MODELS:
        sizes = MODELS[name]
        return Made(sizes.build, Classification(), [batch(sizes, N, 100 + i) for i in range(POOL)])
    key = ENCODERS[name]
    section = BOW if key is None else read_yaml(FOLDER.parent / "params.yaml")["pretrain"][key]
    section = {one: value for one, value in section.items() if one != "pretrain"}
    kind = models.find(section["model"])
    kind.prepare(kind.Options(**section), _tokenizer(section["vocabulary"]), folder, texts=2, vectors=None)
    model = models.create(folder, 3, 0)
    return Made(lambda: models.create(folder, 3, 0).train(), Mapped(), _pairs(model, section["vocabulary"]))


def _tokenizer(size: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(size - 2))]
    found = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return found


def _pairs(model: nn.Module, size: int) -> list[Batch]:
    """Pairs of texts of 8 to 13 words, about as long as those of the default benchmark."""
    g = torch.Generator().manual_seed(0)

    def text() -> str:
        length = int(torch.randint(8, 14, (), generator=g))
        return " ".join(f"w{i}" for i in torch.randint(size - 2, (length,), generator=g).tolist())

    found = []
    for i in range(POOL):
        inputs = model.collate(model.encode([(text(), text()) for _ in range(N)], 64))
        labels = torch.randint(3, (N,), generator=g)
        found.append(Batch("t", [f"{i}-{k}" for k in range(N)], inputs, labels, torch.ones(N)))
    return found


class Bare:
    """Plain training as one writes it by hand; `total`: steps of a schedule with clipping, None = neither."""

    def __init__(self, one: Made, total: int | None = None):
        self.model, self._one, self._total, self._steps = one.build(), one, total, 0
        if total is None:
            self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, fused=True)
        else:
            groups = models.parameter_groups(self.model, 0.0)
            self._optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)

    def steps(self, count: int) -> None:
        for _ in range(count):
            one, task = self._one.batches[self._steps % POOL], self._one.task
            self._optimizer.zero_grad()
            task.loss(task.outputs(self.model, one), one).mean().backward()
            if self._total is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST)
                for group in self._optimizer.param_groups:
                    group["lr"] = RATE * linear(self._steps, self._total, 0.1)
            self._optimizer.step()
            self._steps += 1


class OfMethod:
    """The same with `Method.backward`."""

    def __init__(self, one: Made):
        self.model, self._one, self._steps = one.build(), one, 0
        self._method = Method(task=one.task)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, fused=True)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self._method.backward(self.model, [[self._one.batches[self._steps % POOL]]])
            self._optimizer.step()
            self._steps += 1


class Premade:
    """A mixture, as `loop.fit` reads one, whose batches are there."""

    parts = ("one task",)

    def __init__(self, batches: Sequence[Batch]):
        self._batches = batches

    def draws(self, *_: Any) -> Premade:
        return self

    def step(self, number: int, _: Any = None) -> tuple[list[Batch], list[Batch]]:
        return [self._batches[number % POOL]], []

    def rows(self) -> list[tuple[str, str]]:
        return [(one.task, key) for one in self._batches for key in one.ids]


def _timed(run: Callable[[int], None], count: int) -> float:
    start = time.process_time()
    run(count)
    return time.process_time() - start


def of_method(one: Made, rounds: int) -> Ratio:
    """Blocks of `Method.backward` over blocks by hand."""
    bare, ours = Bare(one), OfMethod(one)
    count = _block(bare)
    found = []
    for i in range(WARM_UP + rounds):
        first, second = (bare, ours) if i % 2 else (ours, bare)
        took = {id(side): _timed(side.steps, count) for side in (first, second)}
        found.append(took[id(ours)] / took[id(bare)])
    return ratio(found[WARM_UP:])


def of_loop(one: Made, rounds: int) -> Ratio:
    """Blocks of steps of one run of `loop.fit` over blocks by hand, which are made between two of its steps."""
    count = _block(Bare(one))
    total = count * (WARM_UP + rounds)
    bare, found, state = Bare(one, total), [], {"steps": 0, "start": 0.0}

    def watch(*_: Any, **__: Any) -> None:
        state["steps"] += 1
        if state["steps"] % count == 0:
            ours = time.process_time() - state["start"]
            found.append(ours / _timed(bare.steps, count))
            state["start"] = time.process_time()

    settings = loop.Settings(total, N, N, RATE, warmup=0.1, clip=LARGEST, every=1.0)
    state["start"] = time.process_time()
    model = one.build()
    loop.fit(model, Method(task=one.task), Premade(one.batches), settings, 0, lambda _: {"none": None}, watch=watch)
    return ratio(found[WARM_UP:])


def _block(bare: Bare) -> int:
    bare.steps(2)
    return max(1, round(BLOCK / (_timed(bare.steps, 3) / 3)))


def page(rows: dict[str, dict[str, Ratio]]) -> str:
    """PLAIN.md."""
    lines = [HEAD, f"{hardware('cpu')}. In bold what is above {BOUND}.\n", f"| model | {' | '.join(SIDES)} | pairs |"]
    lines.append("|---|" + "---:|" * (len(SIDES) + 1))
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(_cell(row[side]) for side in SIDES)} | {row[SIDES[0]].n} |")
    return "\n".join(lines) + "\n"


def _cell(one: Ratio) -> str:
    text = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
    return f"**{text}**" if one.value > BOUND else text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES, metavar="MODEL", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=60, help="pairs of blocks of each comparison")
    parser.add_argument("--out", type=Path, default=FOLDER / "PLAIN.md", metavar="FILE")
    args = parser.parse_args()
    if args.rounds < LEAST:
        parser.error(f"--rounds: found {args.rounds}, expected at least {LEAST}")
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Ratio]] = {}
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            one = made(name, Path(folder))
            rows[name] = {"Method.backward": of_method(one, args.rounds), "loop.fit": of_loop(one, args.rounds)}
        print(name, {side: _cell(found) for side, found in rows[name].items()}, flush=True)
        with atomic_file(args.out) as temporary:
            temporary.write_text(page(rows))
