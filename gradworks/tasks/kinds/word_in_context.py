"""Word in context: does a word mean the same in two texts (WiC; Pilehvar and Camacho-Collados 2019)?

The two texts are one sequence. The classifier is linear on the vectors of the sequence's first token and of the word in
each text side by side, as SuperGLUE's baseline has it (Wang et al. 2019, section 5.1); of a word of several tokens the
mean counts. A linear layer on vectors side by side is the sum of one on each: the head has C outputs for each vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import Section
from gradworks.base.errors import InputError
from gradworks.tasks.kinds import classification
from gradworks.tasks.kinds._shared import several

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec

_VECTORS = 3  # of the sequence, of the word in the first text and in the second


class Options(Section):
    """start1, end1, start2, end2: columns of the word's first character in each text, and of the one behind it."""

    start1: str = "start1"
    end1: str = "end1"
    start2: str = "start2"
    end2: str = "end2"


class Kind(classification.Kind):
    """Cross entropy over C classes; labels (n,) int64 class indices. The two texts are read, not the word itself."""

    cuts = True

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        if len(spec.texts) != 3:
            raise ValueError(f"texts: found {list(spec.texts)}\nexpected three: the word, two texts with it")
        self.size = _VECTORS * len(self.classes)
        self.also = tuple(Options(**spec.options).model_dump().values())

    def fault(self, record: dict[str, Any]) -> str | None:
        for text, columns in zip(self.spec.texts[1:], (self.also[:2], self.also[2:]), strict=True):
            start, end = (str(record.get(name)) for name in columns)
            if not (start.isdigit() and end.isdigit()):
                return f"found {start!r} and {end!r} in the columns {' and '.join(columns)}, expected whole numbers"
            if not record[text][int(start) : int(end)].strip():
                return f"no word in {text!r} from character {start} to {end}"
        return None

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Both texts as one sequence, and the tokens of the word in each. InputError where the word is cut off."""
        several.needs_tokens(model, where)
        texts = list(zip(*(table[name].to_pylist() for name in self.spec.texts[1:]), strict=True))
        ends = zip(*(map(int, table[name].to_pylist()) for name in self.also), strict=True)
        found, made = model.windows(texts, max_length), []
        for key, windows, (start1, end1, start2, end2) in zip(table["id"].to_pylist(), found, ends, strict=True):
            encoding, places = windows[0]
            words = [
                [
                    i
                    for i, p in enumerate(places)
                    if p is not None and p.text == text and p.end > start and p.start < end
                ]
                for text, (start, end) in enumerate(((start1, end1), (start2, end2)))
            ]
            if not all(words):
                raise InputError(
                    f"{where}: row {key}: no token of the word among the first {max_length} of both texts\n"
                    "expected a longer max_length, or a word that the tokenizer keeps"
                )
            made.append(encoding | {"word1": tuple(words[0]), "word2": tuple(words[1])})
        return made, self.targets(table, where)

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The model's inputs, and `words` (n, 3, L): the share of each token in the first token and in the words."""
        import torch

        inputs = model.collate([{k: v for k, v in one.items() if not k.startswith("word")} for one in encodings])
        words = torch.zeros(len(encodings), _VECTORS, several.length(inputs))
        for row, one in zip(words, encodings, strict=True):
            for of, at in zip(row, ([0], one["word1"], one["word2"]), strict=True):
                of[list(at)] = 1 / len(at)
        return inputs | {"words": words}

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """One forward pass; `embedded` (n, L, D) replaces the input embeddings. Returns one tensor (n, C)."""
        import torch

        vectors = model.tokens(several.without(batch.inputs, "words"), embedded)
        read = torch.bmm(batch.inputs["words"].to(vectors.dtype), vectors)
        parts = model.answer(read, batch.task).unflatten(-1, (_VECTORS, -1))
        return (parts.diagonal(dim1=1, dim2=2).sum(-1),)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        return model.embed(several.without(batch.inputs, "words"))

    def _logits(self, outputs: Outputs) -> Tensor:
        return outputs[0]
