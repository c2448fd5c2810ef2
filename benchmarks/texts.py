"""Three texts to train on, by their lengths: pairs of sentences, sentences, questions with a paragraph.

Of GRADWORKS_DATA, encoded with BERT's uncased vocabulary; without it random tokens of like lengths.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

VOCABULARY = 30522  # of bert-base-uncased
_MOST = 8000  # examples of a text: more than the Trainer sorts together (50 batches)
_FILES = {
    "MNLI": "mnli/train.tsv", "SST-5": "minbert/ids-sst-train.csv", "SQuAD": "squad/train-v1.1-44-articles.json",
}  # fmt: skip
LONGEST = {"MNLI": 128, "SST-5": 128, "SQuAD": 384}  # tokens at which a text is cut, and to which the Trainer pads
_CLASSES = {"MNLI": 3, "SST-5": 5, "SQuAD": 2}
# median and standard deviation of the logarithms of the real lengths, for random tokens
_LIKE = {"MNLI": (36.0, 0.49), "SST-5": (23.0, 0.50), "SQuAD": (162.0, 0.38)}


@dataclass(frozen=True)
class Text:
    """Encoded examples.

    Attributes:
        name: of LONGEST. data: where they are from, in words.
        encodings: input_ids and token_type_ids of each.
        labels: class indices; what is not labelled has random ones, as time does not depend on them.
        classes: how many.
    """

    name: str
    data: str
    encodings: list[dict[str, list[int]]]
    labels: list[int]
    classes: int

    @property
    def longest(self) -> int:
        return LONGEST[self.name]


def load(name: str) -> Text:
    """One of LONGEST; random tokens where there is no GRADWORKS_DATA."""
    generator = torch.Generator().manual_seed(0)
    folder, classes = os.environ.get("GRADWORKS_DATA"), _CLASSES[name]
    if folder is None:
        made, data = _random(name, generator), f"random tokens of the lengths of {name}"
    else:
        rows = list(_READ[name](Path(folder) / _FILES[name]))
        chosen = torch.randperm(len(rows), generator=generator)[:_MOST].tolist()
        made, data = _encode([rows[i] for i in chosen], Path(folder), LONGEST[name]), _FILES[name]
    labels = torch.randint(classes, (len(made),), generator=generator).tolist()
    return Text(name, f"{data}, {len(made)} examples", made, labels, classes)


def _random(name: str, generator: torch.Generator) -> list[dict[str, list[int]]]:
    median, deviation = _LIKE[name]
    drawn = (torch.randn(_MOST, generator=generator) * deviation + math.log(median)).exp().round().long()
    lengths = drawn.clamp(4, LONGEST[name]).tolist()
    ids = [torch.randint(1000, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": one, "token_type_ids": [0] * len(one)} for one in ids]


def _encode(rows: list[tuple[str, ...]], folder: Path, longest: int) -> list[dict[str, list[int]]]:
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(folder / "vocab/bert-base-uncased-vocab.txt"))
    tokenizer.enable_truncation(longest)
    found = tokenizer.encode_batch([row if len(row) > 1 else row[0] for row in rows])
    return [{"input_ids": one.ids, "token_type_ids": one.type_ids} for one in found]


def _mnli(file: Path) -> Iterator[tuple[str, ...]]:
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield row["premise"], row["hypothesis"]


def _sst(file: Path) -> Iterator[tuple[str, ...]]:
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield (row["sentence"],)


def _squad(file: Path) -> Iterator[tuple[str, ...]]:
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for one in paragraph["qas"]:
                yield one["question"], paragraph["context"]


_READ = {"MNLI": _mnli, "SST-5": _sst, "SQuAD": _squad}
