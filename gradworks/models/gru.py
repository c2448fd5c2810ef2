"""A GRU over the tokens of each text, and a multilayer perceptron over the features of the pair.

The reweighting paper gives no sizes for its recurrent encoder. Ours: one layer, hidden 100 per direction, a perceptron
of two layers with GELU (smooth: finite differences of gradients need no smaller step, as they do at ReLU's kinks).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from gradworks.models._shared import towers
from gradworks.models._shared.heads import Sizes
from gradworks.models._shared.options import Pooling, TwoTowers

prepare, write = towers.prepare, towers.write


class Options(TwoTowers):
    """hidden: size of the state per direction. bidirectional: read from both ends. mlp: units of a hidden layer.

    pooling: the final state, or the mean or maximum over all states.
    """

    hidden: int = Field(default=100, ge=1)
    mlp: int = Field(default=200, ge=1)
    layers: int = Field(default=2, ge=1)
    bidirectional: bool = False
    pooling: Pooling = "last"


class Gru(towers.Towers):
    """Every text of the batch, premises and hypotheses alike, is read in one call of the GRU.

    No packed sequences: padding comes last, so the states at a text's own tokens do not depend on it, and the
    final one is gathered. A bidirectional nn.GRU would begin at the padding; so the second direction is a GRU of its
    own that reads each text reversed within its own length, which is exact and costs the same.
    """

    def __init__(self, config: dict[str, Any], tokenizer, outputs: Sizes) -> None:
        directions = 2 if config["bidirectional"] else 1
        super().__init__(config, tokenizer, outputs, config["hidden"] * directions, config["mlp"], nn.GELU)
        self.pooling = config["pooling"]
        self.directions = nn.ModuleList(
            nn.GRU(config["embedding"], config["hidden"], batch_first=True) for _ in range(directions)
        )

    def tokens(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, L, W) what the head reads of each token of sequences that are one text."""
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


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Gru:
    """The model of a folder; see gradworks.models."""
    return towers.build(Gru, folder, config, outputs, trained)
