"""How large the perturbation of `smart` should be: R_s and its share of the gradient against epsilon (B14).

Data, models and training are those of the default benchmark (params.yaml): the condition `clean`, the encoders `gru`
and `uncased` (a small transformer), plain training; dropout is on, as in training. R_s is also shown under own dropout
masks, where it should not tend to zero with epsilon, and for noise in place of the attack (`r3f`). Training with the
term makes a model smooth, so the share is also shown while `smart` trains. The stages that make the data are run into a
temporary folder; two to three minutes on one core.

    python -m benchmarks.smart_epsilon     prints the table and writes benchmarks/SMART_EPSILON.md
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from gradworks import base, models, tasks
from gradworks.base import artifacts
from gradworks.cell import Train
from gradworks.data.batching import stream
from gradworks.data.tables import to_examples
from gradworks.methods import Method

PARAMS = Path("params.yaml")
CONDITION, ENCODERS, SEEDS = "clean", {"gru": "gru", "uncased": "transformer"}, (0, 1)
EPSILONS = (0.001, 0.01, 0.1, 0.3, 0.5, 1.0)
MOMENTS = (20, 200)  # steps of plain training
BATCHES = 3  # of each seed
TRAINED = (0.1, 0.3)  # epsilons with which `smart` trains, its other options at their defaults, for 201 steps
ROWS = {  # column -> objective
    "shared masks": lambda epsilon: {"smart": {"proximal": 0.0, "epsilon": epsilon}},
    "own masks": lambda epsilon: {"smart": {"proximal": 0.0, "epsilon": epsilon, "masks": "own"}},
    "noise alone": lambda epsilon: {"r3f": {"epsilon": epsilon}},
}


def run_stages(folder: Path) -> None:
    """Source, splits, encoders."""

    def run(name: str, *arguments: object) -> None:
        command = [sys.executable, "-m", f"components.{name}", "--params", str(PARAMS), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    fetched = folder / "fetch"
    run("fetch", "--source", "synthetic", "--out", fetched / "synthetic")
    run("corrupt", "--condition", CONDITION, "--seed", 0, "--data", fetched, "--out", folder / "data")
    for encoder in ENCODERS:
        run("pretrain", "--encoder", encoder, "--data", fetched, "--out", folder / encoder)


class Run:
    """Training of one encoder and seed, a step at a time."""

    def __init__(self, folder: Path, encoder: str, seed: int, objective: object = "supervised"):
        self.settings, task = base.section(PARAMS, "train", Train), tasks.of(PARAMS)
        self.model = models.create(folder / encoder, task.size, seed).train()
        file = folder / "data" / "train.parquet"
        table = artifacts.read_parquet(file, ["id", *task.spec.texts, "label"])
        train = to_examples(table, task, self.model, self.settings.max_length, str(file))
        rate = self.settings.learning_rate
        groups = models.parameter_groups(self.model, self.settings.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=rate[ENCODERS[encoder]] if isinstance(rate, dict) else rate)
        self.task, self.drawn = task, stream(train, self.settings.batch, seed)
        self.method = Method(objective, task=self.task, seed=seed)

    def step(self) -> dict[str, float]:
        """The log of one optimizer step."""
        log = self.method.backward(self.model, [[next(self.drawn)]]).log
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or float("inf"))
        self.optimizer.step()
        return log


def measure(folder: Path, encoder: str, seed: int) -> dict[tuple[int, float, str], list[tuple[float, float]]]:
    """(steps of plain training, epsilon, column) -> R_s and share of each batch."""
    run, found = Run(folder, encoder, seed), {}
    for step in range(max(MOMENTS) + 1):
        for k, batch in enumerate(next(run.drawn) for _ in range(BATCHES * (step in MOMENTS))):
            for epsilon in EPSILONS:
                for name, objective in ROWS.items():
                    # a new method measures shares in its first step; its seed is that of the batch's masks
                    one = Method(objective(epsilon), task=run.task, seed=BATCHES * seed + k)
                    log = one.backward(run.model, [[batch]]).log
                    value = log["smoothness"], log["smoothness_share"]
                    found.setdefault((step, epsilon, name), []).append(value)
        run.step()
    return found


def trained(folder: Path, encoder: str, epsilon: float) -> list[tuple[float, float]]:
    """Of each seed: means of both shares over the steps in which `smart` measured them while it trained."""
    means = []
    for seed in SEEDS:
        run = Run(folder, encoder, seed, {"smart": {"epsilon": epsilon}})
        logs = [log for log in (run.step() for _ in range(201)) if "smoothness_share" in log]
        means.append(tuple(statistics.mean(log[f"{n}_share"] for log in logs) for n in ("smoothness", "proximal")))
    return means


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.1e} ± {statistics.stdev(values) / len(values) ** 0.5:.0e}"


def written(
    found: dict[str, dict[tuple[int, float, str], list[tuple[float, float]]]],
    training: dict[tuple[str, float], list[tuple[float, float]]],
) -> str:
    """The tables as Markdown."""
    n = BATCHES * len(SEEDS)
    made = [
        "# Size of the perturbation of `smart`", "",
        "R_s and the size of its gradient over that of the loss (factor 1), against epsilon, a share of the root mean",
        f"square of the embeddings; mean ± standard error over n = {n} batches ({BATCHES} of each of {len(SEEDS)}",
        "seeds of order and initialisation), dropout on, after as many steps of plain training as in params.yaml.",
        "`own masks`: dropout masks of their own for the adversarial pass. `noise alone`: `r3f`.", "",
    ]  # fmt: skip
    for encoder, values in found.items():
        for step in MOMENTS:
            made += [f"{ENCODERS[encoder]}, {step} steps:", ""]
            heads = ["epsilon", *(f"R_s, {name}" for name in ROWS), *(f"share, {name}" for name in ROWS)]
            made += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
            for epsilon in EPSILONS:
                cells = [[v[i] for v in values[step, epsilon, name]] for i in (0, 1) for name in ROWS]
                made.append(f"| {epsilon:g} | {' | '.join(map(_mean, cells))} |")
            made.append("")
    made += [
        "While `smart` trains, 201 steps, the means over steps 0, 2, 8, 32 and 200; mean ± standard error over",
        "",
    ]
    made[-2] += f" n = {len(SEEDS)} seeds:"
    made += ["| model | epsilon | share of R_s | share of D |", "|---|---|---|---|"]
    for (encoder, epsilon), values in training.items():
        cells = [_mean([v[i] for v in values]) for i in (0, 1)]
        made.append(f"| {ENCODERS[encoder]} | {epsilon:g} | {' | '.join(cells)} |")
    made.append("")
    return "\n".join([*made, "Made by `python -m benchmarks.smart_epsilon`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("SMART_EPSILON.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run_stages(Path(folder))
        found: dict[str, dict[tuple[int, float, str], list[tuple[float, float]]]] = {}
        for encoder in ENCODERS:
            for seed in SEEDS:
                for key, values in measure(Path(folder), encoder, seed).items():
                    found.setdefault(encoder, {}).setdefault(key, []).extend(values)
        training = {(e, epsilon): trained(Path(folder), e, epsilon) for e in ENCODERS for epsilon in TRAINED}
    text = written(found, training)
    print(text)
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
