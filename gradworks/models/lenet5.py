"""LeNet-5 (LeCun et al. 1998, figure 2) as it is used today: convolutions, max-pooling, ReLU, linear layers.

By default 61,706 parameters for ten classes of MNIST: 6 and 16 channels, 120 and 84 hidden units, pictures of 28 x 28
in a field of 32 x 32. `channels: [16, 32, 64], hidden: [100], pool: 3, same: true` is the network of Ren et al. (2018)
for their imbalanced MNIST, thirteen times the operations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from gradworks.models._shared import pictures
from gradworks.models._shared.heads import Sizes

READS = "pictures"
prepare, write = pictures.prepare, pictures.write
_Size = Annotated[int, Field(ge=1)]
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Options(pictures.Encoder):
    """Sizes of the layers.

    Attributes:
        channels: of each convolution; each is followed by the activation and max-pooling with stride 2.
        hidden: units of each linear layer before the head.
        kernel: rows and columns of a convolution. pool: of a pooling window.
        same: every convolution keeps the size, and pooling halves it, rounded up; else the first one alone does.
        activation: relu | tanh.
    """

    channels: list[_Size] = Field(default=[6, 16], min_length=1)
    hidden: list[_Size] = Field(default=[120, 84])
    kernel: int = Field(default=5, ge=1)
    pool: int = Field(default=2, ge=2)
    same: bool = False
    activation: Literal["relu", "tanh"] = "relu"


class LeNet5(pictures.PictureModel):
    """Convolutions and pooling, then linear layers."""

    def __init__(self, config: dict[str, Any], outputs: Sizes) -> None:
        super().__init__(config, outputs)
        activation, kernel, pool = _ACTIVATIONS[config["activation"]], config["kernel"], config["pool"]
        trunk, before = nn.Sequential(), config["shape"][2]
        for place, channels in enumerate(config["channels"]):
            padding = kernel // 2 if config["same"] or not place else 0
            halved = nn.MaxPool2d(pool, 2, (pool - 1) // 2, ceil_mode=config["same"] and pool % 2 == 0)
            trunk.extend([nn.Conv2d(before, channels, kernel, padding=padding), activation(), halved])
            before = channels
        trunk.append(nn.Flatten())
        before = pictures.width(trunk, config["shape"])
        for units in config["hidden"]:
            trunk.extend([nn.Linear(before, units), activation()])
            before = units
        self.finish(trunk, outputs)


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> LeNet5:
    """The model of a folder; see gradworks.models."""
    return pictures.build(LeNet5, folder, config, outputs, trained)
