"""Examples, and the endless stream of batches that training reads: keyed by seed and epoch, of like length."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from gradworks.spec import Batch

if TYPE_CHECKING:
    from torch import Tensor

Encoding = dict[str, Any]  # what a model made of one example: token ids by name, lists; a kind may add what is no list
WINDOW = 8  # batches that are sorted by length together: 1.6 times the speed of padding random batches


def key(*parts: int | str) -> int:
    """A seed that depends on every part and on nothing else: (seed, epoch), (seed, "mask", step)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch, each a list of rows; every row is in exactly one.

    Rows are shuffled, sorted by length inside windows of 8 batches, cut into batches, and the batches are shuffled
    again, so that a batch pads little. The rows of a short last batch are drawn before the sorting: they are no longer
    or shorter than others.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch.
        seed, epoch: all that the order depends on besides.
    """
    generator = torch.Generator().manual_seed(key(seed, "order", epoch))
    rows = torch.randperm(len(lengths), generator=generator).tolist()
    whole = len(rows) - len(rows) % batch_size
    batches = []
    for start in range(0, whole, WINDOW * batch_size):
        window = sorted(rows[start : min(start + WINDOW * batch_size, whole)], key=lengths.__getitem__)
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    shuffled = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return shuffled + ([rows[whole:]] if whole < len(rows) else [])


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
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    lengths: list[int] = dataclasses.field(init=False, repr=False)  # (n,) tokens of the longest part

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.encodings) == len(self.labels):
            raise ValueError(f"{len(self.ids)} ids, {len(self.encodings)} encodings, {len(self.labels)} labels")
        object.__setattr__(self, "lengths", [_length(e) for e in self.encodings])

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Examples:
        """The same examples, whose batches are on `device`."""
        device = torch.device(device)
        group = None if self.group is None else self.group.to(device)
        return dataclasses.replace(self, labels=self.labels.to(device), group=group, device=device)

    def batch(self, rows: Sequence[int]) -> Batch:
        """These rows, in this order, as one batch."""
        inputs = self.collate([self.encodings[i] for i in rows])
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        labels = self.labels[index]
        labels, mass = self.join(labels) if self.join else (labels, torch.ones(len(rows), device=self.device))
        return Batch(
            task=self.task,
            ids=[self.ids[i] for i in rows],
            inputs={name: tensor.to(self.device) for name, tensor in inputs.items()},
            labels=labels,
            mass=mass,
            group=None if self.group is None else self.group[index],
        )


def _length(encoding: Encoding) -> int:
    if "length" in encoding:  # of several sequences, which differ in number
        return encoding["length"]
    return max((len(one) for one in encoding.values() if isinstance(one, list)), default=0)


def stream(examples: Examples, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
    """Batches without end, epoch after epoch; every epoch holds every example once, its last batch may be short.

    Args:
        examples: at least one.
        batch_size: examples of a batch.
        seed: of the order; the order depends on nothing else, so all methods of a seed see the same batches.
        start: batches to leave out at the beginning (a resumed run): as if they had been read.

    Raises:
        ValueError: there are no examples, or the batch size is not positive.
    """
    if not len(examples) or batch_size < 1:
        raise ValueError(f"{len(examples)} examples in batches of {batch_size}: no stream")
    epoch, first = divmod(start, steps_per_epoch(len(examples), batch_size))
    while True:
        for rows in order(examples.lengths, batch_size, seed, epoch)[first:]:
            yield examples.batch(rows)
        epoch, first = epoch + 1, 0


def balanced(examples: Examples, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
    """Endless batches that hold the strata (classes) in equal numbers, each drawn independently; for clean batches.

    A small batch of random labels mostly says which label it has too many of: with 32 examples the scores of two halves
    correlate by 0.2 to 0.3 on the default benchmark, and by 0.7 where classes are balanced
    (benchmarks/CLEAN_BATCH.md). Lengths are not sorted. Examples without strata come as from `stream`.

    Args:
        examples: at least one.
        batch_size: the remainder goes to classes at random; a class with fewer examples repeats some.
        seed: of the draws. start: batches to leave out, as if they had been read.
    """
    if examples.strata is None:
        yield from stream(examples, batch_size, seed, start)
    else:
        yield from map(examples.batch, balanced_rows(examples.strata.cpu(), batch_size, seed, start))


def balanced_rows(strata: Tensor, batch_size: int, seed: int, start: int = 0) -> Iterator[list[int]]:
    """The rows of each batch of `balanced`, from the strata (n,)."""
    classes = [torch.nonzero(strata == c)[:, 0] for c in strata.unique()]
    if not classes or batch_size < 1:
        raise ValueError(f"{len(strata)} examples in batches of {batch_size}: no stream")
    for number in itertools.count(start):
        generator = torch.Generator().manual_seed(key(seed, "balanced", number))
        rows: list[int] = []
        for place, c in enumerate(torch.randperm(len(classes), generator=generator).tolist()):
            own = classes[c][torch.randperm(len(classes[c]), generator=generator)]
            share = batch_size // len(classes) + (place < batch_size % len(classes))
            rows += own[torch.arange(share) % len(own)].tolist()
        yield rows


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that hold every example once."""
    return -(-examples // batch_size)
