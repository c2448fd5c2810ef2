"""Examples, and the endless stream of batches that training reads: keyed by seed and epoch, of like length."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from gradworks.base.size import WINDOW, Size
from gradworks.spec import Batch

if TYPE_CHECKING:
    from torch import Tensor

Encoding = dict[str, Any]  # what a model made of one example: token ids by name, lists; a kind may add what is no list
_LEAST = 4  # batches of a stretch, so that they differ from epoch to epoch

_GOLDEN = (5**0.5 - 1) / 2
_ROW = 8  # batches in a row that are of all lengths


def key(*parts: int | str) -> int:
    """A seed that depends on every part and on nothing else: (seed, epoch), (seed, "mask", step)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def cuts(lengths: Sequence[int], size: Size, window: int = WINDOW) -> list[list[int]]:
    """How one epoch is cut: for each stretch of the examples sorted by length, longest first, the sizes of its batches.

    A stretch holds one `window`-th of the batches, rounded up, and at least 4: batches that are the same in every epoch
    cost accuracy. The cut depends on the lengths alone, so every epoch has as many batches, whatever its order. Of a
    budget the longest example of a stretch decides how many a batch of the stretch holds. The last batch of a fixed
    size may be short: `order` draws its examples from all lengths, so it is not among these.

    Args:
        lengths: tokens of each example, in any order.
        size: of a batch.
        window: how many stretches there are at most; 1 = batches of any length.

    Raises:
        ValueError: a budget does not hold the longest example, or a size or window is not positive.
    """
    if window < 1 or (isinstance(size, int) and size < 1):
        raise ValueError(f"batches of {size}, window {window}: expected at least 1")
    if isinstance(size, int):
        count = len(lengths) // size
        each = max(_LEAST, -(-count // window))
        return [[size] * min(each, count - start) for start in range(0, count, each)]
    ordered, made, start = sorted(lengths, reverse=True), [], 0
    if ordered and ordered[0] > size.tokens:
        raise ValueError(f"batches of {size}: found an example of {ordered[0]}")
    while start < len(ordered):
        most = size.tokens // max(1, ordered[start])
        rows = min(most * max(_LEAST, -(-len(ordered) // (window * most))), len(ordered) - start)
        count = -(-rows // most)
        made.append([rows // count + (place < rows % count) for place in range(count)])
        start += rows
    return made


def order(lengths: Sequence[int], size: Size, seed: int, epoch: int, window: int = WINDOW) -> list[list[int]]:
    """The batches of one epoch, each a list of rows; every row is in exactly one.

    Rows are sorted by length, those of equal length at random, and cut into stretches (see `cuts`); the rows of a
    stretch are shuffled and cut into batches, so that a batch pads little. Of eight batches in a row each is of another
    eighth by length, in random order: what a few steps see together is of all lengths, though a batch is not. The rows
    of a short last batch are drawn before the sorting: they are no longer or shorter than others.

    Args:
        lengths: tokens of each row.
        size: of a batch.
        seed, epoch: all that the order depends on besides.
        window: of `cuts`.
    """
    generator = torch.Generator().manual_seed(key(seed, "order", epoch))
    rows = torch.randperm(len(lengths), generator=generator)
    last = len(rows) % size if isinstance(size, int) else 0
    rows, rest = rows[: len(rows) - last], rows[len(rows) - last :]
    rows = rows[torch.as_tensor(lengths)[rows].argsort(descending=True, stable=True)]
    batches = []
    for sizes in cuts(lengths, size, window):
        part, rows = rows[: sum(sizes)], rows[sum(sizes) :]
        part = part[torch.randperm(len(part), generator=generator)] if len(sizes) > 1 else part
        batches += part.split(sizes)
    n = len(batches)
    parts = [_shuffled(batches[n * k // _ROW : n * (k + 1) // _ROW], generator) for k in range(_ROW)]
    mixed = [
        one.tolist()
        for row in itertools.zip_longest(*parts)
        for one in _shuffled([b for b in row if b is not None], generator)
    ]
    return mixed + ([rest.tolist()] if last else [])


def _shuffled(items: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def steps_per_epoch(lengths: Sequence[int], size: Size, window: int = WINDOW) -> int:
    """Batches that hold every example once: the same number in every epoch."""
    whole = sum(map(len, cuts(lengths, size, window)))
    return whole + (isinstance(size, int) and len(lengths) % size > 0)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Encoded and labelled examples of one task.

    Attributes:
        task: its name.
        ids: (n,) example ids.
        encodings: (n,) what the model's `encode` made of the texts.
        labels: (n,) int64 class indices, or floating-point values.
        collate: pads some encodings to the longest of them; the model's, or the kind's.
        join: labels of one batch -> labels, mass of each example; the kind's, by default mass 1.
        group: (n,) domain, genre or slice; None when there is none.
        truths: (n,) what the kind's `score` takes as labels; None where nothing is scored.
        sampler: rows and labels of training batches, where these are no epochs over all rows; see the kind's.
        strata: (n,) which examples `balanced` holds in equal numbers, by the kind: classes; None where it has none.
        device: where batches are put.
    """

    task: str
    ids: Sequence[str]
    encodings: Sequence[Encoding]
    labels: Tensor
    collate: Callable[[Sequence[Encoding]], dict[str, Tensor]]
    group: Tensor | None = None
    join: Callable[[Any], tuple[Any, Tensor]] | None = None
    strata: Tensor | None = None
    truths: Any = None
    sampler: Callable[..., Iterator[tuple[list[int], Tensor]]] | None = None
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    lengths: list[int] = dataclasses.field(init=False, repr=False)  # (n,) tokens of the longest text, and in a batch
    tokens: list[int] = dataclasses.field(init=False, repr=False)  # that is as long as this example what one takes

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.encodings) == len(self.labels):
            raise ValueError(f"{len(self.ids)} ids, {len(self.encodings)} encodings, {len(self.labels)} labels")
        object.__setattr__(self, "lengths", [_length(e) for e in self.encodings])
        object.__setattr__(
            self, "tokens", [_sequences(e) * n for e, n in zip(self.encodings, self.lengths, strict=True)]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Examples:
        """The same examples, whose batches are on `device`."""
        device = torch.device(device)
        group = None if self.group is None else self.group.to(device)
        return dataclasses.replace(self, labels=self.labels.to(device), group=group, device=device)

    def batch(self, rows: Sequence[int]) -> Batch:
        """These rows, in this order, as one batch."""
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        labels, mass = self.labelled(index)
        return Batch(
            task=self.task,
            ids=[self.ids[i] for i in rows],
            inputs={name: tensor.to(self.device) for name, tensor in self.inputs(rows).items()},
            labels=labels,
            mass=mass,
            group=None if self.group is None else self.group[index],
        )

    def inputs(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """What the model reads of these rows, padded to the longest; on the CPU."""
        return self.collate([self.encodings[i] for i in rows])

    def labelled(self, index: Tensor) -> tuple[Any, Tensor]:
        """Labels and mass of the rows (n,)."""
        labels = self.labels[index]
        return self.join(labels) if self.join else (labels, torch.ones(len(index), device=self.device))


def _length(encoding: Encoding) -> int:
    if "length" in encoding:  # of several sequences, which differ in number
        return encoding["length"]
    return max((len(one) for one in encoding.values() if isinstance(one, list)), default=0)


def _sequences(encoding: Encoding) -> int:
    """That a batch pads to one length."""
    return max(1, sum(isinstance(one, list) for name, one in encoding.items() if not name.endswith("token_type_ids")))


def stream(
    examples: Examples, size: Size, seed: int, start: int = 0, window: int = WINDOW, group: int = 1
) -> Iterator[Batch]:
    """Batches without end, epoch after epoch; every epoch holds every example once, its last batch may be short.

    Args:
        examples: at least one.
        size: of a batch.
        seed: of the order; the order depends on nothing else, so all methods of a seed see the same batches.
        start: batches to leave out at the beginning (a resumed run): as if they had been read.
        window: of `cuts`.
        group: batches that belong together, for a sampler (of one episode).

    Raises:
        ValueError: there are no examples, the size is not positive, or a budget does not hold the longest example.
    """
    if not len(examples):
        raise ValueError(f"{len(examples)} examples in batches of {size}: no stream")
    if examples.sampler is not None:
        if not isinstance(size, int):
            raise ValueError(f"batches of {size}\nexpected a number of examples: the task draws its own batches")
        for rows, labels in examples.sampler(size, group, seed, start):
            yield dataclasses.replace(examples.batch(rows), labels=labels.to(examples.device))
    epoch, first = divmod(start, steps_per_epoch(examples.tokens, size, window))
    while True:
        for rows in order(examples.tokens, size, seed, epoch, window)[first:]:
            yield examples.batch(rows)
        epoch, first = epoch + 1, 0


def balanced(examples: Examples, size: int, seed: int, start: int = 0, window: int = WINDOW) -> Iterator[Batch]:
    """Endless batches that hold the strata (classes) in equal numbers, for clean batches.

    A small batch of random labels mostly says which label it has too many of: with 32 examples the scores of two halves
    correlate by 0.2 to 0.3 on the default benchmark, and by 0.7 where classes are balanced
    (benchmarks/CLEAN_BATCH.md). The classes of a batch are of like length, each within itself, and the length of a
    batch has nothing to do with that of the training batch beside it. Examples without strata come as from `stream`.

    Args:
        examples: at least one.
        size: examples; the remainder goes to classes at random, a class with fewer examples repeats some.
        seed: of the draws. start: batches to leave out, as if they had been read.
        window: of `cuts`; into how many stretches the examples of a class are cut at most.
    """
    if examples.strata is None:
        yield from stream(examples, size, seed, start, window)
    else:
        rows = balanced_rows(examples.strata.cpu(), size, seed, start, examples.lengths, window)
        yield from map(examples.batch, rows)


def balanced_rows(
    strata: Tensor, size: int, seed: int, start: int = 0, lengths: Sequence[int] | None = None, window: int = WINDOW
) -> Iterator[list[int]]:
    """The rows of each batch of `balanced`, from the strata (n,).

    Of each class the rows are sorted by length and cut into stretches of at least four batches' shares. A batch has a
    number q in [0, 1), and each class gives rows of the stretch in which its q-quantile lies, drawn at random: a
    stretch gives rows in proportion to how many it has, so each row of a class comes equally often in the long run. The
    q of a run are a sequence that fills the interval evenly (multiples of the golden ratio), so that few batches in a
    row already are of all lengths.

    Args:
        lengths: (n,) tokens of each row; None = rows of any length.
    """
    classes = [torch.nonzero(strata == c)[:, 0] for c in strata.unique()]
    if not classes or size < 1:
        raise ValueError(f"{len(strata)} examples in batches of {size}: no stream")
    if lengths is not None:
        classes = [own[torch.as_tensor(lengths)[own].argsort(stable=True)] for own in classes]
    most = -(-size // len(classes))
    stretches = [1 if lengths is None else max(1, min(window, len(own) // (_LEAST * most))) for own in classes]
    first = key(seed, "length") / 2**63
    for number in itertools.count(start):
        generator = torch.Generator().manual_seed(key(seed, "balanced", number))
        quantile = (first + number * _GOLDEN) % 1
        rows: list[int] = []
        for place, c in enumerate(torch.randperm(len(classes), generator=generator).tolist()):
            n, parts = len(classes[c]), stretches[c]
            at = (int(quantile * n) * parts + parts - 1) // n  # the stretch of that row: from n * k // parts on
            own = classes[c][n * at // parts : n * (at + 1) // parts]
            own = own[torch.randperm(len(own), generator=generator)]
            share = size // len(classes) + (place < size % len(classes))
            rows += own[torch.arange(share) % len(own)].tolist()
        yield rows
