"""Small benchmarks of every kind of task on text: their params files, and one table over all of them.

Each is a folder of pipelines/questions/ with the same encoder, methods and seeds, at a budget of minutes.

examples:
  python -m benchmarks.questions tags FOLDER   what `pos` reads: SST-5's sentences, tagged by the lexicon of an unpacked
                                               textblob (FOLDER has textblob/en/en-lexicon.txt)
  python -m benchmarks.questions write         the params files
  python -m benchmarks.questions table         pipelines/questions/README.md, from the reports that are there
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import yaml

from gradworks.base import artifacts
from gradworks.report import form, readme

FOLDER = Path("pipelines/questions")
TAGS = FOLDER / "pos/runs/given/all.conll"
METHODS: dict[str, Any] = {
    "erm": {},
    "reptile": {"update": {"reptile": {"batches": 4, "inner_lr": 0.01}}},
    "fomaml": {"update": {"fomaml": {"batches": 2, "inner_lr": 0.01}}},
    "dotprod": {"update": {"dotprod": {"weight": 0.1, "limit": 0.5}}},
    "smart": {"objective": "smart"},
    "reweight": {"weighting": "reweight"},
}
SMALL = {
    "model": "transformer", "vocabulary": 4000, "layers": 2, "width": 64, "heads": 2, "pooling": "mean",
    "pretrain": {"steps": 400, "batch": 16, "max_length": 64},
}  # fmt: skip
WRITER = {"model": "seq2seq", "vocabulary": 4000, "layers": 2, "width": 64, "heads": 2}
TASKS: dict[str, dict[str, Any]] = {
    "cb": {
        "from": "superglue/CB", "sizes": (50, 32, None), "metrics": ("macro_f1", "accuracy"), "epochs": 10,
        "title": "CommitmentBank",
    },
    "copa": {"from": "superglue/COPA", "sizes": (80, 32, None), "metrics": ("accuracy",), "epochs": 10,
             "title": "COPA"},
    "rte": {"from": "superglue/RTE", "sizes": (200, 64, None), "metrics": ("accuracy",), "epochs": 1, "title": "RTE"},
    "pos": {
        "from": TAGS.as_posix(), "sizes": (100, 32, 640), "test": 300, "metrics": ("tag_accuracy",), "length": 64,
        "title": "Parts of speech", "train": "all", "split": "all", "rate": 3.0e-3, "epochs": 1,
    },
    "boolq": {
        "from": "superglue/BoolQ", "sizes": (100, 32, 480), "train": "train_eraser_1491", "test": 400, "epochs": 1,
        "metrics": ("accuracy",), "title": "BoolQ",
    },
    "wic": {"from": "superglue/WiC", "sizes": (100, 32, 480), "metrics": ("accuracy",), "title": "WiC", "length": 160},
    "squad2": {
        "from": "squad", "files": {"train": "train-v2.0-10-articles.json", "val": "dev-v2.0-10-articles.json"},
        "sizes": (40, 16, 240), "test": 120, "metrics": ("answer_f1", "answer_em"), "title": "SQuAD 2.0",
        "length": 128, "batch": 8, "options": {"step": 48, "across": "unlearned"},
    },
    "multirc": {
        "from": "superglue/MultiRC", "sizes": (100, 32, 480), "test": 300, "metrics": ("f1a", "question_em"),
        "title": "MultiRC",
    },
    "cnn_dailymail": {
        "from": "corpus/cnn_dailymail_validation.json.xz", "columns": {"document": "input", "label": "output"},
        "sizes": (16, 16, 240), "test": 24, "metrics": ("rougeL", "rouge1"), "title": "CNN/DailyMail", "batch": 8,
        "epochs": 10, "rate": 3.0e-3, "options": {"max_response": 40}, "train": "all", "split": "all",
    },
}  # fmt: skip


def params(name: str) -> dict[str, Any]:
    """The params file of a task. sizes: of selection, clean and training; None: all that is left."""
    one = TASKS[name]
    train = f"{name}/{one.get('train', 'train')}"
    selection, clean, size = one["sizes"]
    given = one["from"] if one["from"].startswith("pipelines/") else f"data/{one['from']}"
    source = {"from": f"file:{given}"} | {key: one[key] for key in ("files", "columns") if key in one}
    splits: dict[str, Any] = {"selection": {"from": train, "size": selection}, "clean": {"from": train, "size": clean}}
    splits["train"] = {"from": train} | ({"size": size} if size else {})
    splits["test"] = {"from": f"{name}/{one.get('split', 'val')}"} | ({"size": one["test"]} if "test" in one else {})
    made: dict[str, Any] = {"threads": 1, "device": "cpu", "gpu": {"kind": "a100", "count": 0}, "task": name}
    if name == "pos":
        row = {"kind": "tagging", "texts": ["tokens"], "classes": tags(), "metrics": ["tag_accuracy"]}
        made["tasks"] = {name: row}
    elif "options" in one:
        made |= {"task": "mine", "tasks": {"mine": _row(name, one["options"])}}
    batch = one.get("batch", 16)
    looks = {"squad2": "answer_f1", "pos": "tag_accuracy", "cnn_dailymail": "perplexity"}
    select = looks.get(name, "log_loss")
    made |= {
        "fetch": {name: source},
        "corrupt": {"splits": splits, "conditions": {"plain": {}}},
        "pretrain": {"small": WRITER if name == "cnn_dailymail" else SMALL},
        "methods": METHODS,
        "train": {
            "epochs": one.get("epochs", 1), "batch": batch, "clean_batch": batch, "max_length": one.get("length", 96),
            "learning_rate": one.get("rate", 1.0e-3), "warmup": 0.1, "select": {"metric": select, "every": 0.25},
        },
        "evaluate": {},
        "report": {"title": f"{one['title']}: every method, a small encoder", "baseline": "erm"},
        "cells": {
            "seeds": [0, 1, 2],
            "grid": [{"condition": ["plain"], "method": list(METHODS), "encoder": ["small"]}],
        },
        "ensemble": [],
    }  # fmt: skip
    for target, metric in zip(("primary", "secondary"), one["metrics"], strict=False):
        made["report"][target] = {"metric": metric, "where": {}}
    return made


def _row(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A row of the library with other options."""
    from gradworks import tasks

    spec = tasks.shipped()[name]
    return {"kind": spec.kind, "texts": list(spec.texts), "metrics": list(spec.metrics), **spec.options, **options}


GROUPS = {"N": "noun", "V": "verb", "J": "adjective", "R": "adverb", "P": "pronoun", "W": "question", "M": "verb"}
WORDS = {
    "DT": "determiner",
    "IN": "preposition",
    "TO": "preposition",
    "CC": "conjunction",
    "CD": "number",
    "RP": "adverb",
}


def tags() -> list[str]:
    """The classes of `pos`, the most frequent first."""
    return [*dict.fromkeys([*GROUPS.values(), *WORDS.values()]), "mark", "other"]


def tag(word: str, lexicon: dict[str, str]) -> str:
    """The tag of a word, whatever stands beside it; one that the lexicon lacks is a noun, or no word at all."""
    found = lexicon.get(word) or lexicon.get(word.lower()) or ("NN" if any(c.isalnum() for c in word) else ".")
    if not found[0].isalpha():
        return "mark"
    return WORDS.get(found) or GROUPS.get(found[0], "other")


def write_tags(folder: Path) -> None:
    """The sentences of SST-5's training set, a word a line with its tag."""
    lexicon = {}
    for line in (folder / "textblob/en/en-lexicon.txt").read_text(encoding="utf-8").splitlines():
        word, _, found = line.partition(" ")
        if found and not line.startswith(";;;"):
            lexicon[word] = found.split()[0]
    with open("data/minbert/ids-sst-train.csv", encoding="utf-8", newline="") as file:
        sentences = [row["sentence"].split() for row in csv.DictReader(file, delimiter="\t")]
    TAGS.parent.mkdir(parents=True, exist_ok=True)
    with artifacts.atomic_file(TAGS) as temporary:
        lines = ("".join(f"{w} {tag(w, lexicon)}\n" for w in words) + "\n" for words in sentences if words)
        temporary.write_text("".join(lines), encoding="utf-8")


def write() -> None:
    """The params file of every task."""
    for name in TASKS:
        path = FOLDER / name / "params.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "# Written by `python -m benchmarks.questions write`; a change here is lost.\n"
        path.write_text(head + yaml.safe_dump(params(name), sort_keys=False, width=120), encoding="utf-8")


def table() -> str:
    """Every task that has a report: scores of all methods beside the majority baseline."""
    from gradworks import tasks

    head = "| Task | Kind | Data | Test | Metric | Majority |" + "".join(f" {name} |" for name in METHODS)
    lines, above, below, few, gains = [head, "|---|---|---|---:|---|---:|" + "---|" * len(METHODS)], [], [], [], []
    for name, one in TASKS.items():
        file = FOLDER / name / "report/results.json"
        if not file.exists():
            lines.append(f"| {one['title']} | not run | | | | |" + " – |" * len(METHODS))
            continue
        found = artifacts.read_json(file)
        majority = _majority(found) or tasks.shipped()[name].majority[one["metrics"][0]]  # 0: F1 of "nothing is right"
        own = {row["method"]: row for row in found["summaries"]}
        cells = [cell for cell in found["cells"] if cell["primary"]]
        splits = found["data"]["conditions"]["plain"]["splits"]
        data = f"{splits['train']['rows']:,} examples, {own['erm']['steps']} steps"
        row = (
            f"| {one['title']} | {_kind(name)} | {data} | {cells[0]['primary']['n']:,} | {found['primary']['name']} | "
        )
        row += f"{majority:.3f} |"
        for method, summary in own.items():
            mean, scores = summary["primary"], [c["primary"] for c in cells if c["method"] == method]
            enough = len(scores) >= SEEDS and not any(one.get("small") for one in scores)
            mark = _side(mean["value"], _half(scores), majority) if enough else ""
            row += f" {form.over_seeds(mean)}{mark} |"
            judged = above if mark == UP else below
            (judged if enough else few).append((one["title"], method))
            gain = summary["difference"]["primary"]
            if gain and gain["verdict"] in ("gain", "loss"):
                gains.append(f"{one['title']} {method} {form.gap(gain)} ({gain['verdict']})")
        lines.append(row)
    said = f"{len(above)} of {len(above) + len(below)} rows are above the majority answer: {_grouped(above)}. "
    said += f"The others are not: {_grouped(below)}. There data and budget do not suffice for this encoder."
    said += f" Of fewer than {SEEDS} seeds or 30 test examples nothing is said: {_grouped(few)}." if few else ""
    beyond = f"Beyond chance against `erm`, by the rule of the reports: {'; '.join(gains) or 'nothing'}."
    return "\n".join(lines) + f"\n\n{said}\n\n{beyond}"


def _grouped(rows: list[tuple[str, str]]) -> str:
    """`RTE (erm, smart); COPA (all)`."""
    found: dict[str, list[str]] = {}
    for task, method in rows:
        found.setdefault(task, []).append(method)
    named = (f"{task} ({'all' if len(of) == len(METHODS) else ', '.join(of)})" for task, of in found.items())
    return "; ".join(named) or "none"


SEEDS = 3  # below them a row is shown and not judged, as below the test examples that an interval takes
UP, DOWN = " ▲", " ▼"


def _kind(name: str) -> str:
    """The kind of a task of TASKS."""
    from gradworks import tasks

    values = params(name)
    return tasks.find(values["task"], values).kind


def _majority(results: dict[str, Any]) -> float:
    """What the best constant prediction of the report scores on the test split."""
    values = [row["primary"]["value"] for row in results["references"] if row["name"] not in ("chance", "true rule")]
    return max(value for value in values if value is not None)


def _half(scores: list[dict[str, Any]]) -> float:
    """Half of the 95 % interval of a mean over seeds, of seeds and of test examples, which the seeds share."""
    from scipy import stats

    values = [one["value"] for one in scores]
    n, mean = len(values), sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / max(n - 1, 1) / n) ** 0.5
    examples = sum(one["high"] - one["low"] for one in scores) / 2 / n
    return float(((stats.t.ppf(0.975, max(n - 1, 1)) * spread) ** 2 + examples**2) ** 0.5)


def _side(value: float, half: float, majority: float) -> str:
    """Whether an interval lies above or below the baseline; nothing where it holds it."""
    return UP if value - half > majority else DOWN if value + half < majority else ""


def write_table() -> None:
    """Between the markers of pipelines/questions/README.md."""
    path = FOLDER / "README.md"
    made = readme.replace(path.read_text(encoding="utf-8"), "results", table(), str(path))
    path.write_text(made, encoding="utf-8")


def main() -> None:
    verb = sys.argv[1:2]
    if verb == ["tags"]:
        write_tags(Path(sys.argv[2]))
    elif verb == ["write"]:
        write()
    elif verb == ["table"]:
        write_table()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
