"""What batches of like length do to learning: accuracy after equal examples, by window and by token budget.

Plain training (`erm`) as the params files have it, with nothing changed but `train.window` and `train.batch`: the
default benchmark's `gru` on the conditions clean and noise, and a small transformer on SST-5 (pipelines/sst5, of
GRADWORKS_DATA; left out where that is not set). Runs are paired by seed, which keys data, initialisation, order and
dropout. The budget of a row is the smallest multiple of 32 tokens under which an epoch has as few batches as with 32
examples. A run is one process's work of seconds; results are written as they come to a file of lines, which a second
call goes on with.

    python -m benchmarks.windows     writes benchmarks/WINDOWS.md; 20 minutes on one core
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

SEEDS = 10
Row = dict[str, Any]
SETTINGS: dict[str, dict[str, Any]] = {
    "gru, clean": {"params": "params.yaml", "source": "synthetic", "encoder": "gru", "condition": "clean"},
    "gru, noise": {"params": "params.yaml", "source": "synthetic", "encoder": "gru", "condition": "noise"},
    "transformer, SST-5": {
        "params": "pipelines/sst5/params.yaml", "source": "sst", "encoder": "uncased", "condition": "clean",
    },
}  # fmt: skip
VARIANTS: dict[str, tuple[int, bool]] = {  # window, and whether batches are budgets
    "window 1": (1, False),
    "window 8": (8, False),
    "window 50": (50, False),
    "tokens, window 50": (50, True),
}


def stage(folder: Path, params: Path, name: str, *arguments: object) -> None:
    """Run a stage program; what it says is dropped."""
    command = [sys.executable, "-m", f"components.{name}", "--params", str(params), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Setting:
    """One of SETTINGS with its sources and encoder made in `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, given = name, folder / name.replace(", ", "-"), SETTINGS[name]
        self.folder.mkdir()
        self.values = yaml.safe_load(Path(given["params"]).read_text(encoding="utf-8"))
        if given["source"] == "sst":
            self.values["fetch"]["sst"]["from"] = f"file:{Path(os.environ['GRADWORKS_DATA']) / 'minbert'}"
        self.encoder, self.condition = given["encoder"], given["condition"]
        self.params = self.folder / "params.yaml"
        self.params.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        self.data = self.folder / "fetch"
        stage(folder, self.params, "fetch", "--source", given["source"], "--out", self.data / given["source"])
        self.start = self.folder / self.encoder
        stage(folder, self.params, "pretrain", "--encoder", self.encoder, "--data", self.data, "--out", self.start)
        self.budget: int | None = None

    def splits(self, seed: int) -> Path:
        """The folder of a seed's splits."""
        made = self.folder / f"{self.condition}-{seed}"
        if not made.exists():
            asked = ["--condition", self.condition, "--seed", seed, "--data", self.data, "--out", made]
            stage(self.folder, self.params, "corrupt", *asked)
        return made

    def run(self, variant: str, seed: int) -> Row:
        """Train one cell and score it on the test split."""
        from gradworks.cell import Run
        from gradworks.distributed import World

        window, budget = VARIANTS[variant]
        values = copy.deepcopy(self.values)
        values["train"]["window"] = window
        if budget:
            values["train"]["batch"] = {"tokens": self.tokens(seed)}
        params = self.folder / "one.yaml"
        params.write_text(yaml.safe_dump(values), encoding="utf-8")
        run = Run(self._arguments(params, seed))
        began = time.process_time()
        model, trace, _, _ = run.fit(None, lambda: False, None, World())
        seconds = time.process_time() - began
        mixture = run.mixture(model, False, "cpu")
        row: Row = {"setting": self.name, "variant": variant, "seed": seed, "examples": trace.examples}
        row |= {"steps": trace.step, "seconds": seconds, "padding": padding(mixture, run.settings.batch)}
        return row | {"batch": values["train"]["batch"], "scores": self._scores(run, model, seed)}

    def _arguments(self, params: Path, seed: int) -> argparse.Namespace:
        return argparse.Namespace(params=params, method="erm", seed=seed, data=self.splits(seed), start=self.start)

    def tokens(self, seed: int) -> int:
        """The budget, of the first seed's training split."""
        if self.budget is None:
            from gradworks.base.size import Budget
            from gradworks.cell import Run

            run = Run(self._arguments(self.params, seed))
            mixture, batch = run.mixture(run.model(), False, "cpu"), self.values["train"]["batch"]
            most = sum(mixture.sizes(batch).values())
            longest = max(max(part.train.tokens) for part in mixture.parts.values())
            budgets = itertools.count(-(-longest // 32) * 32, 32)
            self.budget = next(t for t in budgets if sum(mixture.sizes(Budget(tokens=t)).values()) <= most)
        return self.budget

    def _scores(self, run: Any, model: Any, seed: int) -> dict[str, float]:
        from gradworks.base import artifacts
        from gradworks.data.tables import to_examples
        from gradworks.predict import answers

        file, task = self.splits(seed) / "test.parquet", run.task
        table = artifacts.read_parquet(file)
        examples = to_examples(table, task, model, run.settings.max_length, str(file))
        found, labels = answers(model, task, examples), table["label"].to_pylist()
        right = [task.classes[i] == label for i, label in zip(found.argmax(1), labels, strict=True)]
        column = table["set"].to_pylist() if "set" in table.column_names else ["test"] * len(right)
        return {
            name: statistics.mean(r for r, own in zip(right, column, strict=True) if own == name)
            for name in sorted(set(column))
        }


def padding(mixture: Any, batch: Any) -> float:
    """Tokens of the batches of an epoch, padding counted, over those that are no padding."""
    from gradworks.data.batching import order

    padded = real = 0
    for part in mixture.parts.values():
        train = part.train
        texts = train.tokens[0] // train.lengths[0]
        real += sum(len(ids) for one in train.encodings for name, ids in one.items() if name != "token_type_ids")
        for rows in (
            order(train.lengths, batch, 0, 0, mixture.window)
            if isinstance(batch, int)
            else order(train.tokens, batch, 0, 0, mixture.window)
        ):
            padded += texts * len(rows) * max(train.lengths[i] for i in rows)
    return padded / real


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t)."""
    from scipy import stats

    n = len(values)
    return statistics.mean(values), stats.t.ppf(0.975, n - 1) * statistics.stdev(values) / n**0.5


def written(rows: list[Row]) -> str:
    """The tables as Markdown."""
    lines = [
        "# What batches of like length do to learning", "",
        "Test accuracy in percent after equal examples of plain training (`erm`), all else as in the params file, and",
        "its difference from window 1, paired by seed: mean ± half the 95 % interval (Student's t). `padding`: tokens",
        "of the batches of an epoch, padding counted, over those that are none. `time`: processor time of the whole",
        "run, looks at the selection split included, over that with window 1; mean of the seeds' ratios.", "",
    ]  # fmt: skip
    for setting in SETTINGS:
        own = [row for row in rows if row["setting"] == setting]
        if len({row["seed"] for row in own}) < 2:
            continue
        names = list(own[0]["scores"])
        first = {row["seed"]: row for row in own if row["variant"] == "window 1"}
        heads = ["batches", "seeds", "padding", "time", *(f"{name}: accuracy" for name in names)]
        heads += [f"{name}: difference" for name in names]
        lines += [f"## {setting}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for variant in VARIANTS:
            some = {row["seed"]: row for row in own if row["variant"] == variant and row["seed"] in first}
            if len(some) < 2:
                continue
            batch = next(iter(some.values()))["batch"]
            said = f"{variant} ({batch['tokens']})" if isinstance(batch, dict) else variant
            cells = [said, str(len(some)), f"{statistics.mean(row['padding'] for row in some.values()):.2f}"]
            cells.append(f"{statistics.mean(row['seconds'] / first[s]['seconds'] for s, row in some.items()):.2f}")
            cells += [f"{100 * statistics.mean(row['scores'][n] for row in some.values()):.1f}" for n in names]
            for name in names:
                apart = [100 * (row["scores"][name] - first[s]["scores"][name]) for s, row in some.items()]
                mean, half = interval(apart)
                cells.append("" if variant == "window 1" else f"{mean:+.2f} ± {half:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", f"{own[0]['examples']} examples a run.", ""]
    return "\n".join([*lines, "Made by `python -m benchmarks.windows`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at least 2")
    parser.add_argument("--rows", type=Path, help="file of what was measured (default: beside --out, as .jsonl)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("WINDOWS.md"))
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds: found {args.seeds}, expected at least 2")
    import torch

    torch.set_num_threads(1)
    file = args.rows or args.out.with_suffix(".jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["setting"], row["variant"], row["seed"]) for row in rows}
    names = [name for name in SETTINGS if "SST" not in name or "GRADWORKS_DATA" in os.environ]
    with tempfile.TemporaryDirectory() as temporary, file.open("a", encoding="utf-8") as lines:
        settings = {name: Setting(name, Path(temporary)) for name in names}
        for seed, name, variant in itertools.product(range(args.seeds), names, VARIANTS):
            if (name, variant, seed) not in done:
                rows.append(settings[name].run(variant, seed))
                lines.write(json.dumps(rows[-1]) + "\n")
                lines.flush()
    text = written(rows)
    print(text)
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
