"""Bag of words: the mean of a text's word vectors, and a multilayer perceptron over the features of the pair.

The reweighting paper's first model: GloVe vectors, frozen; eq. 8 and 9 (mean), eq. 10 (features); four layers, 200
hidden units, ReLU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from gradworks.models._shared import towers
from gradworks.models._shared.heads import Sizes
from gradworks.models._shared.options import TwoTowers

prepare, write = towers.prepare, towers.write


class Options(TwoTowers):
    """hidden: units of a hidden layer of the perceptron."""

    hidden: int = Field(default=200, ge=1)


class Bow(towers.Towers):
    """Mean over tokens of the embeddings of each text."""

    def __init__(self, config: dict[str, Any], tokenizer, outputs: Sizes) -> None:
        super().__init__(config, tokenizer, outputs, config["embedding"], config["hidden"], nn.ReLU)

    def read(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """(m, L, D) -> (m, D)"""
        return towers.mean(embedded, lengths)


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Bow:
    """The model of a folder; see gradworks.models."""
    return towers.build(Bow, folder, config, outputs, trained)
