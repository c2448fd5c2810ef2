"""Perturbations of input embeddings, and random directions in which outputs move the divergence.

Shapes: n examples; embeddings (n * rows, L, D), where a multiple-choice example has a row for each choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.spec import Batch, Masks, Outputs, Task


def token_scale(e: Tensor) -> Tensor:
    """(m, L, 1) root mean square of each embedding: does not depend on how far a text is padded."""
    return _mean_square(e).sqrt().to(e.dtype)


def _mean_square(e: Tensor) -> Tensor:
    """(m, L, 1) in float32 at least."""
    return e.to(torch.promote_types(e.dtype, torch.float32)).square().mean(-1, keepdim=True)


def example_scale(e: Tensor, used: Tensor, n: int) -> Tensor:
    """(m, 1, 1) root mean square, over each example, of its embeddings that are used; `used` (m, L, 1) is bool."""
    square = (_mean_square(e) * used).reshape(n, -1).sum(1)
    return spread((square / used.reshape(n, -1).sum(1).clamp_min(1)).sqrt(), e).to(e.dtype)


def over_largest(x: Tensor, n: int) -> Tensor:
    """`x` (m, L, D) over the largest absolute entry of its example; zeros stay zeros."""
    largest = x.reshape(n, -1).abs().amax(1)
    return x / spread(torch.where(largest == 0, 1, largest), x)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """(n,) one value per example -> (m, 1, 1) one per row of `like`."""
    return values.repeat_interleave(like.shape[0] // values.shape[0])[:, None, None]


def random_cotangent(task: Task, outputs: Outputs, masks: Masks, batch: Batch) -> list[Tensor]:
    """A random direction times the Hessian of the divergence where both its arguments are `outputs`.

    For softmax and symmetric KL that is 2 p * (r - <p, r>), twice the Fisher matrix; for the squared error 2 r.
    """
    here = tuple(z.detach().to(torch.promote_types(z.dtype, torch.float32)) for z in outputs)
    n, sizes = here[0].shape[0], [z[0].numel() for z in here]
    noise = masks.noise(here[0].new_empty(n, sum(sizes)), batch).split(sizes, 1)
    with torch.enable_grad():
        moved = tuple(z.clone().requires_grad_() for z in here)
        slope = torch.autograd.grad(task.divergence(moved, here).sum(), moved, create_graph=True, allow_unused=True)
        # a divergence may read some of the outputs only
        read = [(s, r.reshape(s.shape)) for s, r in zip(slope, noise, strict=True) if s is not None]
        slope, along = zip(*read, strict=True)
        product = torch.autograd.grad(slope, moved, grad_outputs=along, materialize_grads=True)
    return [c.to(z.dtype) for c, z in zip(product, outputs, strict=True)]
