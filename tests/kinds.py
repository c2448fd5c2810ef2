"""Kinds of tasks for tests: of a shipped row by name, or of a few classes, or of numbers; and every kind there is."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from gradworks import tasks
from gradworks.data import tables
from gradworks.models._shared.windows import Place
from gradworks.models.lenet5 import LeNet5, Options
from gradworks.tasks import TaskSpec, kinds
from tests import written

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


PICTURES = {"shape": (6, 6, 1)}
FEW = {"ways": 3, "train_shots": 2, "test": 6, "inner": {"steps": 1}}
OPTIONS = {"span": {"step": 1}, "image": PICTURES, "episodes": PICTURES | FEW, "cloze": {"placeholder": "@"}}
SHAPES = (  # of rows that a kind may take: texts, classes
    (("one", "two"), ("low", "mid", "high")),
    (("one", "two"), ("low", "high")),
    (("one", "two"), None),
    (("one", "two", "three"), ("low", "high")),
    (("one",), ("low", "mid", "high")),
    (("one",), None),
    (("one", "two", "three"), None),
    (("one", "two", "three", "four"), ("two", "three", "four")),
)


def example(name):
    """A kind by its file's name, with the first row that it takes: two texts and three classes or numbers, a text
    and its tags, a text and three choices.
    """
    if name in written.ARCHITECTURES:
        return written.kind(name)
    for texts, names in SHAPES:
        try:
            return kinds.find(name).Kind(TaskSpec("t", name, texts, names, (), options=OPTIONS.get(name, {})))
        except ValueError:
            continue
    raise AssertionError(f"gradworks/tasks/kinds/{name}.py: takes no row of this function, which needs one for it")


def network(task):
    """A small model for a kind of `example`, the same each time."""
    if task.spec.kind in written.ARCHITECTURES:
        return written.model(task.spec.kind)
    if task.reads == "texts":
        return Words(task.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = Options(model="lenet5", channels=[3], hidden=[5], kernel=3)
        return LeNet5({**options.model_dump(), "shape": list(task.shape)}, task.size).double()


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

    def windows(self, texts, max_length, step=None, first=None):
        """No special tokens; texts fit."""
        made = []
        for one in texts:
            places = [(k, i, i + len(w)) for k, text in enumerate(one) for i, w in starts(text)]
            made.append([(self.encode([one], max_length)[0], [Place(*place) for place in places])])
        return made

    def collate(self, encodings):
        longest = max(len(one["ids"]) for one in encodings)
        return {"ids": torch.tensor([one["ids"] + [0] * (longest - len(one["ids"])) for one in encodings])}

    def embed(self, inputs):
        return self.embedding(inputs["ids"])

    def vectors(self, inputs, embedded=None):
        return torch.tanh(self.drop(self.embed(inputs) if embedded is None else embedded)).mean(1)

    def tokens(self, inputs, embedded=None):
        x = torch.tanh(self.drop(self.embed(inputs) if embedded is None else embedded))
        return x + x.mean(1, keepdim=True)

    def answer(self, vectors, task):
        return self.head(vectors)

    def forward(self, inputs, embedded=None):
        return self.answer(self.vectors(inputs, embedded), None)


def starts(text):
    """First character of each word, and the word."""
    return [(one.start(), one[0]) for one in re.finditer(r"\S+", text)]


def table(made, n=32):
    """n rows of a kind; the first text says the label."""
    if made.spec.kind in written.ARCHITECTURES:
        return written.table(n)
    names = made.drawn_from("tests") if made.calibrated else [1.0, 2.0, 4.0]
    columns = {"id": [str(i) for i in range(n)], "label": [names[i % 3 % len(names)] for i in range(n)]}
    for k, text in enumerate(made.spec.texts):
        columns[text] = [f"{8 + i % 7} {(15 + i + k) % 18}" if k else f"{i % 3} {3 + i % 5}" for i in range(n)]
    if made.reads == "pictures":
        drawn = np.random.default_rng(0).integers(0, 160, (n, *made.shape), dtype=np.uint8)
        drawn[:, :2] += (40 * (np.arange(n) % 3)).astype(np.uint8)[:, None, None, None]
        columns[made.spec.texts[0]] = made.column(list(drawn))
    columns |= {name: [of(i) for i in range(n)] for name, of in TEXTS.get(made.spec.kind, {}).items()}
    for name in set(made.also) - set(columns):
        columns[name] = ALSO.get(name, lambda text: None)(columns) or [str(i // 2) for i in range(n)]
    if made.spec.kind in LABELS:
        columns["label"] = LABELS[made.spec.kind](columns)
    return pa.table(columns | {"label": pa.array(columns["label"], made.label_type)})


TEXTS = {  # of a kind that wants them otherwise, by row; every second query has two candidates
    "cloze": {
        "two": lambda i: f"{8 + i % 7} @",
        "three": lambda i: f"{3 + i % 5}\n{15 + i % 3}" + "\n1" * (i % 2),
    }
}
ALSO = {  # columns that a kind reads besides; of others two rows share a value
    "start1": lambda of: ["0"] * len(of["id"]),
    "end1": lambda of: [str(len(text.split()[0])) for text in of["two"]],
    "start2": lambda of: [str(text.index(" ") + 1) for text in of["three"]],
    "end2": lambda of: [str(len(text)) for text in of["three"]],
}


def spans(of):
    """The second word of the second text is the answer; every third question has none."""
    texts = enumerate(of["two"])
    return [[] if i % 3 == 2 else [{"text": text.split()[1], "start": text.index(" ") + 1}] for i, text in texts]


LABELS = {  # of kinds whose labels are neither classes nor numbers, from the texts
    "span": spans,
    "cloze": lambda of: [[text.split()[i % 2]] for i, text in enumerate(of["three"])],
    "episodes": lambda columns: ["abc"[i % 3] for i in range(len(columns["id"]))],
    "tagging": lambda columns: [
        " ".join(("low", "mid", "high")[int(w) % 3] for w in text.split()) for text in columns["one"]
    ],
}


def examples(made, model, n=32, max_length=8):
    """The same, encoded by the kind."""
    longest = 30 if made.spec.kind in written.ARCHITECTURES else max_length
    return tables.to_examples(table(made, n), made, model, longest, "f")
