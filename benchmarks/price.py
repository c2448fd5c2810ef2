"""What cheaper settings of `reweight` cost and give: time, passes, agreement of scores, accuracy.

Three measurements, each beside the faithful setting (a fresh clean gradient of 32 examples for every batch):

- time: process time of a step over that of a plain one, as the default benchmark runs both (components/measure.py),
  all settings in turn in one process, 16 steps each; the median over rounds.
- scores: at two moments of a faithful run on the condition `noise`, each setting scores the same training batches
  twice, with independent clean batches. `split-half`: how much the two agree, correlated within each training batch.
  `fresh`: how much they agree with the exact scores of a fresh clean batch of 128, which what is old does not.
- accuracy: on the test split, of the default benchmark (conditions `noise` and `imbalance`) and of MNLI-HANS with few
  steps; the difference to the faithful setting is paired by seed (split, initialisation, order, masks).

    python -m benchmarks.price --work FOLDER     goes on where what is in the folder ends; writes benchmarks/PRICE.md

MNLI-HANS is left out where GRADWORKS_DATA is not set. About half an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from components import measure
from gradworks import models, statistics
from gradworks.base import artifacts
from gradworks.cell import Run
from gradworks.cost.pairs import ratio
from gradworks.data.batching import balanced
from gradworks.distributed import World
from gradworks.methods import Method
from gradworks.predict import answers

ENCODER, FAITHFUL = "gru", "faithful"
HANS, HANS_ROWS, HANS_EPOCHS = "MNLI-HANS", {"train": 1600, "selection": 300, "test": 1000}, 2
CONDITIONS = ("noise", "imbalance", HANS)
STEPS, ROUNDS = 16, 12
MOMENTS, BEFORE, SCORED = (50, 300), 24, 8  # after this many steps; scored without and with being looked at
FRESH = 128


@dataclass(frozen=True)
class Setting:
    """`clean_batch` of the section `train`, and options of `reweight`; None: plain training."""

    clean_batch: int = 32
    options: dict[str, Any] | None = field(default_factory=dict)


SETTINGS = {
    FAITHFUL: Setting(),
    "head": Setting(32, {"backend": "head"}),
    "head, clean 16, momentum 0.5": Setting(16, {"backend": "head", "clean_momentum": 0.5}),
    "clean every 4": Setting(32, {"clean_every": 4}),
    "clean 8, momentum 0.9": Setting(8, {"clean_momentum": 0.9}),
    "clean 16, momentum 0.7": Setting(16, {"clean_momentum": 0.7}),
    "score every 2": Setting(32, {"every": 2}),
    "score every 4": Setting(32, {"every": 4}),
    "erm": Setting(options=None),
}
ON_HANS = (FAITHFUL, "head", "head, clean 16, momentum 0.5")


def stage(params: Path, name: str, *arguments: object) -> None:
    command = [sys.executable, "-m", f"components.{name}", "--params", str(params), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Project:
    """The default benchmark or MNLI-HANS in a folder: parameters of each setting, data of each seed, the encoder."""

    def __init__(self, folder: Path, condition: str) -> None:
        self.folder, self.condition = folder / condition, condition
        self.folder.mkdir(exist_ok=True)
        hans = condition == HANS
        values = yaml.safe_load(Path("pipelines/reweighting/params.yaml" if hans else "params.yaml").read_text())
        if hans:
            for source in values["fetch"].values():
                source["from"] = source["from"].replace("file:data", f"file:{os.environ['GRADWORKS_DATA']}")
            for split, size in HANS_ROWS.items():
                values["corrupt"]["splits"][split]["size"] = size
            values["train"]["epochs"] = HANS_EPOCHS
            values["corrupt"]["conditions"] = {condition: {}}
        for number, one in enumerate(SETTINGS.values()):
            made = copy.deepcopy(values)
            made["train"]["clean_batch"] = one.clean_batch
            made["methods"] = {"it": {} if one.options is None else {"weighting": {"reweight": one.options}}}
            (self.folder / f"{number}.yaml").write_text(yaml.safe_dump(made))
        self._params = {name: self.folder / f"{number}.yaml" for number, name in enumerate(SETTINGS)}
        self._sources = list(values["fetch"])

    def arguments(self, setting: str, seed: int) -> argparse.Namespace:
        """Of the cell; its data and encoder are made where they are not there."""
        params, fetched, start, data = (self.folder / name for name in ("0.yaml", "fetch", ENCODER, f"{seed}"))
        if not start.exists():
            for source in self._sources:
                stage(params, "fetch", "--source", source, "--out", fetched / source)
            stage(params, "pretrain", "--encoder", ENCODER, "--data", fetched, "--out", start)
        if not data.exists():
            stage(params, "corrupt", "--condition", self.condition, "--seed", seed, "--data", fetched, "--out", data)
        return argparse.Namespace(
            params=self._params[setting], method="it", encoder=ENCODER, seed=seed, mixture=None, data=data, start=start
        )


def trained(project: Project, setting: str, seed: int) -> dict[str, Any]:
    """One cell, as `components.train` trains it, and its accuracy on the test split."""
    args = project.arguments(setting, seed)
    run = Run(args)
    model, trace, _, _ = run.fit(None, lambda: False, None, World())
    test = run.split(model, "test")
    right = torch.as_tensor(answers(model, run.task, test)).argmax(1).eq(test.labels).double()
    found = {"steps": trace.step, "passes": trace.passes / trace.step}
    if project.condition == HANS:
        return found | {"test": float(right.mean())}
    sets = artifacts.read_parquet(args.data / "test.parquet", ["set"])["set"].to_pylist()
    return found | {one: float(right[torch.tensor([s == one for s in sets])].mean()) for one in sorted(set(sets))}


def timed(project: Project) -> dict[str, list[float]]:
    """Process time of 16 steps of each setting, in rounds."""
    sides = {"plain": measure.Side(measure.Bench(project.arguments(FAITHFUL, 0)), "plain")}
    for name in SETTINGS:
        sides[name] = measure.Side(measure.Bench(project.arguments(name, 0)), "method")
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, ROUNDS):
        for name, side in sides.items():
            began = time.process_time()
            for _ in range(STEPS):
                side.step()
            if number >= 0:  # in the first steps methods measure what they need
                found[name].append(time.process_time() - began)
    return found


def agreement(project: Project, seed: int) -> dict[str, dict[str, list[float]]]:
    """Of each setting that has scores, at each moment: split-half correlation, and that with a fresh clean gradient."""
    run = Run(project.arguments(FAITHFUL, seed))
    plan, main, model = run.plan("gru"), run.method(), run.model().train()
    optimizer = torch.optim.AdamW(models.parameter_groups(model, plan.weight_decay), lr=plan.learning_rate)
    mixture = run.mixture(model, True, torch.device("cpu"))
    (clean,) = (part.clean for part in mixture.parts.values())
    draws = mixture.draws(main.needs, plan.batch, plan.clean_batch, seed)
    settings = {n: s for n, s in SETTINGS.items() if s.options is not None and s.options.get("every", 1) == 1}
    total = plan.batches

    class Scorer:
        """Scores as a setting would, and moves nothing."""

        def __init__(self, size: int, options: dict[str, Any], half: int) -> None:
            self._method = Method(weighting={"reweight": options}, task=run.task, seed=seed)
            self._clean = balanced(clean, size, 1000 * seed + half)

        def __call__(self, batches: Any) -> torch.Tensor:
            wanted = self._method.clean_for([batches[0][0].task])
            beside = [[next(self._clean)] if one else [] for one in wanted]
            return self._method.backward(model, batches, beside).sums[0][0].score

    found = {name: {"split-half": [], "fresh": []} for name in settings}
    scorers: dict[str, list[Scorer]] = {}
    for step in range(max(MOMENTS)):
        drawn, beside = draws.step(step)
        batches, beside = ([[batch] for batch in some] for some in (drawn, beside))
        left = next(moment for moment in MOMENTS if moment > step) - step
        if left == min(BEFORE + SCORED, MOMENTS[0]):
            scorers = {n: [Scorer(s.clean_batch, s.options, half) for half in (1, 2)] for n, s in settings.items()}
            scorers |= {"": [Scorer(FRESH, {}, 3)]}
        if scorers:
            scores = {name: [one(batches) for one in some] for name, some in scorers.items()}
            if left <= SCORED:
                for name in settings:
                    pairs = {"split-half": [scores[name]], "fresh": [(one, scores[""][0]) for one in scores[name]]}
                    for what, some in pairs.items():
                        found[name][what].append(fmean(float(torch.corrcoef(torch.stack(list(p)))[0, 1]) for p in some))
        if left == 1:
            scorers = {}
        main.backward(model, batches, beside)
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip or float("inf"))
        for group in optimizer.param_groups:
            rise = plan.warmup * total
            group["lr"] = plan.learning_rate * min((step + 1) / rise, (total - step) / (total - rise + 1), 1.0)
        optimizer.step()
    return {name: {w: [fmean(v[:SCORED]), fmean(v[SCORED:])] for w, v in one.items()} for name, one in found.items()}


def work(seeds: int, hans: bool) -> Iterator[tuple[str, str, str, int]]:
    """What is measured: (part, condition, setting, seed); seed by seed, so that what there is is paired."""
    for seed in range(seeds):
        for condition in CONDITIONS if hans else CONDITIONS[:2]:
            for setting in ON_HANS if condition == HANS else SETTINGS:
                yield "accuracy", condition, setting, seed
        yield "scores", "noise", "", seed
    yield "time", "noise", "", 0


def measured(folder: Path, seeds: int, hans: bool) -> list[dict[str, Any]]:
    """All rows, those of rows.jsonl first."""
    rows = folder / "rows.jsonl"
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    known = {tuple(row["what"]) for row in done}
    asked = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
    with rows.open("a") as file:
        projects: dict[str, Project] = {}
        for what in work(seeds, hans):
            if what in known:
                continue
            part, condition, setting, seed = what
            project = projects.setdefault(condition, Project(folder, condition))
            began = time.process_time()
            if part == "time":
                found: Any = timed(project)
            else:
                found = trained(project, setting, seed) if part == "accuracy" else agreement(project, seed)
            done.append({"what": what, "found": found, "seconds": time.process_time() - began, "commit": commit})
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    return done


def cost(rows: list[dict[str, Any]]) -> list[str]:
    """Time and passes of each setting."""
    found = next((row["found"] for row in rows if row["what"][0] == "time" and row["found"]), None)
    if not found:
        return []
    passes = {row["what"][2]: row["found"]["passes"] for row in rows if row["what"][:2] == ["accuracy", "noise"]}
    lines = ["| setting | time × plain | passes |", "|---|---|---|"]
    for name in SETTINGS:
        one = ratio([ours / plain for ours, plain in zip(found[name], found["plain"], strict=True)])
        said = f"{passes[name]:.2f}" if name in passes else "–"
        lines.append(f"| {name} | {one.value:.2f} [{one.low:.2f}, {one.high:.2f}] | {said} |")
    return [*lines, "", f"Process time of {STEPS} steps, median of {len(found['plain'])} rounds, 95 % interval.", ""]


def agreements(rows: list[dict[str, Any]]) -> list[str]:
    """Correlation of scores of each setting, at each moment."""
    every = [row["found"] for row in rows if row["what"][0] == "scores"]
    if len(every) < 3:
        return []
    columns = [(what, k) for what in ("split-half", "fresh") for k in range(len(MOMENTS))]
    lines = ["| setting | " + " | ".join(f"{what}, {MOMENTS[k]} steps" for what, k in columns) + " |",
             "|---" * (1 + len(columns)) + "|"]  # fmt: skip
    for name in (name for name in SETTINGS if name in every[0]):
        means = [statistics.mean([one[name][what][k] for one in every]) for what, k in columns]
        lines.append(f"| {name} | " + " | ".join(f"{m.value:.2f} ± {m.se:.2f}" for m in means) + " |")
    return [*lines, "", f"Mean ± standard error over {len(every)} seeds.", ""]


def accuracies(rows: list[dict[str, Any]], condition: str) -> list[str]:
    """Accuracy of each setting, and its difference to the faithful one, paired by seed."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        part, where, name, seed = row["what"]
        if part == "accuracy" and where == condition:
            for split, value in row["found"].items():
                if split not in ("steps", "passes"):
                    found.setdefault(split, {}).setdefault(name, {})[seed] = value
    lines = []
    for split, by_name in sorted(found.items()):
        lines += [f"| {condition}, {split} | seeds | accuracy | difference to {FAITHFUL} |", "|---|---|---|---|"]
        for name in (name for name in SETTINGS if name in by_name):
            mean = statistics.mean(list(by_name[name].values()))
            apart = statistics.paired(by_name[name], by_name.get(FAITHFUL, {}))
            error = "" if mean.se is None else f" ± {mean.se:.3f}"
            said = "–" if name == FAITHFUL or apart.low is None else (
                f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}], n = {apart.n}"
            )  # fmt: skip
            lines.append(f"| {name} | {mean.n} | {mean.value:.3f}{error} | {said} |")
        lines.append("")
    return lines


def _under(heading: str, lines: list[str]) -> list[str]:
    return [heading, "", *lines] if lines else []


def written(rows: list[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    options = [
        f"| {name} | {one.clean_batch} | {'plain training' if one.options is None else json.dumps(one.options)} |"
        for name, one in SETTINGS.items()
    ]
    return "\n".join([
        "# The price of reweighting", "",
        "What cheaper settings of `reweight` cost, and what becomes of scores and accuracy; encoder `gru`, all else as",
        "in params.yaml. MNLI-HANS (a sample of MNLI, HANS regenerated) is pipelines/reweighting/params.yaml with "
        f"{HANS_ROWS['train']}", f"training examples and {HANS_EPOCHS} epochs: far from trained.", "",
        "| setting | clean batch | options of `reweight` |", "|---|---|---|", *options, "",
        *_under("## Time", cost(rows)), *_under("## Scores", agreements(rows)), "## Accuracy", "",
        *(line for condition in CONDITIONS for line in accuracies(rows, condition)),
        f"Measured at commit {', '.join(sorted({row.get('commit', '') for row in rows} - {''}))}.",
        "Differences: mean over seeds, 95 % t interval, one by one (not corrected for their number).", "",
        "Made by `python -m benchmarks.price`.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="at least 3")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and rows.jsonl, what was measured")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(exist_ok=True)
    rows = measured(args.work, args.seeds, "GRADWORKS_DATA" in os.environ)
    Path(__file__).with_name("PRICE.md").write_text(written(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
