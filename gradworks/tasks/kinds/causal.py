"""Causal language models: a prompt and the response that the model is to write; the response's tokens alone count."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradworks.base import Section
from gradworks.tasks.kinds._shared.written import Written

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


class Options(Section):
    """How a row becomes a prompt.

    Attributes:
        max_response: tokens of a response at most, its end included: in training, and when the model writes.
        template: of the prompt, with text columns in braces; by default a line for each column.
        chat: prompt and response go through the checkpoint's chat template. system: its first message.
    """

    max_response: int = Field(64, ge=1)
    template: str | None = None
    chat: bool = False
    system: str = ""


class Kind(Written):
    """Next-token cross entropy over the tokens of the response, in a sequence that begins with the prompt."""

    MODEL = "causal"
    label_columns = ("response", "completion", "output", "answer")

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        given = Options.model_validate(dict(spec.options))
        self.most, self.chat, self.system = given.max_response, given.chat, given.system
        plain = "\n".join(f"{{{name}}}" for name in spec.texts)
        self.template = given.template or (plain if given.chat else plain + "\n")
        try:
            fields = {name for _, name, *_ in string.Formatter().parse(self.template) if name is not None}
        except ValueError as error:
            raise ValueError(f"template: found {given.template!r}, {error}\nexpected columns in braces") from None
        if not fields or not fields <= set(spec.texts):
            named = ", ".join(f"{{{name}}}" for name in spec.texts)
            raise ValueError(f"template: found {given.template!r}\nexpected some of {named}, and no others")
        if given.system and not given.chat:
            raise ValueError("system: found it without chat\nexpected chat: true")

    def exchanges(
        self, texts: list[tuple[str, ...]], responses: list[str], model: Any, max_length: int
    ) -> tuple[list[dict[str, Any]], list[list[int]], list[int]]:
        prompts = [self.template.format(**dict(zip(self.spec.texts, one, strict=True))) for one in texts]
        if not self.chat:
            return model.exchanges(prompts, responses, max_length, self.most)
        prompts, responses = model.chatted(prompts, responses, self.system)
        return model.exchanges(prompts, responses, max_length, self.most, special=False, end=False)

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """(n, K, V) logits of the last K positions, where K are the columns of the labels."""
        logits = model(batch.inputs, embedded, keep=batch.labels.shape[1])
        return (self.labelled(logits, batch.labels),)

    def write(self, model: nn.Module, batch: Batch) -> list[str]:
        """Greedy."""
        return model.generate(batch.inputs, self.most)
