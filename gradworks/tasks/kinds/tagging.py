"""Tagging: one label for each word of a text; words are what stands between blanks.

The first token of a word carries its label (Devlin et al. 2019, section 5.3); further ones, and words of which a
tokenizer leaves nothing, carry none. A text longer than the model's sequences is read in windows, so that every word
has a prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import Section, forms
from gradworks.base.errors import InputError
from gradworks.metrics import Score, tagging
from gradworks.tasks.kinds._shared import several
from gradworks.tasks.kinds._shared.parts import Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec

_NONE = -100  # of a word without a label, and of padding


class Options(Section):
    """None."""


class Kind(Texts):
    """Mean cross entropy over the words of an example; labels (n, T) int64 class indices, -100 where there is none.

    A label of the table is the tags of a text, joined by blanks; answers are (n,) lists of T lists of C probabilities.
    The mass of an example is its labelled words.

    Attributes:
        classes: in the order of their indices.
    """

    METRICS = tagging.METRICS
    calibrated = False
    label_type = "string"
    label_columns = ("tags", "ner_tags", "pos_tags")
    columns = ("prediction", "p")

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.classes: tuple[str, ...] = spec.classes or ()
        if len(set(self.classes)) < max(2, len(self.classes)) or any(one.split() != [one] for one in self.classes):
            raise ValueError(f"classes: found {list(self.classes)}\nexpected two or more, each once, without blanks")
        if spec.collapse:
            raise ValueError(f"collapse: found {dict(spec.collapse)}\nexpected none for tags")
        if len(spec.texts) != 1:
            raise ValueError(f"texts: found {list(spec.texts)}\nexpected one, whose words are tagged")
        self.size = len(self.classes)
        self._index = {name: i for i, name in enumerate(self.classes)}

    # data
    def text(self, raw: Any) -> Any:
        """Lists of words, as the hub has them, are joined."""
        whole = isinstance(raw, list) and all(isinstance(one, str) and one.split() == [one] for one in raw)
        return " ".join(raw) if whole else raw

    def label(self, raw: Any, given: bool) -> tuple[str | None, bool]:
        """Tags joined by blanks, or a list of tags or of their indices."""
        if raw is None or (isinstance(raw, str) and forms.form(raw) in forms.NONE):
            return None, True
        tags = raw if isinstance(raw, list) else str(raw).split()
        numbers = bool(tags) and all(isinstance(one, int) and 0 <= one < self.size for one in tags)
        if numbers:
            tags = [self.classes[one] for one in tags]
        if not tags or any(one not in self._index for one in tags):
            raise ValueError
        return " ".join(tags), not numbers

    def fault(self, record: dict[str, Any]) -> str | None:
        words, tags = len(record[self.spec.texts[0]].split()), len(record["label"].split())
        return None if words == tags else f"found {tags} tags, expected {words}, one for each word"

    def accepts(self, label: Any) -> bool:
        return isinstance(label, str) and label != "" and all(one in self._index for one in label.split())

    def expected(self, also: Sequence[str] = ()) -> str:
        return f"tags joined by blanks, each one of: {', '.join((*self.classes, *also))}"

    def signs(self, values: Sequence[str], marked: int) -> None:
        return None

    def signed(self, found: set[str]) -> bool:
        return False

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        """Of words."""
        return dict(Counter(tag for label in labels for tag in label.split()))

    def drawn_from(self, where: str) -> tuple[str, ...]:
        raise InputError(f"{where}: the labels of the task {self.name} are tags of many words, not classes")

    def strata(self, labels: Any) -> None:
        return None

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Windows that do not overlap, and the number of the token that each word's label is at."""
        import torch

        several.needs_tokens(model, where)
        texts = [text for (text,) in self.texts(table)]
        encodings, labels = [], []
        for key, text, label, found in zip(
            table["id"].to_pylist(), texts, table["label"].to_pylist(),
            model.windows([(one,) for one in texts], max_length), strict=True,
        ):  # fmt: skip
            words, tags = _starts(text), label.split()
            if not self.accepts(label) or len(tags) != len(words):
                raise InputError(f"{where}: row {key}: found {len(tags)} tags, {label[:60]!r}\n"
                                 f"expected {len(words)} {self.expected()}")  # fmt: skip
            first = _first_tokens(words, [places for _, places in found])
            encodings.append(several.windows([one for one, _ in found]) | {"first": tuple(first)})
            labels.append([_NONE if at < 0 else self._index[tag] for (_, at), tag in zip(first, tags, strict=True)])
        most = max(map(len, labels), default=0)
        return encodings, torch.tensor([one + [_NONE] * (most - len(one)) for one in labels], dtype=torch.int64)

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Windows (n, k, ...), and `first` (n, T): where in k * L tokens each word begins, -1 for none."""
        import torch

        inputs = several.pad(model, encodings)
        longest = several.length(inputs)
        at = [[-1 if i < 0 else window * longest + i for window, i in one["first"]] for one in encodings]
        most = max(map(len, at))
        return inputs | {"first": torch.tensor([one + [-1] * (most - len(one)) for one in at])}

    def collate(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mass is the labelled words; an example without any has mass 0."""
        import torch

        return labels, (labels != _NONE).sum(1).to(torch.get_default_dtype())

    # training
    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """(n, T, C) log probabilities of words; 0 where a word has no token."""
        inputs, first = several.without(batch.inputs, "first"), batch.inputs["first"]
        vectors = several.tokens(model, inputs, embedded)
        vectors = vectors.gather(1, first.clamp_min(0)[..., None].expand(-1, -1, vectors.shape[2]))
        scores = model.answer(vectors, batch.task).log_softmax(-1)
        return (scores.masked_fill((first < 0)[..., None], 0.0),)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, k * L, D) input embeddings of the windows."""
        return several.embed(model, several.without(batch.inputs, "first"))

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) mean of -log p over labelled words, in nats."""
        return self.smoothed(outputs, batch, 0.0)

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) the same with `share` of each label spread evenly over all classes."""
        scores = outputs[0]
        labels = batch.labels[:, : scores.shape[1]]
        there = labels != _NONE
        true = scores.gather(2, labels.clamp_min(0)[..., None])[..., 0]
        each = -((1 - share) * true + share * scores.mean(-1)) if share else -true
        return each.where(there, 0.0).sum(1) / there.sum(1).clamp_min(1)

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL, in nats, the mean over words."""
        each = ((p[0].exp() - q[0].exp()) * (p[0] - q[0])).sum(-1)
        return each.sum(1) / (p[0] != 0).any(-1).sum(1).clamp_min(1)

    # predictions
    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n,) lists (T, C), T of the longest example; of a word without a token the first class."""
        import numpy as np

        p = outputs[0].double().exp().numpy()
        p[(outputs[0] == 0).all(-1).numpy()] = np.eye(self.size)[0]
        return several.ragged([one.tolist() for one in p])

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        made = super().respond(model, batch, encodings)
        return several.ragged([p[: len(one["first"])] for p, one in zip(made, encodings, strict=True)])

    def _tags(self, answers: np.ndarray) -> list[list[str]]:
        return [[self.classes[max(range(self.size), key=p.__getitem__)] for p in one] for one in answers]

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        """Tags joined by blanks, and the probabilities of all classes for each word."""
        import pyarrow as pa

        made = [] if answers is None else list(answers)
        return {
            "prediction": pa.array([" ".join(tags) for tags in self._tags(made)], pa.string()),
            "p": pa.array(made, pa.list_(pa.list_(pa.float64()))),
        }

    def read(self, table: pa.Table) -> np.ndarray:
        return several.ragged(table["p"].to_pylist())

    # scores
    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return tagging.score(metric, labels, self._tags(answers))

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return tagging.shares(metric, labels, self._tags(answers))

    def constants(self, labels: Any) -> list[np.ndarray]:
        """Every class alone for all words."""
        one_hot = [[float(i == j) for j in range(self.size)] for i in range(self.size)]
        return [several.ragged([[row] * len(label.split()) for label in labels]) for row in one_hot]

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        """The most frequent tag of the examples scored."""
        most = self._index[Counter(tag for label in labels for tag in label.split()).most_common(1)[0][0]]
        return {"majority class": self.score(metric, labels, self.constants(labels)[most])}

    # ensembles
    def mean(self, answers: np.ndarray) -> np.ndarray:
        import numpy as np

        return several.ragged([np.mean(list(members), axis=0).tolist() for members in answers.T])

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        """The member with most words right, the first of equals."""
        import numpy as np

        true = [label.split() for label in labels]
        right = [[sum(map(str.__eq__, *both)) for both in zip(self._tags(one), true, strict=True)] for one in answers]
        return np.array(right).argmax(axis=0)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The share of words whose tags differ."""
        import numpy as np

        pairs = zip(self._tags(a), self._tags(b), strict=True)
        return np.array([np.mean([x != y for x, y in zip(*both, strict=True)]) for both in pairs])


def _starts(text: str) -> list[tuple[int, int]]:
    """First character and the one behind the last, of each word."""
    found, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        found.append((at, at + len(word)))
        at += len(word)
    return found


def _first_tokens(words: list[tuple[int, int]], windows: list[list[Any]]) -> list[tuple[int, int]]:
    """Window and position of the first token of each word, (0, -1) where it has none."""
    found, word = [(0, -1)] * len(words), 0
    for k, places in enumerate(windows):
        for i, place in enumerate(places):
            if place is None:
                continue
            while word < len(words) and words[word][1] <= place.start:
                word += 1
            if word < len(words) and place.end > words[word][0] and found[word][1] < 0:
                found[word] = (k, i)
    return found
