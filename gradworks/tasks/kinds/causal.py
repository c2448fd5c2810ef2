"""Causal language models: a prompt and the response that the model is to write; the response's tokens alone count.

Of a conversation of several turns those of the assistant count; what is written and compared is the last of them.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradworks.base import Section
from gradworks.base.errors import InputError
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
        turns: the one text column holds conversations: a list of messages, `role` (system, user or assistant) and
            `content`; the last is the assistant's and is the label. Needs chat.
    """

    max_response: int = Field(64, ge=1)
    template: str | None = None
    chat: bool = False
    system: str = ""
    turns: bool = False


ROLES = ("system", "user", "assistant")
_LAST = "the assistant's last turn"  # a column that only we make


class Kind(Written):
    """Next-token cross entropy over the tokens of the response, in a sequence that begins with the prompt."""

    MODEL = "causal"
    label_columns = (_LAST, "response", "completion", "output", "answer")

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        given = Options.model_validate(dict(spec.options))
        self.most, self.chat, self.system = given.max_response, given.chat, given.system
        self.turns = given.turns
        if given.turns and (not given.chat or len(spec.texts) != 1 or given.template):
            raise ValueError(
                "turns: found it without chat, with a template or several texts\nexpected chat: true, one text"
            )
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

    def headed(self, header: list[str], names: Mapping[str, str]) -> list[str]:
        if not self.turns:
            return header
        if "label" in names:
            raise InputError(f"columns: found label\nexpected none: the label is {_LAST}")
        return [*header, _LAST]

    def unfold(self, fields: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
        """The turns before the last as JSON, and the last one's text."""
        column = names.get(self.spec.texts[0], self.spec.texts[0])
        if not self.turns or column not in fields:
            return fields
        turns = fields[column]
        if isinstance(turns, str):
            try:
                turns = json.loads(turns)
            except ValueError:
                raise ValueError(f"found a text in the column {column!r}, expected a list of messages") from None
        if not isinstance(turns, list) or len(turns) < 2:
            raise ValueError(f"the column {column!r}: expected a list of messages, two or more")
        made = []
        for place, turn in enumerate(turns, 1):
            role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
            if role not in ROLES or not isinstance(content, str) or not content.strip():
                raise ValueError(
                    f"message {place}: expected a role ({', '.join(ROLES)}) and a content that is not empty"
                )
            made.append({"role": role, "content": content})
        if made[-1]["role"] != "assistant" or all(turn["role"] != "user" for turn in made):
            raise ValueError(
                f"the last message is of {made[-1]['role']}; expected the assistant's, behind one of the user"
            )
        return {**fields, column: json.dumps(made[:-1], ensure_ascii=False), _LAST: made[-1]["content"]}

    def exchanges(
        self, texts: list[tuple[str, ...]], responses: list[str], model: Any, max_length: int
    ) -> tuple[list[dict[str, Any]], list[list[int]], list[int]]:
        if self.turns:
            return model.conversations(self._conversations(texts, responses), max_length, self.most)
        prompts = [self.template.format(**dict(zip(self.spec.texts, one, strict=True))) for one in texts]
        if not self.chat:
            return model.exchanges(prompts, responses, max_length, self.most)
        prompts, responses = model.chatted(prompts, responses, self.system)
        return model.exchanges(prompts, responses, max_length, self.most, special=False, end=False)

    def _conversations(self, texts: list[tuple[str, ...]], responses: list[str]) -> list[list[dict[str, str]]]:
        made = []
        for (text,), response in zip(texts, responses, strict=True):
            turns = json.loads(text)
            if self.system and turns[0]["role"] != "system":
                turns.insert(0, {"role": "system", "content": self.system})
            made.append([*turns, {"role": "assistant", "content": response}])
        return made

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """(n, K, V) logits of the last K positions, where K are the columns of the labels."""
        logits = model(batch.inputs, embedded, keep=batch.labels.shape[1])
        return (self.labelled(logits, batch.labels),)

    def write(self, model: nn.Module, batch: Batch) -> list[str]:
        """Greedy."""
        return model.generate(batch.inputs, self.most)
