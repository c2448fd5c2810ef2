"""Conv-4, the network of few-shot learning: four blocks of convolution, batch normalisation and ReLU.

Vinyals et al. (2016) halve the size by max-pooling, Finn et al. (2017) and supervised-reptile on Omniglot by a stride
of 2, which is the default here. With 64 channels the trunk has 111,936 parameters for one colour and 113,088 for three;
Nichol et al. (2018) take 32 channels and pooling for mini-ImageNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import nn

from gradworks.models._shared import pictures
from gradworks.models._shared.heads import Sizes

READS = "pictures"
prepare, write = pictures.prepare, pictures.write


class Options(pictures.Encoder):
    """Sizes of the blocks.

    Attributes:
        channels: of each block. blocks: how many there are.
        halve: stride | pool: what halves height and width in each block, rounded up.
        statistics: running | batch: what batch normalisation reads outside of training. With `batch` it normalises
            by the batch there too, so that an answer depends on what else is in the batch (transductive).
    """

    channels: int = Field(default=64, ge=1)
    blocks: int = Field(default=4, ge=1)
    halve: Literal["stride", "pool"] = "stride"
    statistics: Literal["running", "batch"] = "running"


class Conv4(pictures.PictureModel):
    """Blocks of convolution 3 x 3, (pooling,) batch normalisation, ReLU."""

    def __init__(self, config: dict[str, Any], outputs: Sizes) -> None:
        super().__init__(config, outputs)
        trunk, before, channels = nn.Sequential(), config["shape"][2], config["channels"]
        stride = config["halve"] == "stride"
        for _ in range(config["blocks"]):
            trunk.append(nn.Conv2d(before, channels, 3, stride=2 if stride else 1, padding=1))
            if not stride:
                trunk.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            running = config["statistics"] == "running"
            trunk.extend([nn.BatchNorm2d(channels, track_running_stats=running), nn.ReLU()])
            before = channels
        trunk.append(nn.Flatten())
        self.finish(trunk, outputs)


def build(folder: Path, config: dict[str, Any], outputs: Sizes, trained: bool) -> Conv4:
    """The model of a folder; see gradworks.models."""
    return pictures.build(Conv4, folder, config, outputs, trained)
