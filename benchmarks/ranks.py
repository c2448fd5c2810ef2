"""What a second process brings: `python -m benchmarks.ranks` writes benchmarks/RANKS.md, in minutes on two cores.

Two gloo processes, each with one of the two micro-batches of a batch, against one process that computes both: the loop
itself (`loop.fit`), one thread a process, plain training. Blocks of steps take turns, in an order that changes, within
the same two processes; while one trains alone the other waits. Efficiency is t1 / (2 * t2), paired block by block. Both
sides end with the same weights, bit for bit, or the benchmark fails.

The clock is that of the wall. Where other programs run too, a process waits for a core: the second figure leaves such
blocks out, and the third is of processor time, of the slower process: as if none ever waited, for a core or the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import texts
from benchmarks.throughput import Classes, Some
from gradworks import loop
from gradworks.cost import hardware, pairs
from gradworks.data.batching import Examples
from gradworks.data.mixture import Part
from gradworks.distributed import World
from gradworks.methods import Method

BATCH, STEPS, SEED = 32, 4, 0
QUIET = 0.02  # of a block's time, that a process may wait for a core
_SCHEDSTAT = Path("/proc/thread-self/schedstat")
GRU = {"model": "gru", "rows": 1000, "embedding": 64, "hidden": 64}  # of the default benchmark
BERTS = {
    "BERT 2x128": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
    "BERT 4x256": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
}
MODELS = (*BERTS, "gru")


def model(name: str, classes: int, vocabulary: int = texts.VOCABULARY) -> nn.Module:
    """Random weights, the same for every call."""
    torch.manual_seed(SEED)
    if name in BERTS:
        from transformers import BertConfig, BertModel

        from gradworks.models.transformer import Transformer

        config = BertConfig(vocab_size=vocabulary, **BERTS[name])
        return Transformer({"pooling": "pooler", "dropout": 0.1}, BertModel(config), None, classes)
    from gradworks.models.gru import Gru, Options

    asked = {"lowercase": True, "vocabulary": GRU["rows"], **GRU}
    options = Options(**{key: one for key, one in asked.items() if key != "rows"}).model_dump()
    return Gru({**options, "texts": 2, "rows": GRU["rows"], "frozen": False}, None, classes)


def encodings(name: str, text: texts.Text) -> list[dict[str, list[int]]]:
    """As the model reads them: the gru reads both texts one by one, with a vocabulary of its own size."""
    if name in BERTS:
        return text.encodings
    made = []
    for one in text.encodings:
        both = list(zip(one["input_ids"], one["token_type_ids"], strict=True))
        made.append({f"text{k}": [i % GRU["rows"] for i, kind in both if kind == k] for k in (0, 1)})
    return made


class Side:
    """Plain training in blocks, by one process or by two."""

    def __init__(self, name: str, text: texts.Text, world: World, steps: int) -> None:
        self.model, self.world, self.steps = model(name, text.classes), world, steps
        ids = [str(i) for i in range(len(text.labels))]
        examples = Examples("text", ids, encodings(name, text), torch.tensor(text.labels), self.model.collate)
        self.mixture = Some({"text": Part(examples, examples)})
        self.settings = loop.Settings(
            batches=steps + 1, batch=BATCH, micro=BATCH // 2, clean_batch=BATCH, learning_rate=1e-4, weight_decay=0.01,
            warmup=0.1, clip=1.0, every=1.0,
        )  # fmt: skip

    def block(self, number: int) -> tuple[float, float, float]:
        """Seconds of a step, share of the block in which this process waited for a core, processor time of a step."""
        self.mixture.begin(number, self.steps)
        world, times, waits, spent = self.world, [], [], []
        ranks = {"reduce": world.sum, "rank": world.rank, "ranks": world.size} if world.size > 1 else {}

        def watch(*_: Any, **__: Any) -> None:
            times.append(time.perf_counter())
            waits.append(waited())
            spent.append(time.process_time())

        loop.fit(self.model, Method(task=Classes(), seed=number, **ranks), self.mixture, self.settings, number,
                 lambda _: {"none": None}, watch=watch, world=world)  # fmt: skip
        took = times[-1] - times[0]
        return took / self.steps, (waits[-1] - waits[0]) / took, (spent[-1] - spent[0]) / self.steps


def waited() -> float:
    """Seconds that this thread has waited for a core; 0 where the system does not say."""
    return int(_SCHEDSTAT.read_text().split()[1]) / 1e9 if _SCHEDSTAT.is_file() else 0.0


def measured(name: str, text: texts.Text, world: World, rounds: int, steps: int) -> list[list[float]]:
    """Of each pair of blocks: seconds of a step alone and of two processes; the longest wait for a core of any, as a
    share; processor seconds of a step alone, and of the slower of two.

    Raises:
        ValueError: the sides ended with other weights.
    """
    alone, both = Side(name, text, World(), steps), Side(name, text, world, steps)
    found = []
    for number in range(-1, rounds):  # the first warms up
        one = two = (0.0, 0.0, 0.0)
        for side in (0, 1) if number % 2 else (1, 0):
            world.any(False)  # the other is here too
            if side:
                two = both.block(number)
            elif world.first:
                one = alone.block(number)
        each = torch.zeros(2, world.size, dtype=torch.float64)
        each[:, world.rank] = torch.tensor(two[1:], dtype=torch.float64)
        world.sum([each])
        wait, spent = each.amax(1).tolist()
        found.append([one[0], two[0], max(one[1], wait), one[2], spent])
    if world.first:
        pairs_of = zip(alone.model.state_dict().values(), both.model.state_dict().values(), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs_of):
            raise ValueError(f"{name}: two processes ended with other weights than one")
    return found[1:]


def row(name: str, found: list[list[float]], parameters: int) -> dict[str, Any]:
    """Efficiency of all blocks, of those in which no process waited for a core, and by processor time."""
    made: dict[str, Any] = {"model": name, "parameters": parameters}
    one, two = (pairs.ratio([block[i] for block in found]).value for i in (0, 1))
    made |= {"one_ms": 1e3 * one, "two_ms": 1e3 * two}
    quiet = [block for block in found if block[2] <= QUIET]
    for key, blocks, i, j in (("all", found, 0, 1), ("quiet", quiet, 0, 1), ("processor", found, 3, 4)):
        if blocks:
            over = pairs.ratio([block[i] / (2 * block[j]) for block in blocks])
            made[key] = {"value": over.value, "low": over.low, "high": over.high, "n": over.n}
    return made


def _shown(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "none"
    between = "" if figure["low"] is None else f", {figure['low']:.2f} to {figure['high']:.2f}"
    return f"{figure['value']:.2f} (n = {figure['n']}{between})"


def written(rows: list[dict[str, Any]], data: str, about: str, steps: int) -> str:
    """The table as Markdown."""
    lines = [
        "# Efficiency of two processes", "",
        f"Two gloo processes on two cores against one with two micro-batches: batches of {BATCH}, AdamW, float32, one",
        f"thread a process; {about}. {data}.", "",
        "Efficiency: t1 / (2 * t2), the median over paired blocks with its 95 % interval; 0.5 is no gain, 1 is twice",
        f"as fast. Blocks of {steps} steps take turns in the same two processes; both sides ended with the same",
        "weights, bit for bit. Where other programs run too, `quiet` are the blocks in which no process waited",
        f"for a core for more than {QUIET:.0%} of the time. By processor time, of the slower process with the",
        "threads of gloo: as if none ever waited. Both do AdamW, clipping and collating in full.", "",
        "| model | parameters | ms a step, one | ms a step, two | efficiency | quiet | by processor time |",
        "|---" * 7 + "|",
    ]  # fmt: skip
    for one in rows:
        lines.append(
            f"| {one['model']} | {one['parameters'] / 1e6:.1f} M | {one['one_ms']:.1f} | {one['two_ms']:.1f} "
            f"| {_shown(one.get('all'))} | {_shown(one.get('quiet'))} | {_shown(one.get('processor'))} |"
        )
    return "\n".join([*lines, "", "Made by `python -m benchmarks.ranks`.", ""])


def work(args: argparse.Namespace) -> None:
    """As one of two processes of torchrun."""
    torch.set_num_threads(1)
    world, text = World.current(), texts.load("MNLI")
    rows = []
    for name in args.models:
        found = measured(name, text, world, args.rounds, args.steps)
        rows.append(row(name, found, sum(p.numel() for p in model(name, text.classes).parameters())))
    if world.first:
        about = f"{hardware.hardware('cpu')}, load average {os.getloadavg()[0]:.0f}"
        args.worker.write_text(json.dumps({"rows": rows, "data": text.data, "about": about}))
    world.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="pairs of blocks; below six there is no interval")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a block (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RANKS.md"))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "benchmarks.ranks"]
        subprocess.run([sys.executable, "-m", *start, *sys.argv[1:], "--worker", str(file)], check=True)
        found = json.loads(file.read_text())
    text = written(found["rows"], found["data"], found["about"], args.steps)
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
