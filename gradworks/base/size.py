"""How large a batch is, and how many stretches of like length its examples come from, as params.yaml says it."""

from __future__ import annotations

from pydantic import Field

from gradworks.base import Section

WINDOW = 50  # the fastest whose accuracy does not differ from that of 1: benchmarks/WINDOWS.md


class Budget(Section):
    """A batch by what it costs: as many examples as keep its tokens, padding counted, within `tokens`."""

    tokens: int = Field(gt=0)

    def __str__(self) -> str:
        return f"{self.tokens} tokens"


Size = int | Budget  # of a batch: examples, or tokens
