"""Kinds of tasks for tests: of a shipped row by name, or of a few classes, or of numbers; and every kind there is."""

from pathlib import Path

import pyarrow as pa
import torch

from gradworks import tasks
from gradworks.data import tables
from gradworks.tasks import TaskSpec, kinds

ORDINAL = Path(__file__).parent / "tasks/ordinal.py"  # the exercise
EVERY = [*kinds.names(), ORDINAL.stem]


def kind(name):
    return tasks.kind(tasks.find(name, {}))


def classes(*names, texts=("text",), **options):
    """`classes(3)`: a, b, c."""
    names = tuple("abcdefgh"[: names[0]]) if isinstance(names[0], int) else names
    return tasks.kind(TaskSpec("t", "classification", texts, names, ("accuracy",), options=options))


def values(name="regression", texts=("text",), **options):
    return tasks.kind(TaskSpec("t", name, texts, None, ("pearson",), options=options))


def example(name):
    """A kind of two texts, by its file's name, with the first row that it takes: of three classes, or of numbers."""
    for names in (("low", "mid", "high"), None):
        try:
            return kinds.find(name).Kind(TaskSpec("t", name, ("one", "two"), names, ()))
        except ValueError:
            continue
    raise AssertionError(f"gradworks/tasks/kinds/{name}.py: takes no row of this function, which needs one for it")


class Words(torch.nn.Module):
    """A small model of two texts, as gradworks.models describes one; words are numbers."""

    def __init__(self, size):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding, self.drop = torch.nn.Embedding(20, 6), torch.nn.Dropout(0.1)
            self.head = torch.nn.Linear(6, size) if size else None
        self.double()

    def encode(self, texts, max_length):
        return [{"ids": [int(word) for text in one for word in text.split()][:max_length]} for one in texts]

    def collate(self, encodings):
        return {"ids": torch.tensor([one["ids"] for one in encodings])}

    def embed(self, inputs):
        return self.embedding(inputs["ids"])

    def vectors(self, inputs, embedded=None):
        return torch.tanh(self.drop(self.embed(inputs) if embedded is None else embedded)).mean(1)

    def forward(self, inputs, embedded=None):
        return self.head(self.vectors(inputs, embedded))


def examples(made, model, n=32):
    """n rows of a kind of two texts, encoded by itself; the first text says the label."""
    names = made.drawn_from("tests") if made.calibrated else [1.0, 2.0, 4.0]
    labels = [names[i % 3] for i in range(n)]
    one, two = [f"{i % 3} {3 + i % 5}" for i in range(n)], [f"{8 + i % 7} {15 + i % 3}" for i in range(n)]
    table = pa.table({"id": [str(i) for i in range(n)], "one": one, "two": two, "label": labels})
    return tables.to_examples(table, made, model, 8, "f")
