"""A recurrent net over the tokens of each text: what `gru` and `bilstm` share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradworks.models._shared import towers
from gradworks.models._shared.heads import Sizes


class Recurrent(towers.Towers):
    """Base class: a subclass says which `cell`. All texts of a batch, premises and hypotheses, are read in one call.

    No packed sequences: padding comes last, so the states at a text's own tokens do not depend on it, and the
    final one is gathered. A bidirectional layer of torch would begin at the padding; so the second direction is a layer
    of its own that reads each text reversed within its own length, which is exact and costs the same.
    """

    cell: type[nn.RNNBase]

    def __init__(self, config: dict[str, Any], tokenizer, outputs: Sizes) -> None:
        directions = 2 if config["bidirectional"] else 1
        super().__init__(config, tokenizer, outputs, config["hidden"] * directions, config["mlp"], nn.GELU)
        self.pooling = config["pooling"]
        self.directions = nn.ModuleList(
            self.cell(config["embedding"], config["hidden"], batch_first=True) for _ in range(directions)
        )

    def tokens(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, L, W) what the head reads of each token of sequences that are one text."""
        return self.once("states of tokens", towers.reads(inputs, embedded), lambda: self._tokens(inputs, embedded))

    def _tokens(self, inputs: dict[str, Tensor], embedded: Tensor | None) -> Tensor:
        lengths = inputs["lengths"][:, 0]
        embedded = self.dropout(self.embed(inputs) if embedded is None else embedded)
        states = [self.directions[0](embedded)[0]]
        if len(self.directions) == 2:
            back = self._back(embedded, lengths)
            states.append(_at(self.directions[1](_at(embedded, back))[0], back))
        return self.hidden(torch.cat(states, -1))

    def read(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """(m, L, D) -> (m, H * directions)"""
        pooled = [self._pool(self.directions[0](embedded)[0], lengths)]
        if len(self.directions) == 2:
            back = self._back(embedded, lengths)
            pooled.append(self._pool(self.directions[1](_at(embedded, back))[0], lengths))
        return torch.cat(pooled, 1)

    def _back(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """(m, L) positions from each text's end to its beginning; those behind its end are never read."""
        position = torch.arange(embedded.shape[1], device=embedded.device)
        return (lengths[:, None] - 1 - position).clamp_min(0)

    def _pool(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.pooling == "last":
            return _at(states, lengths[:, None] - 1)[:, 0]
        if self.pooling == "mean":
            return towers.mean(states, lengths)
        return states.masked_fill(~towers.mask(lengths, states.shape[1])[..., None], -torch.inf).amax(1)


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """(m, L, H) at positions (m, k) -> (m, k, H)"""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[2]))
