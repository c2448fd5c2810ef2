"""Reweighting and DotProd on a small causal language model: what they cost, and whether they help with bad responses.

Data: orders over words ("second: sun cat red moon" -> "cat") by rules that a program writes; 30 % of the training
responses are swapped among their rows, clean and test rows are right. Model: a Llama of 2 layers of 64, first trained
on other orders, then fine-tuned on the noisy ones: all weights, or LoRA adapters of rank 8. `without noise` trains on
the rows that were not swapped: what a perfect detector could gain. Steps are counted so that all methods see the same
examples. Held-out loss: nats a token, of the model after the last step. Gains are paired by seed, over the row that
sees the same batches.

Costs are of a larger model (4 layers of 128), interleaved with plain training of the same weights by hand.

    python -m benchmarks.causal     writes benchmarks/CAUSAL.md; six minutes on one core
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gradworks import loop, models, statistics, tasks
from gradworks.cost import memory, pairs
from gradworks.data import corruptions, tokenizer
from gradworks.data.batching import Examples, stream
from gradworks.data.mixture import Mixture, Part
from gradworks.data.tables import to_examples
from gradworks.methods import Method
from gradworks.models._shared import files
from gradworks.predict import answers
from gradworks.report.traces import auroc
from gradworks.tasks import TaskSpec

WORDS = [
    "red",
    "blue",
    "green",
    "cat",
    "dog",
    "sun",
    "moon",
    "tree",
    "sea",
    "hill",
    "bird",
    "fish",
    "rain",
    "snow",
    "wind",
    "star",
]
RULES = {
    "first": lambda w: w[:1], "last": lambda w: w[-1:], "copy": lambda w: w, "rest": lambda w: w[1:],
    "second": lambda w: w[1:2], "turn": lambda w: w[::-1], "ends": lambda w: [w[0], w[-1]],
}  # fmt: skip
BEFORE, AFTER = ("first", "last", "copy", "rest"), ("second", "turn", "ends")
TASK = TaskSpec("orders", "causal", ("prompt",), None, ("exact_match",), options={"max_response": 10})
LENGTH, BATCH, CLEAN, ROWS, EPOCHS, SHARE = 24, 32, 32, 1600, 6, 0.3
WEIGHTS = {"full": None, "LoRA": {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": None}}
RATES = {"full": 1e-3, "LoRA": 5e-3}
METHODS: dict[str, tuple[dict[str, Any], str, str]] = {  # slots, what is trained on, the row it is compared with
    "erm": ({}, "noisy", ""),
    "erm, without noise": ({}, "right", "erm"),
    "erm + clean": ({}, "both", "erm"),
    "reweight": ({"weighting": "reweight"}, "noisy", "erm"),
    "erm, 2 batches": ({"update": {"erm": {"batches": 2}}}, "noisy", ""),
    "dotprod": ({"update": {"dotprod": {"weight": 0.1}}}, "noisy", "erm, 2 batches"),
}
COSTS = ("reweight", "dotprod")


def rows(rules: tuple[str, ...], n: int, seed: str) -> pa.Table:
    """n different rows."""
    draw, made = random.Random(seed), {}  # noqa: S311
    while len(made) < n:
        words, rule = draw.sample(WORDS, 4), draw.choice(rules)
        made[f"{rule}: {' '.join(words)}"] = " ".join(RULES[rule](words))
    ids = [f"{seed}-{i}" for i in range(n)]
    return pa.table({"id": ids, "prompt": list(made), "label": list(made.values())})


def folder_of(where: Path, layers: int, width: int, weights: dict[str, Any] | None) -> Path:
    """A new model's folder."""
    kind = models.find("causal")
    sizes = {"layers": layers, "width": width, "heads": 4, "vocabulary": 340, "positions": 64}
    options = kind.Options.model_validate({"model": "causal", **sizes, "lora": weights})
    texts = rows(tuple(RULES), 400, "vocabulary")
    made = tokenizer.byte_level([one for c in ("prompt", "label") for one in texts[c].to_pylist()], 340, False)
    where.mkdir()
    kind.prepare(options, made, where)
    return where


def settings(examples: int, epochs: float, rate: float) -> loop.Settings:
    return loop.Settings(
        batches=round(epochs * examples / BATCH), batch=BATCH, clean_batch=CLEAN, learning_rate=rate, warmup=0.1,
        clip=1.0, every=1.0,
    )  # fmt: skip


def pretrained(where: Path) -> Path:
    """A model that knows other orders, in the folder of all weights and in that of adapters."""
    start = folder_of(where / "new", 2, 64, None)
    kind, model = tasks.kind(TASK), models.create(start, 0, 0)
    train = to_examples(rows(BEFORE, 3 * ROWS, "before"), kind, model, LENGTH, "before")
    fit(model, Method(task=kind, seed=0), train, train, settings(len(train), 10, 2e-3), 0)
    for name, weights in WEIGHTS.items():
        folder = folder_of(where / name, 2, 64, weights)
        files.write_tensors(folder / files.WEIGHTS, model.lm.state_dict())
    return where


def fit(model: Any, method: Method, train: Examples, clean: Examples, plan: loop.Settings, seed: int) -> Any:
    mixture = Mixture({TASK.name: Part(train, clean, clean if method.clean else None)})
    return loop.fit(model, method, mixture, plan, seed, score=lambda _: {"none": None}, name="causal")


def run(start: Path, name: str, weights: str, seed: int) -> dict[str, Any]:
    """Train and test one cell."""
    slots, trained, _ = METHODS[name]
    kind = tasks.kind(TASK)
    right = rows(AFTER, ROWS + 512, f"after{seed}")
    noise = corruptions.Noise(share=SHARE, to="swap")
    table, changes = corruptions.noise(right.slice(0, ROWS), kind, noise, seed, "noise")
    bad = {i for i, _, old, new in changes if old != new}
    if trained == "right":
        table = table.filter(pa.array([i not in bad for i in table["id"].to_pylist()]))
    held = right.slice(ROWS, 128)
    table = pa.concat_tables([table, held]) if trained == "both" else table
    model = models.create(start / weights, 0, seed)
    train, clean, test = (
        to_examples(one, kind, model, LENGTH, "rows") for one in (table, held, right.slice(ROWS + 128))
    )
    method = Method(**slots, task=kind, seed=seed)
    trace = fit(model, method, train, clean, settings(ROWS, EPOCHS, RATES[weights]), seed)
    found = answers(model, kind, test, 512)
    made = {
        "loss": float(found["nll"].sum() / found["tokens"].sum()),
        "exact": kind.score("exact_match", test.truths, found).value,
    }
    if method.clean:
        _, index, weight, score = (torch.cat(column) for column in zip(*trace.weights, strict=True))
        counts = np.bincount(index, minlength=ROWS)
        wrong = np.array([i in bad for i in train.ids])
        for key, values in (("score", score), ("weight", weight)):
            made[key] = auroc(-np.bincount(index, weights=values, minlength=ROWS) / counts, wrong)
    return made


class Side:
    """Steps of plain training by hand, or of a method, on the same batches."""

    def __init__(self, start: Path, name: str) -> None:
        self.kind, self.model = tasks.kind(TASK), models.create(start, 0, 0).train()
        train = to_examples(rows(tuple(RULES), 1024, "cost"), self.kind, self.model, LENGTH, "cost")
        self.method = Method(**METHODS[name][0], task=self.kind, seed=0) if name else None
        self.train, self.clean = stream(train, BATCH, 0), stream(train, CLEAN, 1)
        self.optimizer = torch.optim.AdamW(models.parameter_groups(self.model, 0.0), 1e-4)

    def step(self, batches: int) -> None:
        drawn = [next(self.train) for _ in range(batches)]
        if self.method is None:
            self.optimizer.zero_grad(set_to_none=True)
            for batch in drawn:
                losses = self.kind.loss(self.kind.outputs(self.model, batch), batch)
                ((losses * batch.mass).sum() / batch.mass.sum() / batches).backward()
        else:
            clean = [[next(self.clean)] for _ in drawn] if self.method.clean else ()
            self.method.backward(self.model, [[batch] for batch in drawn], clean)
        self.optimizer.step()


def _steps(start: Path, name: str, batches: int, count: int = 4) -> None:
    torch.set_num_threads(1)
    side = Side(start, name)
    for _ in range(count):
        side.step(batches)


def _first(start: Path, name: str, batches: int) -> None:
    _steps(start, name, batches, 1)


def cost(start: Path, name: str) -> dict[str, Any]:
    """Ratio of a step's time to that of plain training on as many batches, and of the peaks of memory."""
    batches = 2 if "dotprod" in name else 1
    sides = Side(start, ""), Side(start, name)
    for side in sides:
        for _ in range(10):  # what methods measure in their first steps alone
            side.step(batches)
    found = pairs.compare(*(lambda _, s=side: s.step(batches) for side in sides), "cpu", 25.0, (15, 40)).ratio
    plain, method = (memory.peak(_steps, _first, (start, one, batches), "cpu", "fork") for one in ("", name))
    return {"ratio": found.value, "low": found.low, "high": found.high, "pairs": found.n, "memory": method / plain}


def keep(path: Path, key: str, make: Any) -> Any:
    """What a file of JSON lines has under a key; else it is made and added."""
    known = dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}
    if key not in known:
        began = time.process_time()
        known[key] = make()
        with path.open("a") as file:
            file.write(json.dumps([key, known[key]]) + "\n")
        print(f"{key}: {time.process_time() - began:.0f} s, {known[key]}", flush=True)
    return known[key]


def with_interval(values: list[float], digits: int = 3) -> str:
    """Mean and 95 % t interval over seeds; none where all are equal."""
    zero = statistics.paired(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    if zero.low is None:
        return f"{zero.mean:.{digits}f}"
    return f"{zero.mean:.{digits}f} [{zero.low:.{digits}f}, {zero.high:.{digits}f}]"


Found, Costs = dict[tuple[str, str, int], dict[str, Any]], dict[tuple[str, str], dict[str, Any]]


def table(found: Found, costs: Costs, seeds: int) -> str:
    """The tables as Markdown."""
    lines = []
    for weights in WEIGHTS:
        lines += [f"## {weights if weights == 'LoRA' else 'All weights'}", "", "| method | held-out loss | gain in loss | exact match | AUROC of scores | AUROC of weights |", "|---|---|---|---|---|---|"]  # fmt: skip  # noqa: E501
        for name, (_, _, control) in METHODS.items():
            own = [found[weights, name, seed] for seed in range(seeds)]
            cells = [with_interval([one["loss"] for one in own])]
            if control:
                ours, theirs = ({s: found[weights, n, s]["loss"] for s in range(seeds)} for n in (control, name))
                gain = statistics.paired(ours, theirs)
                cells.append(f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over {control}")
            else:
                cells.append("")
            cells.append(with_interval([one["exact"] for one in own]))
            cells += [with_interval([one[k] for one in own]) if k in own[0] else "" for k in ("score", "weight")]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["## What a step costs", "", "| weights | method | time, over plain on the same batches | pairs | peak memory, over plain |", "|---|---|---|---|---|"]  # fmt: skip  # noqa: E501
    for (weights, name), one in costs.items():
        lines.append(
            f"| {weights} | {name} | {one['ratio']:.2f} [{one['low']:.2f}, {one['high']:.2f}] | {one['pairs']} | "
            f"{one['memory']:.2f} |"
        )
    return "\n".join(lines)


def answer(found: Found, seeds: int) -> list[str]:
    """What the intervals allow to say, a line each."""
    lines = []
    for weights in WEIGHTS:
        for name, (_, trained, control) in METHODS.items():
            own = [found[weights, name, seed] for seed in range(seeds)]
            if control and trained == "noisy":
                ours, theirs = ({s: found[weights, n, s]["loss"] for s in range(seeds)} for n in (control, name))
                gain = statistics.paired(ours, theirs)
                said = (
                    ("gains" if gain.mean > 0 else "loses") if gain.certain else "neither gains nor loses for certain"
                )
                lines.append(f"- {weights}, {name}: {said} over {control}.")
            if "score" in own[0]:
                above = statistics.paired(
                    {s: one["score"] for s, one in enumerate(own)}, dict.fromkeys(range(seeds), 0.5)
                )
                said = "find" if above.certain and above.mean > 0 else "do not find for certain"
                lines.append(f"- {weights}, {name}: its scores {said} swapped responses, AUROC {above.mean + 0.5:.2f}.")
    return lines


def page(found: Found, costs: Costs, seeds: int) -> str:
    return "\n".join([
        "# Reweighting and DotProd on a small language model", "",
        "A causal model (Llama, 2 layers of 64) that knows some orders over words is fine-tuned on others;",
        f"{SHARE:.0%} of the {ROWS} training responses are swapped among their rows. {EPOCHS} epochs in batches of",
        f"{BATCH}; reweight has 128 clean rows, in batches of {CLEAN}. Mean over {seeds} seeds of data, order and",
        "adapters, with 95 % t interval; a gain is paired by seed, and positive where the loss is lower. Held-out",
        "loss: nats a token, 384 rows; exact match by greedy decoding. AUROC: chance that a swapped row has a lower",
        "score, or weight, than another row, each a mean over the run.",
        "`without noise` trains on the rows that were not swapped, `erm + clean` on the clean rows too.", "",
        *answer(found, seeds), "", table(found, costs, seeds), "",
        "Times: median over interleaved pairs of steps in one process and thread, with 95 % interval, on a model of 4",
        "layers of 128; memory in a process a side. With LoRA both sides train the adapters alone.", "",
        "Made by `python -m benchmarks.causal`.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("CAUSAL.md"))
    parser.add_argument("--kept", type=Path, help="JSON lines of what is done, to go on from")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds: found {args.seeds}, expected at least 2")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder, kept = Path(temporary), args.kept or Path(temporary) / "kept.jsonl"
        pretrained(folder)
        large = {name: folder_of(folder / f"large {name}", 4, 128, weights) for name, weights in WEIGHTS.items()}
        costs = {
            (weights, name): keep(kept, f"cost {weights} {name}", lambda w=weights, n=name: cost(large[w], n))
            for weights in WEIGHTS for name in COSTS
        }  # fmt: skip
        found = {
            (w, n, s): keep(kept, f"{w} {n} {s}", lambda w=w, n=n, s=s: run(folder, n, w, s))
            for s in range(args.seeds) for w in WEIGHTS for n in METHODS
        }  # fmt: skip
    args.out.write_text(page(found, costs, args.seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
