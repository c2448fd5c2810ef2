"""Small models that write text, and rows for them, for tests of the kinds `causal` and `seq2seq`."""

import copy
import functools
import tempfile
from pathlib import Path

import pyarrow as pa

from gradworks import models, tasks
from gradworks.data import tables, tokenizer
from gradworks.tasks import TaskSpec

WORDS = ("red", "blue", "cat", "dog", "sun", "moon", "tree")
ARCHITECTURES = {"causal": ("llama", "gpt2"), "seq2seq": ("t5", "bart")}
LORA = {"rank": 2, "alpha": 4.0}


def kind(name, **options):
    return tasks.kind(
        TaskSpec("t", name, ("one", "two"), None, ("exact_match",), options={"max_response": 7, **options})
    )


def table(n=32):
    """Two texts of one to four words, and a response of one to three: prompts and responses differ in length."""
    words = [[WORDS[(i * i + k) % 7] for k in range(1 + i % 4)] for i in range(n)]
    return pa.table({
        "id": [str(i) for i in range(n)],
        "one": [" ".join(one) for one in words], "two": [WORDS[i % 7] for i in range(n)],
        "label": [" ".join([*one[:2], WORDS[i % 7]][: 1 + i % 3]) for i, one in enumerate(words)],
    })  # fmt: skip


@functools.cache
def _made(name, architecture, lora, dropout):
    options = {"layers": 1, "width": 8, "heads": 2, "vocabulary": 270, "positions": 64, "attention": "eager"}
    options |= {"model": name, "architecture": architecture, "dropout": dropout, "lora": LORA if lora else None}
    kind = models.find(name)
    with tempfile.TemporaryDirectory() as folder:
        texts = [" ".join(WORDS)] * 2
        made = kind.Options.model_validate(options)
        kind.prepare(made, tokenizer.byte_level(texts, made.vocabulary, made.lowercase), Path(folder))
        return models.create(Path(folder), 0, 3)


def model(name, architecture=None, lora=False, dropout=0.1):
    """In float64 and training mode, the same each time."""
    return copy.deepcopy(_made(name, architecture or ARCHITECTURES[name][0], lora, dropout)).double()


def examples(made, model, n=32, max_length=30):
    return tables.to_examples(table(n), made, model, max_length, "f")
