"""Arithmetic on lists of tensors: one tensor per trainable parameter, a point or a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradworks.methods._shared.inside import coarsest, lowest
from gradworks.spec import Batch, Sum


def norm(x: Sequence[Tensor]) -> Tensor:
    """() the Euclidean norm over all entries."""
    if any(t.is_sparse for t in x):
        x = [t.coalesce().values() if t.is_sparse else t for t in x]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(x))))


def least_distance(theta: Sequence[Tensor]) -> float:
    """Far below every distance between two points that a finite difference has use of.

    2^-10 of the rounding of |theta|: over the models of benchmarks.step_rule the least of use was 0.3 of it in float32
    and 0.007 in bf16.
    """
    return 2.0**-10 * torch.finfo(theta[0].dtype).eps * float(norm(theta))


def dot(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """() the dot product over all entries."""
    pairs = ((_dense(a).flatten(), _dense(b).flatten()) for a, b in zip(x, y, strict=True))
    return torch.stack([torch.dot(a, b) for a, b in pairs]).sum()


def _dense(t: Tensor) -> Tensor:
    return t.to_dense() if t.is_sparse else t


def add_(x: Sequence[Tensor], y: Sequence[Tensor], scale: float = 1.0) -> None:
    """x += scale * y."""
    torch._foreach_add_(list(x), list(y), alpha=scale)


def lerp_(x: Sequence[Tensor], y: Sequence[Tensor], share: float) -> None:
    """x += share * (y - x): a running mean in one pass over memory."""
    torch._foreach_lerp_(list(x), list(y), share)


def scale_(x: Sequence[Tensor], factor: float | Tensor) -> None:
    """x *= factor."""
    torch._foreach_mul_(list(x), factor)


def divide_(x: Sequence[Tensor], weight: Tensor) -> None:
    """x /= weight (); left as it is where the weight is zero, since a sum without weight is zero itself."""
    torch._foreach_mul_(list(x), torch.where(weight == 0, 1, 1 / weight))


def move(out: Sequence[Tensor], theta: Sequence[Tensor], direction: Sequence[Tensor], scale: float) -> None:
    """out = theta + scale * direction, in place; `out` may be `direction` itself."""
    for o, t, d in zip(out, theta, direction, strict=True):
        torch.add(t, d, alpha=scale, out=o)  # one pass over memory


def at_least_float32(kind: torch.dtype) -> torch.dtype:
    """What many summands of a type are added up in: 256 + 1 is 256 in bf16."""
    return torch.promote_types(kind, torch.float32)


def widened(x: Sequence[Tensor]) -> list[Tensor]:
    """In at least float32; the tensors themselves where they are."""
    return [t.to(at_least_float32(t.dtype)) for t in x]


def owned(gradient: Sequence[Tensor | None], like: Sequence[Tensor], sparse: bool = False) -> list[Tensor]:
    """Tensors that may be written in place: zeros for None, copies of what shares memory, dense ones for sparse ones.

    Autograd may return one tensor for two parameters (a + b) or an expanded scalar (p.sum()).

    Args:
        sparse: leave sparse ones sparse.
    """
    seen: set[int] = set()
    out = []
    for g, p in zip(gradient, like, strict=True):
        if g is None:
            g = torch.zeros_like(p, memory_format=torch.preserve_format)
        elif g.is_sparse:
            g = g if sparse else g.to_dense()
        else:
            memory = g.untyped_storage().data_ptr()
            if memory in seen or (not g.is_contiguous() and _expanded(g)):
                g = g.clone(memory_format=torch.contiguous_format)
                memory = g.untyped_storage().data_ptr()
            seen.add(memory)
        out.append(g)
    return out


def _expanded(t: Tensor) -> bool:
    return any(step == 0 and size > 1 for step, size in zip(t.stride(), t.shape, strict=True))


def note_reached(
    gradient: Sequence[Tensor | None], reached: list[bool], rows: dict[int, list[Tensor]], first: bool = True
) -> None:
    """Which parameters a gradient reaches, and at its `first` pass which rows of those whose gradient is sparse."""
    for j, g in enumerate(gradient):
        if g is not None:
            reached[j] = True
            if g.is_sparse:
                rows.setdefault(j, []).extend([g._indices()[0]] if first else [])


def per_example(loss: Tensor, batch: Batch) -> Tensor:
    """The losses of a batch, in at least float32.

    Raises:
        ValueError: they are not one for each example.
    """
    n = batch.mass.shape[0]
    if loss.shape != (n,):
        found = f"found shape {tuple(loss.shape)}, expected ({n},)"
        raise ValueError(f"loss: {found}: one loss per example of the batch, not reduced over examples")
    return loss if loss.dtype is torch.float32 else loss.to(at_least_float32(loss.dtype))


def precision(x: Tensor) -> torch.dtype:
    """The lowest precision in which a pass over a model with parameter `x` computes: its own, autocast's, or, within a
    step, one that the model was seen to compute in.
    """
    kind = x.device.type
    own = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return coarsest((own, lowest())) or own


def added(total: list[Tensor], weight: Tensor | None, one: Sum, divided: bool) -> tuple[list[Tensor], Tensor]:
    """A sum of gradients and of weights with one more, in place."""
    if weight is None:
        return one.gradient if divided else widened(one.gradient), one.weight.clone()
    add_(total, widened(one.gradient))
    return total, weight + one.weight


def mean_by_name(rows: Sequence[Mapping[str, float | Tensor]]) -> dict[str, Tensor]:
    """() the mean of each figure over the rows that have it."""
    found: dict[str, list[Tensor]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(torch.as_tensor(value).detach().float())
    return {name: torch.stack(values).mean() for name, values in found.items()}


def of_rows(gradient: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Sparse, as an embedding's own gradient is: the rows that were read, and all that are not zero."""
    if gradient.is_sparse:
        return gradient
    rows = torch.cat([*rows, gradient.flatten(1).ne(0).any(1).nonzero().squeeze(1)]).unique()
    return torch.sparse_coo_tensor(
        rows[None], gradient[rows], gradient.shape, check_invariants=False, is_coalesced=True
    )
