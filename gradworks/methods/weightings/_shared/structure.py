"""The kind of a pass: what its graph says of which rows belong to which example, without its sizes.

Two passes of one kind went the same way: the same operations follow each other, the same modules were called with rows
that relate to the examples in the same way, and parameters are read by these calls and by nothing else. Lengths,
and how often a loop ran, do not count. Operations that move rows by values (an index, a mask, a list of sizes) are
looked at: what they pick must be the same number of rows of every example, in the order of the examples. Cost: one walk
over the graph, about 2 us a node, and a comparison for each such operation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# of these the label has the arguments too; a time-major pass differs from another by nothing else
_ARGUMENTS = {
    "TransposeBackward0": ("_saved_dim0", "_saved_dim1"),
    "PermuteBackward0": ("_saved_dims",),
    "FlipBackward0": ("_saved_dims",),
    "CatBackward0": ("_saved_dim",),
    "StackBackward0": ("_saved_dim",),
    "UnbindBackward0": ("_saved_dim",),
    "UnsqueezeBackward0": ("_saved_dim",),
    "SplitBackward0": ("_saved_dim",),
    "SelectBackward0": ("_saved_dim",),
    "SumBackward1": ("_saved_dim",),
    "MeanBackward1": ("_saved_dim",),
    "NativeBatchNormBackward0": ("_saved_training",),
    "CudnnBatchNormBackward0": ("_saved_training",),
}
_VIEWS = {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "ExpandBackward0"}
_UNREAD = "an operation moves rows in a way that cannot be read"


class Uneven(ValueError):
    """Rows were picked so that they are not the same number of each example, in the order of the examples."""


class Walk:
    """One walk from some nodes of a graph towards its leaves.

    Args:
        roots: where it starts.
        names: of nodes: a recorded use, a parameter.
        n: examples.
        stop: nodes that end it, and are not met.
        look: look at operations that move rows by values.

    Attributes:
        pairs: which label follows which.
        nodes: all that were met.

    Raises:
        Uneven: see there; only where `look`.
    """

    def __init__(
        self, roots: Iterable[Any], names: Mapping[Any, str], n: int, stop: Iterable[Any] = (), look: bool = True
    ):
        self._names, self._n, self._look = names, n, look
        self.pairs: set[tuple[str, str]] = set()
        self._into: dict[Any, int] = {}
        self._leaves: list[tuple[Any, Any]] = []  # (who reads, leaf)
        ends, labels = set(stop), {}
        todo = [node for node in dict.fromkeys(roots) if node is not None]
        for node in todo:
            labels[node] = self._label(node)
        while todo:
            node = todo.pop()
            label = labels[node]
            for child, _ in node.next_functions:
                if child is None:
                    continue
                self._into[child] = self._into.get(child, 0) + 1
                if child in ends:
                    self.pairs.add((label, "end"))
                    continue
                if child not in labels:
                    labels[child] = self._label(child)
                    todo.append(child)
                self.pairs.add((label, labels[child]))
                if child.name() == "torch::autograd::AccumulateGrad":
                    self._leaves.append((node, child))
        self.nodes = list(labels)

    def reads(self) -> dict[int, int]:
        """How often each leaf is read, by the id of its tensor; a cast that autocast keeps counts as often as it is."""
        found: dict[int, int] = {}
        for reader, leaf in self._leaves:
            cast = reader.name() == "ToCopyBackward0"
            key = id(leaf.variable)
            found[key] = found.get(key, 0) + (max(self._into.get(reader, 1), 1) if cast else 1)
        return found

    def _label(self, node: Any) -> str:
        name = self._names.get(node)
        note = _note(node, self._n, self._look) if name is None else name
        return node.name() if note is None else f"{node.name()}:{note}"


def _note(node: Any, n: int, look: bool) -> Any:
    """What tells a node from another of its name; None for most."""
    name = type(node).__name__
    if name in _ARGUMENTS:
        return tuple([getattr(node, key, None) for key in _ARGUMENTS[name]])
    if name in _VIEWS:
        return node._saved_self_sym_sizes[:1] == (n,)
    if look and n > 1 and name in _MOVES:
        try:
            return _MOVES[name](node, n)
        except (RuntimeError, AttributeError):  # unpacked by somebody's hooks, or changed in place
            raise Uneven(_UNREAD) from None
    return None


def fingerprint(
    roots: Iterable[Any], n: int, stop: Iterable[Any] = (), look: bool = True, leaves: Mapping[int, Any] | None = None
) -> list[Any]:
    """All of a graph that a `Walk` reads, one after the other: the same in this process, the same walk. 1 us a node.

    Args:
        roots, n, stop, look: as of `Walk`.
        leaves: names of leaves by the id of their tensor; the others have none.

    Raises:
        Uneven: see there; only where `look`.
    """
    made: list[Any] = []
    places: dict[Any, int] = {node: -1 for node in stop if node is not None}
    todo = [node for node in dict.fromkeys(roots) if node is not None and node not in places]
    places.update((node, place) for place, node in enumerate(todo))
    while todo:
        node = todo.pop()
        kind = type(node)
        made.append(kind)
        if kind.__name__ in _NOTED:
            made.append(_note(node, n, look))
        elif kind.__name__ == "AccumulateGrad":
            made.append(leaves.get(id(node.variable)) if leaves else None)
        elif kind.__name__ == "CppFunction":
            made.append(node.name())
        for child, _ in node.next_functions:
            if child is None:
                continue
            place = places.get(child)
            if place is None:
                places[child] = place = len(places)
                todo.append(child)
            made.append(place)
    return made


def _rows_of(index: Tensor, size: int, n: int) -> str:
    """How an index into `size` rows, k = size / n of each example, goes through the examples.

    Returns:
        "contiguous" or "stacked": equally many of each, in the order of the examples.

    Raises:
        Uneven: anything else.
    """
    index = index.flatten()
    if size % n == 0 and len(index) % n == 0 and len(index):
        order = torch.arange(n, device=index.device)
        index = torch.where(index < 0, index + size, index)
        each = len(index) // n
        if torch.equal(index.div(size // n, rounding_mode="floor"), order.repeat_interleave(each)):
            return "contiguous"
        if torch.equal(index % n, order.repeat(each)):
            return "stacked"
    raise Uneven("an index or a mask picks rows that are not equally many of each example, in the order of the batch")


def _is_rows(sizes: Sequence[int], dim: int, n: int) -> bool:
    """Whether a dimension may hold rows of examples: the first, and the second where the first one cannot."""
    if dim == 0:
        return sizes[0] % n == 0
    return dim == 1 and sizes[1] == n and sizes[0] % n > 0


def dim_of(dim: int, sizes: Sequence[int]) -> int:
    """From 0; autograd keeps a negative one as an unsigned number."""
    return (dim - 2**64 if dim >= 2**63 else dim) % max(len(sizes), 1)


def _indexed(sizes: Sequence[int], indices: Sequence[Tensor | None], n: int) -> str:
    """`t[indices]`, for t of these sizes."""
    by_dim: list[Tensor | None] = []
    for index in indices:
        mask = index is not None and index.dtype in (torch.bool, torch.uint8)
        by_dim.extend(index.nonzero().unbind(1) if mask else (index,))
    first, second = (*by_dim, None, None)[:2]
    rows = [(dim, one) for dim, one in enumerate((first, second)) if one is not None and _is_rows(sizes, dim, n)]
    if not rows:
        return "elsewhere"
    ((dim, one),) = rows
    try:
        return _rows_of(one, sizes[dim], n)
    except Uneven:
        if dim == 0 and second is not None and sizes[1] == n:  # time-major: t[last, arange(n)]
            return "second " + _rows_of(second, n, n)
        raise


def _along(node: Any, index: Tensor, sizes: Sequence[int], n: int) -> str:
    """An index along one dimension."""
    dim = dim_of(node._saved_dim, sizes)
    if not _is_rows(sizes, dim, n):
        return "elsewhere"
    if index.ndim > 1:  # gather and scatter: one for each entry; those of a row agree, or the rows are mixed
        index = index.transpose(0, dim).flatten(1)
        if not torch.equal(index, index[:, :1].expand_as(index)):
            raise Uneven("gather or scatter mixes the rows of examples")
        index = index[:, 0]
    return _rows_of(index, sizes[dim], n)


def made(node: Any) -> Sequence[int]:
    return node._input_metadata[0].shape


def _sorted(node: Any, n: int) -> str:
    sizes = node._saved_self_sym_sizes
    if _is_rows(sizes, dim_of(node._saved_dim, sizes), n):
        raise Uneven("the rows of examples are sorted")
    return "elsewhere"


def _pieces(sizes: Sequence[int], total: Sequence[int], n: int) -> str:
    if any(size % n for size in sizes) and len(set(sizes)) > 1 and _is_rows(total, 0, n):
        raise Uneven("rows are cut or joined in pieces that are not equally many rows of each example")
    return "even"


def _joined(node: Any, n: int) -> str:
    total = made(node)
    if (dim := dim_of(node._saved_dim, total)) != 0:
        return str(dim)
    parts = [child._input_metadata[k].shape[0] for child, k in node.next_functions if child is not None]
    return "0 " + _pieces(parts, total, n)


def _cut(node: Any, n: int) -> str:
    sizes = node._saved_self_sym_sizes
    if (dim := dim_of(node._saved_dim, sizes)) != 0:
        return str(dim)
    return "0 " + _pieces(node._saved_split_sizes, sizes, n)


_MOVES = {
    "IndexBackward0": lambda node, n: _indexed(node._saved_self_sym_sizes, node._saved_indices, n),
    "IndexPutBackward0": lambda node, n: _indexed(made(node), node._saved_indices, n),
    "IndexSelectBackward0": lambda node, n: _along(node, node._saved_index, node._saved_self_sym_sizes, n),
    "IndexAddBackward0": lambda node, n: _along(node, node._saved_index, made(node), n),
    "IndexCopyBackward0": lambda node, n: _along(node, node._saved_index, made(node), n),
    "GatherBackward0": lambda node, n: _along(node, node._saved_index, made(node), n),
    "ScatterBackward0": lambda node, n: _along(node, node._saved_index, made(node), n),
    "ScatterAddBackward0": lambda node, n: _along(node, node._saved_index, made(node), n),
    "MaskedSelectBackward0": lambda node, n: _indexed(node._saved_mask.shape, [node._saved_mask], n),
    "MaskedScatterBackward0": lambda node, n: _indexed(node._saved_mask.shape, [node._saved_mask], n),
    "SortBackward0": _sorted,
    "TopkBackward0": _sorted,
    "CatBackward0": _joined,
    "SplitWithSizesBackward0": _cut,
}
_NOTED = {*_ARGUMENTS, *_VIEWS, *_MOVES}


def digest(value: Any) -> str:
    """16 hex digits of strings and numbers in lists, tuples and sets, the same in every process."""
    return hashlib.blake2b(repr(_ordered(value)).encode(), digest_size=8).hexdigest()


def _ordered(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    return [_ordered(one) for one in value] if isinstance(value, list | tuple) else value
