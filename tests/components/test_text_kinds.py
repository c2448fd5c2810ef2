"""Tags, answers, spans, words in context from published layouts to the report: two methods, two seeds, an ensemble."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from gradworks import loop, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.small import PROGRAMS, SMALL, run, run_all

pytestmark = pytest.mark.slow("whole pipelines")

TASKS = {
    "tags": {"kind": "tagging", "texts": ["tokens"], "classes": ["O", "B-X", "I-X"]},
    "judged": {"kind": "answers", "texts": ["passage", "question", "answer"], "classes": ["false", "true"]},
    "found": {"kind": "span", "texts": ["question", "context"], "step": 4, "longest": 2},
    "filled": {"kind": "cloze", "texts": ["passage", "query", "entities"]},
    "senses": {"kind": "word_in_context", "texts": ["word", "sentence1", "sentence2"], "classes": ["false", "true"]},
}
SUFFIX = {"tags": "conll", "judged": "jsonl", "found": "json", "filled": "jsonl", "senses": "jsonl"}
COLORS, THINGS = ["red", "blue", "green"], ["box", "cup", "hat", "pen"]


def tags(draw, n):
    """A color begins an entity, the thing behind it goes on."""
    for _ in range(n):
        rows = []
        for _ in range(draw.integers(1, 4)):
            thing = draw.choice(THINGS)
            rows += [(draw.choice(COLORS), "B-X"), (thing, "I-X")] if draw.random() < 0.5 else [(thing, "O")]
        yield "\n".join(f"{word} {tag}" for word, tag in rows) + "\n\n"


def judged(draw, n):
    """Colors are right."""
    for i in range(n // 3):
        color, chosen = draw.choice(COLORS), draw.choice(COLORS + THINGS, 3)
        answers = [{"text": one, "idx": k, "label": int(one in COLORS)} for k, one in enumerate(chosen)]
        questions = [{"question": "what color", "idx": 0, "answers": answers}]
        yield json.dumps({"idx": i, "passage": {"text": f"the box is {color}", "questions": questions}}) + "\n"


def found(draw, n):
    """The thing of a color, or none; the text is longer than a window."""
    made = []
    for i in range(n):
        colors = draw.permutation(COLORS)[:2]
        words = [*draw.choice(["so", "it", "is"], draw.integers(0, 5)), colors[0], draw.choice(THINGS), "and"]
        words += [*draw.choice(["so", "it", "is"], draw.integers(0, 5)), colors[1], draw.choice(THINGS)]
        context, asked = " ".join(words), draw.choice(COLORS)
        start = context.find(asked) + len(asked) + 1 if asked in colors else -1
        text = [{"text": context[start:].split()[0], "answer_start": start}] if start > 0 else []
        qas = [{"id": str(i), "question": f"what {asked}", "answers": text, "is_impossible": not text}]
        made.append({"context": context, "qas": qas})
    yield json.dumps({"data": [{"title": "t", "paragraphs": made}]})


def filled(draw, n):
    """Things of the passage; the color is right."""
    for i in range(min(n, 48) // 2):
        words = draw.permutation([draw.choice(COLORS), *draw.permutation(THINGS)[: draw.integers(1, 3)]])
        starts = [len(" ".join(words[:k])) + bool(k) for k in range(len(words))]
        places = [{"start": int(at), "end": int(at) + len(one) - 1} for at, one in zip(starts, words, strict=True)]
        right = [{"text": one} for one in words if one in COLORS]
        qas = [
            {"query": f"{word} @placeholder", "idx": 2 * i + k, "answers": right} for k, word in enumerate(("so", "it"))
        ]
        yield json.dumps({"passage": {"text": " ".join(words), "entities": places}, "qas": qas, "idx": i}) + "\n"


def senses(draw, n):
    for i in range(n):
        one, two = draw.choice(COLORS, 2)
        texts = {"sentence1": f"{one} bat", "sentence2": f"a {two} bat"}
        ends = {"start1": len(one) + 1, "end1": len(one) + 4, "start2": len(two) + 3, "end2": len(two) + 6}
        yield json.dumps({"word": "bat", **texts, **ends, "label": bool(one == two), "idx": i}) + "\n"


def project(task, folder):
    (folder / "components").symlink_to(PROGRAMS)
    shutil.copy(Path(__file__).parents[2] / "versions.json", folder)
    (folder / "data").mkdir()
    for split, n in (("train", 96), ("validation", 48), ("test", 42)):
        rows = globals()[task](np.random.default_rng(n), n)
        (folder / f"data/{split}.{SUFFIX[task]}").write_text("".join(rows))
    values = copy.deepcopy(SMALL)
    values |= {"task": task, "tasks": TASKS, "fetch": {"mine": {"from": "file:data"}}}
    source = {"train": "train", "clean": "validation", "selection": "validation", "test": "test"}
    few = task == "judged"  # 16 questions of 3 answers
    sizes = {"clean": {"size": 4 if few else 12}, "selection": {"size": 8 if few else 24}}
    values["corrupt"] = {
        "splits": {split: {"from": f"mine/{of}"} | sizes.get(split, {}) for split, of in source.items()},
        "conditions": {"clean": {}},
    }
    values["corrupt"]["splits"]["duplicates"] = "keep"
    gru = {"vocabulary": 80, "embedding": 12, "hidden": 12, "mlp": 12, "dropout": 0.0, "bidirectional": True}
    values["pretrain"]["gru"] |= gru | {"pooling": "mean"}
    values["methods"] = {"erm": {}, "reweight": {"weighting": "reweight"}}
    metric = tasks.kind(tasks.find(task, values)).METRICS[0]
    values["train"] |= {
        "epochs": 6,
        "learning_rate": 0.01,
        "max_length": 16,
        "select": {"metric": metric, "every": 0.5},
    }
    values["evaluate"] = {"by": []}
    values["report"] = {"title": task, "primary": {"metric": metric}}
    block = {"condition": ["clean"], "encoder": ["gru"]}
    grid = [{**block, "method": ["erm", "reweight"], "seed": [0]}, {**block, "method": ["erm"], "seed": [1]}]
    values["cells"] = {"seeds": [0, 1], "grid": grid}
    values["ensemble"] = [{"condition": "clean", "method": "erm", "encoders": ["gru"]}]
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return metric


SLOW = {"filled": pytest.mark.slow("its rows are several sequences each")}


@pytest.mark.parametrize("task", [pytest.param(one, marks=SLOW.get(one, ())) for one in TASKS])
def test_from_files_to_the_report(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metric, params = project(task, tmp_path), Path("params.yaml")
    kind, tuned = tasks.of(params), []
    plain = type(kind).tuned

    def watched(self, answers, held, truths):
        tuned.append((len(answers), len(held)))
        return plain(self, answers, held, truths)

    monkeypatch.setattr(type(kind), "tuned", watched)
    results = run_all(params)
    assert len(results["cells"]) == 3
    table = artifacts.read_parquet(Path("runs/evaluate/clean/erm/gru/0/predictions.parquet"))
    test = artifacts.read_parquet(Path("runs/corrupt/clean/0/test.parquet"))
    assert table["label"].to_pylist() == test["label"].to_pylist() and len(table) == 42
    kept = artifacts.read_parquet(Path("runs/corrupt/clean/0/selection.parquet")).num_rows
    assert task != "judged" or kept == 24
    assert set(tuned) == {(42, kept), (kept, kept)}  # both splits by what is chosen on the selection split
    found = artifacts.read_json(Path("runs/metrics/clean/erm/gru/0.json"))["overall"][metric]
    truths = kind.truths(test)
    assert found["value"] == pytest.approx(kind.score(metric, truths, kind.read(table)).value)
    constant = max(kind.score(metric, truths, one).value or 0 for one in kind.constants(truths))
    if task != "senses":  # 96 examples do not teach which two colors are the same
        assert found["value"] > constant
    ensemble = artifacts.read_json(next(Path("runs/metrics/ensemble").glob("*.json")))
    assert set(ensemble["members"]) == {"gru/0", "gru/1"}
    assert ensemble["oracle"]["overall"][metric]["n"] == found["n"]
    selection = artifacts.read_parquet(next(Path("runs/ensemble").glob("*/selection.parquet")))
    assert selection.schema.field("label").type == test.schema.field("label").type


def test_a_test_row_whose_word_is_cut_off_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project("senses", tmp_path)
    file = tmp_path / "data/test.jsonl"
    first, *rest = file.read_text().splitlines()
    row = json.loads(first)
    row |= {"sentence2": "so " * 20 + row["sentence2"], "start2": row["start2"] + 60, "end2": row["end2"] + 60}
    file.write_text("\n".join([json.dumps(row), *rest]) + "\n")
    run("fetch", "--source", "mine", "--out", "runs/fetch/mine")
    run("corrupt", "--condition", "clean", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/clean/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    monkeypatch.setattr(loop, "fit", None)
    with pytest.raises(InputError, match=r"test\.parquet: row .*: no token of the word among the first 16"):
        run("train", "--method", "erm", "--seed", 0, "--data", "runs/corrupt/clean/0", "--start", "runs/pretrain/gru",
            "--out", "out", "--model", "model")  # fmt: skip
    assert not Path("out").exists()
