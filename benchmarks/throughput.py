"""How many examples a second plain training takes, beside Hugging Face's Trainer.

Four sides train a BERT of 4 layers and width 256, drawn at random, with the same AdamW, clipping, learning rates and
number of examples: the loop of gradworks as its defaults have it, and the Trainer as it pads to the longest length, to
the longest of each batch, and with `group_by_length`. They take turns in one process, on one core, in an order that
changes. A turn is a handful of the batches of an epoch, drawn evenly over the lengths of the side's own batches: the
time of an epoch without the whole of it. Each side's batches are those of its own sampler. The clock leaves out the
time in which the process waits for a core (gradworks/cost/pairs.py); collating and the optimizer are in.

Texts: pairs of MNLI, sentences of SST-5, questions with their paragraphs of SQuAD 1.1, of GRADWORKS_DATA; without it
random tokens of like lengths, and the table says so.

    python -m benchmarks.throughput     writes benchmarks/throughput.json and THROUGHPUT.md; 15 minutes on one core
    python -m benchmarks.throughput --device cuda --peak-tflops 989     BERT base in bf16, with model FLOPs utilisation
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import texts, trainer
from gradworks import loop
from gradworks.base.size import WINDOW
from gradworks.cost import hardware, pairs
from gradworks.data.batching import Examples, order
from gradworks.data.mixture import Mixture, Part
from gradworks.methods import Method
from gradworks.models.transformer import Transformer
from gradworks.spec import Batch

OURS, BATCH = "gradworks", trainer.BATCH
RATE, DECAY, WARMUP = 1e-4, 0.01, 0.1
SIZES = {  # layers, width, heads, by device
    "cpu": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "cuda": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
Turn = Callable[[int], tuple[float, list[int]]]  # its number -> seconds, rows
Row = dict[str, Any]


class Classes:
    """The task of the loop: cross entropy."""

    def outputs(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor]:
        return (model(batch.inputs),)

    def loss(self, outputs: tuple[torch.Tensor], batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs[0], batch.labels, reduction="none")


class Some(Mixture):
    """A mixture of one part that gives some batches of its own epoch, as `trainer.picked` draws them."""

    def draws(self, *_: Any) -> Some:
        return self

    def begin(self, turn: int, count: int) -> list[int]:
        """The rows of a turn that is about to begin."""
        (part,) = self.parts.values()
        made = [rows for rows in order(part.train.tokens, BATCH, turn, 0, self.window) if len(rows) == BATCH]
        chosen = trainer.picked(made, part.train.lengths, turn, count)
        object.__setattr__(self, "chosen", chosen)
        return [i for rows in chosen[1:] for i in rows]

    def step(self, number: int, _: Any = None) -> tuple[list[Batch], list[Batch]]:
        (part,) = self.parts.values()
        return [part.train.batch(self.chosen[number])], []


def config(text: texts.Text, device: str) -> Any:
    """Of the model of all sides."""
    from transformers import BertConfig

    return BertConfig(vocab_size=texts.VOCABULARY, num_labels=text.classes, **SIZES[device])


def ours(text: texts.Text, window: int, device: str, count: int, now: Callable[[], float]) -> Turn:
    """The side of gradworks: `loop.fit` with the plain method."""
    from transformers import BertModel

    torch.manual_seed(0)
    made = Transformer({"pooling": "pooler", "dropout": 0.1}, BertModel(config(text, device)), None, text.classes)
    model, ids = made.to(device), [str(i) for i in range(len(text.labels))]
    examples = Examples("text", ids, text.encodings, torch.tensor(text.labels), made.collate).to(device)
    mixture = Some({"text": Part(examples, examples)}, window=window)
    settings = loop.Settings(
        batches=count + 1, batch=BATCH, clean_batch=BATCH, learning_rate=RATE, weight_decay=DECAY, warmup=WARMUP,
        clip=1.0, every=1.0, bf16=device != "cpu",
    )  # fmt: skip

    def turn(number: int) -> tuple[float, list[int]]:
        rows, times = mixture.begin(number, count), []
        loop.fit(
            model, Method(task=Classes(), seed=number), mixture, settings, number, lambda _: {"none": None},
            watch=lambda *_, **__: times.append(now()),
        )  # fmt: skip
        return times[-1] - times[0], rows

    return turn


def theirs(text: texts.Text, mode: str, device: str, count: int, now: Callable[[], float]) -> Turn:
    """A side of the Trainer."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(config(text, device)).to(device)
    data = trainer.padded(text.encodings, text.labels, text.longest if mode == trainer.MODES[0] else 0)
    options = {"learning_rate": RATE, "weight_decay": DECAY, "warmup_steps": WARMUP, "max_grad_norm": 1.0}
    return functools.partial(
        lambda number: trainer.train(model, data, mode, number, count, now, device, **options),
    )


def work(text: texts.Text, rows: list[int], device: str) -> float:
    """Operations of training on these examples without their padding: three times those of the products of a forward
    pass, a multiplication and an addition counting two.
    """
    layers, width, inner = (SIZES[device][k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    total = 0.0
    for i in rows:
        n = len(text.encodings[i]["input_ids"])
        total += layers * (2 * n * (4 * width**2 + 2 * width * inner) + 4 * n**2 * width) + 2 * width**2
    return 3 * total


def measured(text: texts.Text, window: int, rounds: int, count: int, device: str, peak: float | None) -> list[Row]:
    """A row of each side."""
    now = pairs.clock(device)
    sides: dict[str, Turn] = {OURS: ours(text, window, device, count, now)}
    for mode in trainer.MODES:
        sides[mode.format(text.longest)] = theirs(text, mode, device, count, now)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tokens, operations = dict.fromkeys(sides, 0), dict.fromkeys(sides, 0.0)
    for number in range(rounds):
        names = list(sides)
        for name in names[number % 4 :] + names[: number % 4]:
            took, rows = sides[name](number)
            seconds[name].append(took)
            tokens[name] += sum(len(text.encodings[i]["input_ids"]) for i in rows)
            operations[name] += work(text, rows, device)
    made = []
    for name in sides:
        total, n = sum(seconds[name]), rounds * count * BATCH
        over = pairs.ratio([b / a for a, b in zip(seconds[OURS], seconds[name], strict=True)])
        rates = pairs.ratio([count * BATCH / took for took in seconds[name]])
        row: Row = {"text": text.name, "side": name, "data": text.data, "longest": text.longest}
        row |= {"examples_per_second": n / total, "tokens_per_second": tokens[name] / total, "n": rounds, "examples": n}
        row |= {"low": rates.low, "high": rates.high}
        row["gradworks_over"] = {"value": over.value, "low": over.low, "high": over.high}
        if peak:
            row["model_flops_utilisation"] = operations[name] / total / peak
        made.append(row)
    return made


def written(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows, several = found["rows"], "model_flops_utilisation" in found["rows"][0]
    heads = ["text", "side", "examples/s", "real tokens/s", "gradworks is × as fast"] + ["MFU"] * several
    lines = [
        "# Throughput of plain training", "",
        f"BERT {found['model']}, batches of {BATCH}, AdamW, {found['precision']}; {found['hardware']}.", "",
        f"`gradworks`: the loop with its defaults and `train.window: {found['window']}`. The others: the modes of",
        "Hugging Face's Trainer. All take turns in one process. Real tokens are those that are no padding. Ratios:",
        "median over the turns, with its 95 % interval.", "",
        f"| {' | '.join(heads)} |", "|---" * len(heads) + "|",
    ]  # fmt: skip
    for row in rows:
        over = row["gradworks_over"]
        between = "" if over["low"] is None else f" ({over['low']:.2f} to {over['high']:.2f})"
        cells = [row["text"], row["side"], f"{row['examples_per_second']:.1f}", f"{row['tokens_per_second']:.0f}"]
        cells.append("" if row["side"] == OURS else f"{over['value']:.2f}{between}")
        if several:
            cells.append(f"{row['model_flops_utilisation']:.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    data = dict.fromkeys(f"{row['text']}: {row['data']}, cut at {row['longest']} tokens" for row in rows)
    n = f"n = {rows[0]['n']} turns, {rows[0]['examples']} examples of each side. {'; '.join(data)}."
    return "\n".join([*lines, "", n, "", "Made by `python -m benchmarks.throughput`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side; below six there is no interval")
    parser.add_argument("--batches", type=int, default=8, help="of a turn")
    parser.add_argument("--window", type=int, default=WINDOW, help="`train.window` of gradworks (default: %(default)s)")
    parser.add_argument("--texts", nargs="+", choices=list(texts.LONGEST), default=list(texts.LONGEST))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 peak of the card, for model FLOPs utilisation")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("throughput.json"))
    args = parser.parse_args()
    if args.device == "cuda" and not args.peak_tflops:
        parser.error("--device cuda: --peak-tflops is missing")

    torch.set_num_threads(1)
    layers, width = (SIZES[args.device][key] for key in ("num_hidden_layers", "hidden_size"))
    found: dict[str, Any] = {"model": f"{layers}x{width}", "precision": "float32" if args.device == "cpu" else "bf16"}
    found["window"] = args.window
    found["hardware"] = hardware.hardware(args.device)
    peak, found["rows"] = args.peak_tflops and 1e12 * args.peak_tflops, []
    for name in args.texts:
        found["rows"] += measured(texts.load(name), args.window, args.rounds, args.batches, args.device, peak)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        args.out.with_name("THROUGHPUT.md").write_text(written(found), encoding="utf-8")
    print(written(found))


if __name__ == "__main__":
    main()
