"""Few-shot episodes: N classes, some pictures of each, labels that are places in the episode; keyed.

Vinyals et al. (2016, section 4.1). An episode of training is read in several batches, as supervised-reptile has it
(Nichol, Achiam and Schulman 2018, section 6): its pictures are shuffled and read in turn, batch after batch, shuffled
again when all were read; a batch may go over the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradworks.base.errors import InputError


def by_class(labels: Sequence[str], each: int, ways: int, where: str) -> list[Tensor]:
    """The rows of each class, classes by name.

    Args:
        labels: of all rows.
        each: pictures of a class that an episode takes.
        ways: classes of an episode.
        where: the file, for messages.

    Raises:
        InputError: a class has fewer pictures, or there are fewer classes.
    """
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    rarest = min(rows, key=lambda label: (len(rows[label]), label)) if rows else ""
    if len(rows) < ways:
        raise InputError(f"{where}: found {len(rows)} classes\nexpected at least {ways}, those of an episode")
    if len(rows[rarest]) < each:
        found = f"the class {rarest!r} with {len(rows[rarest])} of its pictures"
        raise InputError(f"{where}: found {found}\nexpected at least {each}, as an episode takes")
    return [torch.tensor(rows[label]) for label in sorted(rows)]


def _generator(of: tuple[int | str, ...]) -> torch.Generator:
    return torch.Generator().manual_seed(
        int.from_bytes(hashlib.blake2b(repr(of).encode(), digest_size=8).digest(), "big") >> 1
    )


def draw(classes: Sequence[Tensor], ways: int, each: int, *of: int | str) -> Tensor:
    """(ways, each) rows of one episode: `ways` classes, `each` rows of each; `of`: all that it depends on."""
    generator = _generator(of)
    chosen = torch.randperm(len(classes), generator=generator)[:ways].tolist()
    return torch.stack([classes[c][torch.randperm(len(classes[c]), generator=generator)[:each]] for c in chosen])


def mini_batches(count: int, size: int, *of: int | str) -> Iterator[list[int]]:
    """Places of `count` examples in batches without end; `of` as of `draw`."""
    generator = _generator(of)
    left: list[int] = []
    while True:
        while len(left) < size:
            left += torch.randperm(count, generator=generator).tolist()
        yield left[:size]
        left = left[size:]


def training(
    classes: Sequence[Tensor], ways: int, shots: int, tail: int, size: int, batches: int, seed: int, start: int = 0
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows and labels of each batch, `batches` of one episode after each other, episode after episode without end.

    Args:
        classes: rows of each class.
        ways, shots: classes of an episode, and pictures of each.
        tail: of these pictures, those that are the last batch of the episode, and in none of the others; 0 = all
            batches are drawn alike.
        size: examples of a batch.
        batches: of an episode.
        seed: of all draws.
        start: batches to leave out at the beginning, as if they had been read.
    """
    episode, first = divmod(start, batches)
    tail = tail if batches > 1 else 0  # an update that takes one batch of an episode learns from all of it
    while True:
        drawn = draw(classes, ways, shots, seed, "episode", episode)
        targets = torch.arange(ways)[:, None].expand_as(drawn)
        rows, labels = (one[:, : shots - tail].flatten() for one in (drawn, targets))
        for number, places in zip(range(batches), mini_batches(len(rows), size, seed, "inner", episode), strict=False):
            if number < first:
                continue
            if tail and number == batches - 1:
                yield drawn[:, shots - tail :].flatten().tolist(), targets[:, shots - tail :].flatten()
            else:
                yield rows[places].tolist(), labels[places]
        episode, first = episode + 1, 0
