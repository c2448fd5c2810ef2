"""Sequence to sequence: an encoder reads the texts, a decoder writes the label: summaries, questions, translations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradworks.base import Section
from gradworks.tasks.kinds._shared.written import Written

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


class Options(Section):
    """What is read and how it is written.

    Attributes:
        max_response: tokens of a response at most, its end included: in training, and when the model writes.
        prefix: text before the source, for checkpoints that were trained with one ("summarize: ").
        beams: of beam search; 1 = greedy.
    """

    max_response: int = Field(64, ge=1)
    prefix: str = ""
    beams: int = Field(4, ge=1)


class Kind(Written):
    """Cross entropy of each token of the response given the source and the tokens before it."""

    MODEL = "seq2seq"
    METRICS = ("rougeL", *(name for name in Written.METRICS if name != "rougeL"))
    label_columns = ("summary", "highlights", "headline", "target", "output")

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        given = Options.model_validate(dict(spec.options))
        self.most, self.prefix, self.beams = given.max_response, given.prefix, given.beams

    def exchanges(
        self, texts: list[tuple[str, ...]], responses: list[str], model: Any, max_length: int
    ) -> tuple[list[dict[str, Any]], list[list[int]], list[int]]:
        sources = [self.prefix + "\n".join(one) for one in texts]
        return model.exchanges(sources, responses, max_length, self.most)

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """(n, R, V) logits of the tokens of the response."""
        return (self.labelled(model(batch.inputs, embedded, labels=batch.labels), batch.labels),)

    def write(self, model: nn.Module, batch: Batch) -> list[str]:
        """Beam search."""
        return model.generate(batch.inputs, self.most, self.beams)
