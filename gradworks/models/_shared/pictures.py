"""What models of pictures share: pixels in, a vector, the head of the task; no tokenizer, no pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradworks.base import Section, artifacts
from gradworks.base.errors import InputError
from gradworks.models._shared import files
from gradworks.models._shared.heads import Headed, Sizes
from gradworks.models._shared.moments import PREFIX, Moments

if TYPE_CHECKING:
    import numpy as np


class Encoder(Section):
    """Keys in params.yaml that all models of pictures have."""

    model: str


class PictureModel(Headed):
    """Base class: a subclass makes `trunk`, then calls `finish`.

    Attributes:
        config: what gradworks.json holds.
        shape: height, width and channels of a picture.
        trunk: (n, C, H, W) -> (n, width).
    """

    trunk: nn.Module

    def __init__(self, config: dict[str, Any], outputs: Sizes) -> None:
        super().__init__()
        self.config = {**config, "outputs": outputs}
        self.shape = tuple(config["shape"])

    def finish(self, trunk: nn.Module, outputs: Sizes) -> None:
        """The trunk, and a head on its vector."""
        self.trunk = trunk
        self.make_head(width(trunk, self.shape), outputs)

    def collate(self, encodings: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        """`pixels` (n, H, W, C) uint8."""
        import numpy as np

        return {"pixels": torch.from_numpy(np.stack([one["pixels"] for one in encodings]))}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """(n, 1, H * W * C) pixels from 0 to 1: a picture is one vector, as a token's embedding is."""
        return inputs["pixels"].flatten(1)[:, None].to(next(self.parameters()).dtype) / 255

    def vectors(self, inputs: dict[str, Tensor], embedded: Tensor | None = None) -> Tensor:
        """(n, width)"""
        pixels = self.embed(inputs) if embedded is None else embedded
        return self.once(
            "trunk",
            [inputs["pixels"], *([] if embedded is None else [embedded])],
            lambda: self.trunk(pixels.view(-1, *self.shape).permute(0, 3, 1, 2).contiguous()),
        )

    def forward(self, inputs: dict[str, Tensor], embedded: Tensor | None = None, task: str | None = None) -> Tensor:
        """(n, outputs); `task`: whose head, where there are several."""
        return self.answer(self.vectors(inputs, embedded), task)


def width(trunk: nn.Module, shape: Sequence[int]) -> int:
    """Of the vector that a trunk makes of a picture (H, W, C). InputError: nothing is left of so small a picture."""
    training = trunk.training
    try:
        with torch.no_grad():
            return trunk.eval()(torch.zeros(2, shape[2], shape[0], shape[1])).shape[1]
    except RuntimeError:
        raise InputError(f"shape: found {list(shape)}\nexpected pictures of which the layers leave something") from None
    finally:
        trunk.train(training)


def prepare(options: Encoder, folder: Path, shape: Sequence[int]) -> None:
    """Write an encoder folder: the configuration alone; weights are drawn when a model is created."""
    artifacts.write_json(folder / files.CONFIG, {**options.model_dump(), "shape": list(shape)})


def build(kind: type[PictureModel], folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Any:
    """The model of a folder; `trained`: its weights are there."""
    model = kind(config, outputs)
    if trained:
        tensors = files.read_tensors(folder / files.WEIGHTS)
        if any(name.startswith(PREFIX) for name in tensors):
            model.moments = Moments(model.parameters())
        files.fill(model, tensors, folder / files.WEIGHTS)
    return model


def write(model: PictureModel, folder: Path) -> None:
    """Write a trained model."""
    artifacts.write_json(folder / files.CONFIG, model.config)
    files.write_tensors(folder / files.WEIGHTS, model.state_dict())
