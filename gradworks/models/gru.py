"""A GRU over the tokens of each text, and a multilayer perceptron over the features of the pair.

The reweighting paper gives no sizes for its recurrent encoder. Ours: one layer, hidden 100 per direction, a perceptron
of two layers with GELU (smooth: finite differences of gradients need no smaller step, as they do at ReLU's kinks).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from torch import nn

from gradworks.models._shared import towers
from gradworks.models._shared.heads import Sizes
from gradworks.models._shared.options import Pooling, TwoTowers
from gradworks.models._shared.recurrent import Recurrent

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


class Gru(Recurrent):
    """See `Recurrent`."""

    cell = nn.GRU


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Gru:
    """The model of a folder; see gradworks.models."""
    return towers.build(Gru, folder, config, outputs, trained)
