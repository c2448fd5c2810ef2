"""What is read of two texts that are encoded one by one (a bi-encoder).

The head reads [u; v; |u - v|] (Reimers and Gurevych 2019, section 3), or a layer that several tasks share reads more of
the two. Of a single text v is the vector 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-6  # of the norms' product


def features(u: Tensor, v: Tensor) -> Tensor:
    """(n, H), (n, H) -> (n, 3H): [u; v; |u - v|]"""
    return torch.cat([u, v, (u - v).abs()], 1)


class Relational(nn.Module):
    """A layer between the encoder and the heads of some tasks, which they share.

    [u; v; |u - v|; u * v / (|u| |v| + epsilon)] -> linear -> leaky ReLU -> dropout. The last of the four are the terms
    of the cosine.

    Args:
        width: H, of an encoding and of what the heads read.
        dropout: in training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(n, H), (n, H) -> (n, H)"""
        scale = u.norm(dim=1, keepdim=True) * v.norm(dim=1, keepdim=True) + _EPSILON
        read = torch.cat([u, v, (u - v).abs(), u * v / scale], 1)
        return self.dropout(F.leaky_relu(self.linear(read)))
