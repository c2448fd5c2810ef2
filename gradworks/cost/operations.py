"""Floating-point operations of a block: of every pass, including finite differences and hand-written gradients.

torch's counter lacks formulas for the CPU kernels of attention, LSTM and EmbeddingBag and counts them as zero; they are
added here. As in torch, a multiply-add is two operations, and elementwise work (gates, norms, softmax) is not counted.
Products inside forward-mode derivatives cannot be counted: torch's counter sees 1.5 times as many as are made.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten
_GATES = {0: 1, 1: 1, 2: 4, 3: 3}  # gates by the mode of a recurrent kernel: tanh, relu, LSTM, GRU
FORWARD_MODE = "forward-mode derivatives"
# in names of kernels that do products: report those without a formula
_HEAVY = {"rnn", "lstm", "gru", "attention", "conv", "convolution", "bag"}


def _attention(query, key, value, *_, **__) -> int:
    (*batch, rows, width), columns, out = query, key[-2], value[-1]
    return 2 * math.prod(batch) * rows * columns * (width + out)


def _attention_backward(_, query, key, value, *__, **___) -> int:
    """The scores again, and four products: for the values, the probabilities, the queries and the keys."""
    (*batch, rows, width), columns, out = query, key[-2], value[-1]
    return 2 * math.prod(batch) * rows * columns * (3 * width + 2 * out)


def _rnn_layer(x, weight0, weight1, *_, **__) -> int:
    """One layer in one direction; x is (L, n, D) or (n, L, D)."""
    return 2 * math.prod(x[:-1]) * (math.prod(weight0) + math.prod(weight1))


def _rnn_layer_backward(x, weight1, weight2, *_, **__) -> int:
    return 2 * _rnn_layer(x, weight1, weight2)


def _cudnn_rnn(x, weight, *_, **__) -> int:
    # all layers and directions: a matrix for the input and one for the state, and biases
    return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weight if len(w) == 2)


def _cudnn_rnn_backward(x, weight, *_, **__) -> int:
    return 2 * _cudnn_rnn(x, weight)


def _bag(weight, indices, *_, **__) -> int:
    """One addition per element looked up."""
    return math.prod(indices) * weight[-1]


def _bag_backward(grad, indices, *_, **__) -> int:
    return math.prod(indices) * grad[-1]


_FORMULAS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.mkldnn_rnn_layer: _rnn_layer,
    _aten.mkldnn_rnn_layer_backward: _rnn_layer_backward,
    _aten._cudnn_rnn: _cudnn_rnn,
    _aten._cudnn_rnn_backward: _cudnn_rnn_backward,
    _aten._embedding_bag: _bag,
    _aten._embedding_bag_forward_only: _bag,
    _aten._embedding_bag_backward: _bag_backward,
    _aten._embedding_bag_dense_backward: _bag_backward,
}


class Operations(FlopCounterMode):
    """`with Operations() as counted:` counts the block's operations in `counted.total`.

    Attributes:
        not_counted: names of what the total lacks: kernels without a formula, forward-mode derivatives.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_FORMULAS)
        self._missed: set[str] = set()

    @property
    def total(self) -> int:
        return self.get_total_flops()

    @property
    def not_counted(self) -> list[str]:
        return sorted(self._missed)

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if forward_ad._current_level >= 0:
            self._missed.add(FORWARD_MODE)
        name = str(func_packet).rpartition(".")[2]
        # a GPU's `fused` recurrent cells are elementwise; their products are separate kernels
        if func_packet not in self.flop_registry and not _HEAVY.isdisjoint(name.split("_")) and "fused" not in name:
            self._missed.add(name)
        return super()._count_flops(func_packet, out, args, kwargs)
