"""A bidirectional LSTM over the tokens of each text, and a linear head on the features of the pair.

The baseline of GLUE (Wang et al. 2019, arXiv:1804.07461, section 4.1) reads [u; v; |u - v|; u * v] of max-pooled
states of two layers of 1,500 units; here one layer, and [u; v; u - v; u * v] as in `gru`.
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
    """hidden: size of the state per direction. mlp: units of a hidden layer of the perceptron, if it has some.

    pooling: the final state, or the mean or maximum over all states.
    """

    hidden: int = Field(default=100, ge=1)
    mlp: int = Field(default=200, ge=1)
    layers: int = Field(default=2, ge=1)
    pooling: Pooling = "max"


class BiLstm(Recurrent):
    """See `Recurrent`; always both directions."""

    cell = nn.LSTM

    def __init__(self, config: dict[str, Any], tokenizer, outputs: Sizes) -> None:
        super().__init__({**config, "bidirectional": True}, tokenizer, outputs)


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> BiLstm:
    """The model of a folder; see gradworks.models."""
    return towers.build(BiLstm, folder, config, outputs, trained)
