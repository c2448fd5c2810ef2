"""What kinds share whose label is a text that the model writes: a response, a summary."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError
from gradworks.metrics import Score, generation
from gradworks.tasks.kinds._shared.parts import Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec

PADDING = -100  # labels that do not count


class Responses:
    """Token ids of n responses; an index gives those of a batch, (n, K), padded with -100.

    Column 0 of a batch is the first token of the response that begins first.

    Args:
        ids: of each.
        starts: where each begins in its sequence.
    """

    def __init__(self, ids: Sequence[Sequence[int]], starts: Sequence[int], device: Any = "cpu") -> None:
        self.ids, self.starts, self.device = ids, starts, device

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: Any) -> Responses:
        """The same responses, whose batches are on `device`."""
        return Responses(self.ids, self.starts, device)

    def __getitem__(self, index: Tensor) -> Tensor:
        import torch

        chosen = [(self.starts[i], self.ids[i]) for i in index.tolist()]
        first, last = min(start for start, _ in chosen), max(start + len(ids) for start, ids in chosen)
        made = torch.full((len(chosen), last - first), PADDING)
        for row, (start, ids) in zip(made, chosen, strict=True):
            row[start - first : start - first + len(ids)] = torch.tensor(ids)
        return made.to(self.device)


class Written(Texts):
    """Cross entropy of the tokens of a response, the mean over them; mass: their number.

    `outputs` gives one tensor (n, K, V) of logits, whose rows at tokens that are no label are 0; a subclass makes it.
    Answers are of the type `gradworks.metrics.generation.ANSWERS`.
    """

    METRICS = generation.METRICS
    calibrated = False
    size = 0
    label_type = "string"
    columns = ("prediction", "nll", "tokens")
    MODEL: str  # of gradworks.models

    def __init__(self, spec: TaskSpec) -> None:
        if spec.classes is not None or spec.collapse:
            raise ValueError(f"classes: found {list(spec.classes or spec.collapse)}\nexpected none: labels are texts")
        super().__init__(spec)
        self._writes = True
        self._read: dict[str, Sequence[int]] = {}  # the token ids of responses that were encoded

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.spec.texts, "label")

    @property
    def reported(self) -> tuple[str, ...]:
        """The task's metrics, and the perplexity."""
        return tuple(dict.fromkeys((*self.spec.metrics, "perplexity")))

    # training

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) the mean of -log p over the tokens of each response, in nats."""
        return self.smoothed(outputs, batch, 0.0)

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) the same with `share` of each label spread evenly over the vocabulary."""
        from torch.nn import functional as F

        each = F.cross_entropy(
            outputs[0].transpose(1, 2), batch.labels, reduction="none", label_smoothing=share, ignore_index=PADDING
        )
        return each.sum(1) / batch.mass.to(each.dtype)

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL, in nats, the mean over the tokens of each response."""
        log_p, log_q = p[0].log_softmax(-1), q[0].log_softmax(-1)
        each = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
        return each.sum(1) / (p[0].detach() != 0).any(-1).sum(1).clamp_min(1)

    @staticmethod
    def labelled(logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (n, K, V), 0 where there is no label."""
        return logits.masked_fill((labels == PADDING)[..., None], 0.0)

    # data

    def encode(
        self, table: pa.Table, model: Any, max_length: int, where: str
    ) -> tuple[list[dict[str, Any]], Responses]:
        """Token ids of what the model reads; labels are the token ids of responses."""
        if getattr(model, "config", {}).get("model") != self.MODEL:
            found = getattr(model, "config", {}).get("model", type(model).__name__)
            raise InputError(
                f"task {self.name}: found the model {found}\nexpected the model {self.MODEL} for a task of this kind"
            )
        generation.check_library(self.reported)
        responses = table["label"].to_pylist()
        for key, text in zip(table["id"].to_pylist(), responses, strict=True):
            if not self.accepts(text):
                raise InputError(f"{where}: row {key}: found {text!r}\nexpected {self.expected()}")
        encodings, ids, starts = self.exchanges(self.texts(table), responses, model, max_length)
        self._read |= {text: [i for i in one if i != PADDING] for text, one in zip(responses, ids, strict=True)}
        return encodings, Responses(ids, starts)

    def exchanges(
        self, texts: list[tuple[str, ...]], responses: list[str], model: Any, max_length: int
    ) -> tuple[list[dict[str, Any]], list[list[int]], list[int]]:
        """As `model.exchanges`."""
        raise NotImplementedError

    def collate(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mass of an example is the number of its labelled tokens."""
        return labels, (labels != PADDING).sum(1).float()

    def strata(self, labels: Any) -> None:
        return None

    def label(self, raw: Any, given: bool) -> tuple[str | None, bool]:
        """A text, or a number as text; a missing value is no label, and an empty text an error."""
        if raw is None:
            return None, True
        if isinstance(raw, bool | list | dict | bytes) or not str(raw).strip():
            raise ValueError
        return str(raw), True

    def signs(self, values: Sequence[str], marked: int) -> None:
        return None

    def accepts(self, label: Any) -> bool:
        return isinstance(label, str) and bool(label.strip())

    def expected(self, also: Sequence[str] = ()) -> str:
        return "a text that is not empty"

    def signed(self, found: set[str]) -> bool:
        return False

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        return {}

    def drawn_from(self, where: str) -> tuple[str, ...]:
        raise InputError(f"{where}: the task {self.name} has no classes\nexpected `to: swap` or `to: shuffle` of noise")

    # predictions

    def answers(self, outputs: Outputs) -> np.ndarray:
        """Of sums of -log p and numbers of tokens, each (n,); nothing was written."""
        import numpy as np

        made = np.zeros(len(outputs[0]), generation.ANSWERS)
        made["text"], made["nll"], made["tokens"] = "", outputs[0].double().numpy(), outputs[1].numpy()
        return made

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """One forward pass for the likelihood; what the model writes costs one for each token."""
        losses = self.loss(tuple(one.float() for one in self.outputs(model, batch)), batch)
        made = self.answers(((losses * batch.mass).cpu(), batch.mass.cpu()))
        if self._writes:
            made["text"] = self.write(model, batch)
        return made

    def write(self, model: nn.Module, batch: Batch) -> list[str]:
        """What the model writes."""
        raise NotImplementedError

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        """The text that was written; the negative log-likelihood (nats) of the label and the number of its tokens."""
        import pyarrow as pa

        types = {"prediction": pa.string(), "nll": pa.float64(), "tokens": pa.float64()}
        fields = zip(types.items(), ("text", "nll", "tokens"), strict=True)
        return {name: pa.array([] if answers is None else answers[field], kind) for (name, kind), field in fields}

    def read(self, table: pa.Table) -> np.ndarray:
        import numpy as np

        made = np.zeros(len(table), generation.ANSWERS)
        for name, field in zip(self.columns, ("text", "nll", "tokens"), strict=True):
            made[field] = table[name].to_numpy(zero_copy_only=False)
        return made

    # scores

    def scoring(self, metrics: Sequence[str]) -> Written:
        """Nothing is written for the perplexity alone."""
        made = copy.copy(self)
        made._writes = any(metric != "perplexity" for metric in metrics)
        return made

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return generation.score(metric, labels, answers)

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return generation.shares(metric, labels, answers)

    def constants(self, labels: Any) -> list[np.ndarray]:
        """No text, and the most frequent one; the likelihood is that of the frequencies of tokens in all labels.

        Labels that were not encoded by this kind have none.
        """
        import numpy as np

        ids = [self._read.get(label, ()) for label in labels]
        counts = Counter(token for one in ids for token in one)
        total = sum(counts.values())
        made = np.zeros(len(labels), generation.ANSWERS)
        made["tokens"] = [len(one) for one in ids]
        made["nll"] = [sum(-np.log(counts[t] / total) for t in one) if one else np.nan for one in ids]
        found = []
        for text in ("", Counter(labels).most_common(1)[0][0]):
            made["text"] = text
            found.append(made.copy())
        return found

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        """The most frequent response, and what the true rule gives if it is known; nothing of likelihoods."""
        if metric == "perplexity":
            return {}
        first = self.constants(labels)[-1]
        made = {"most frequent response": self.score(metric, labels, first), "true rule": None}
        if rule is not None:
            ruled = first.copy()
            ruled["text"] = rule
            made["true rule"] = self.score(metric, labels, ruled)
        return made

    # ensembles

    def mean(self, answers: np.ndarray) -> np.ndarray:
        """The text most like those of the other members, by ROUGE-L (minimum Bayes risk, Kumar and Byrne 2004).

        The likelihood is that of the mixture of the members, each with the same weight.
        """
        import numpy as np

        made = answers[0].copy()
        for i, column in enumerate(answers["text"].T):
            alike = [sum(generation.rouge("rougeL", other, one) for other in column) for one in column]
            made["text"][i] = column[int(np.argmax(alike))]
        made["nll"] = np.log(len(answers)) - np.logaddexp.reduce(-answers["nll"], axis=0)
        return made

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        """The first member with the highest ROUGE-L, one that matches exactly before others."""
        import numpy as np

        rated = [
            [generation.exact(label, text) + generation.rouge("rougeL", label, text) for text in column]
            for label, column in zip(labels, answers["text"].T, strict=True)
        ]
        return np.asarray(rated).argmax(axis=1)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 where two texts differ."""
        return (a["text"] != b["text"]).astype(float)
