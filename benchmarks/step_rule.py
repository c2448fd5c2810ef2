"""The error of dotprod's term against double backward, on every model of the repository, before and after training.

The term H2 G1 is computed in float32 at the distance that the update chooses, and in float64 by double backward under
the same dropout masks, for some pairs of batches in a row, as in training. Models with kinks (ReLU, maximum pooling)
are those for which the distance matters most. Prints a table and writes benchmarks/step_rule.json.

examples:
  python -m benchmarks.step_rule
  python -m benchmarks.step_rule --models bow relu --pairs 20
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradworks import models, tasks
from gradworks.data import synthetic, tokenizer
from gradworks.data.batching import Examples, stream
from gradworks.data.tables import to_examples
from gradworks.methods import Method
from gradworks.spec import Batch

ROOT = Path(__file__).parent.parent
BATCH, LARGE, SEED = 32, 1000.0, 0  # at weight LARGE the term rules
# bounds of the median; one-sided, the best of the shares tried erred by 3e-4 to 1e-3 in float32
SMOOTH, KINKED = {"central": 1e-4, "one_sided": 1e-3}, 1e-2
FORMS = ("central", "one_sided")
ENCODERS: dict[str, dict[str, Any]] = {  # what differs from the default benchmark's encoders
    "bow": {"model": "bow", "lowercase": True, "vocabulary": 1000, "embedding": 64},
    "gru": {},
    "gru-max": {"pooling": "max"},
    "transformer": {},
}
RATES = {"gru": 6e-3, "gru-max": 6e-3, "transformer": 5e-4}  # else 1e-3


class Toy(nn.Module):
    """Token ids to three classes: mean of embeddings and an MLP with ReLU, or a convolution and maximum pooling."""

    def __init__(self, pooled: bool, vocabulary: int, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.convolution = nn.Conv1d(width, width, 3, padding=1) if pooled else None
        act = nn.Tanh if pooled else nn.ReLU
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), act(), nn.Dropout(0.1), nn.Linear(hidden, hidden), act(), nn.Linear(hidden, 3)
        )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x = self.embedding(inputs["input_ids"])
        return self.mlp(x.mean(1) if self.convolution is None else self.convolution(x.transpose(1, 2)).amax(2))


@dataclass
class Found:
    """One row of the table; errors are relative, over the pairs of batches."""

    model: str
    steps: int
    form: str
    median: float
    largest: float
    disagreement: float
    kinks: bool
    target: float


def encoder(name: str, params: dict[str, Any], texts: list[tuple[str, ...]], folder: Path) -> nn.Module:
    """A fresh model as the default benchmark makes it."""
    kind = name.partition("-")[0]
    chosen = {**params["pretrain"].get({"transformer": "uncased"}.get(kind, kind), {}), **ENCODERS[name]}
    chosen.pop("pretrain", None)
    made = models.find(kind)
    options = made.Options(**chosen)
    words = tokenizer.train([one for pair in texts for one in pair], options.vocabulary, options.lowercase)
    made.prepare(options, words, folder, len(texts[0]), None)
    return models.create(folder, 3, SEED)


def build(name: str, params: dict[str, Any]) -> tuple[nn.Module, Examples]:
    """A model and the training split of the default benchmark's data."""
    source = params["fetch"]["synthetic"]
    made = synthetic.generate(source["seed"], {"train": source["rows"]["train"]})["train"]
    task = tasks.of(ROOT / "params.yaml")
    texts = [tuple(one[column] for column in task.spec.texts) for one in made]
    table = pa.Table.from_pylist([{"id": str(i), **one} for i, one in enumerate(made)])
    with tempfile.TemporaryDirectory() as folder:
        model = encoder(name if name in ENCODERS else "transformer", params, texts, Path(folder))
    examples = to_examples(table, task, model, params["train"]["max_length"], "synthetic")
    if name not in ENCODERS:
        torch.manual_seed(SEED)
        model = Toy(name == "max-pool", model.tokenizer.get_vocab_size())
    return model.train(), examples


def trained(model: nn.Module, batches: Iterator[Batch], task: Any, rate: float, steps: int) -> None:
    """Plain training, dropout on."""
    method, optimizer = Method(task=task, seed=SEED), torch.optim.AdamW(model.parameters(), rate)
    for _ in range(steps):
        method.backward(model, [[next(batches)]])
        optimizer.step()


def double(batch: Batch) -> Batch:
    return Batch(batch.task, batch.ids, batch.inputs, batch.labels, batch.mass.double())


def _gradient(method: Method, model: nn.Module, pair: list[Batch]) -> tuple[Tensor, dict[str, float]]:
    report = method.backward(model, [[b] for b in pair])
    zeros = (torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad)
    return torch.cat([g.flatten().double() for g in zeros]), report.log


def measure(name: str, steps: int, model: nn.Module, pairs: list[list[Batch]], task: Any) -> list[Found]:
    """Errors of both forms at these weights."""

    def method(update: Any) -> Method:
        return Method(update=update, task=task, seed=SEED)

    def term(form: str) -> Callable[[nn.Module, list[Batch]], tuple[Tensor, dict[str, float]]]:
        ruled, plain = (
            method({"dotprod": {"weight": LARGE, "limit": None, "form": form}}),
            method({"erm": {"batches": 2}}),
        )
        distances[form] = ruled

        def of(one: nn.Module, pair: list[Batch]) -> tuple[Tensor, dict[str, float]]:
            found, log = _gradient(ruled, one, pair)
            return found - _gradient(plain, one, pair)[0], log

        return of

    distances: dict[str, Method] = {}
    exact, wide = term("exact"), copy.deepcopy(model).double()
    forms = {form: term(form) for form in FORMS}
    errors: dict[str, list[float]] = {form: [] for form in FORMS}
    logged: dict[str, list[float]] = {form: [] for form in FORMS}
    for pair in pairs:
        with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
            expected = exact(wide, [double(b) for b in pair])[0]
        for form, of in forms.items():
            found, log = of(model, pair)
            errors[form].append(float((found - expected).norm() / expected.norm()))
            logged[form] += [log["dotprod_error"]] if "dotprod_error" in log else []
    kinked = name in ("bow", "gru-max", "relu", "max-pool")
    return [
        Found(
            name, steps, form, statistics.median(errors[form]), max(errors[form]),
            statistics.median(logged[form] or [0.0]),
            distances[form].state_dict()["update"]["distances"][form]["kinks"], KINKED if kinked else SMOOTH[form],
        )
        for form in FORMS
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*ENCODERS, "relu", "max-pool"]
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of batches per row (default: 12)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "step_rule.json", help="result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    task, rows = tasks.of(ROOT / "params.yaml"), []
    print(f"{'model':12} {'steps':>5} {'form':10} {'median':>8} {'max':>8} {'logged':>8} {'kinks':>5} {'target':>7}")
    for name in args.models:
        model, examples = build(name, params)
        batches = stream(examples, BATCH, SEED)
        for steps in (0, 200):
            trained(model, batches, task, RATES.get(name, 1e-3), steps)
            pairs = [[next(batches), next(batches)] for _ in range(args.pairs)]
            for one in measure(name, steps, model, pairs, task):
                rows.append(asdict(one))
                print(
                    f"{name:12} {steps:5} {one.form:10} {one.median:8.1e} {one.largest:8.1e} {one.disagreement:8.1e} "
                    f"{one.kinks!s:>5} {one.target:7.0e}{'' if one.median <= one.target else '  missed'}", flush=True,
                )  # fmt: skip
    args.out.write_text(json.dumps({"command": "python -m benchmarks.step_rule", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
