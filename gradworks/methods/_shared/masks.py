"""Random numbers keyed by (seed, batch of the data stream, micro-batch, stream): replayed by key, not stored.

Dropout noise is cached for the current micro-batch only (see `noise.py`).

`batch` counts the batches that a run has drawn, not its optimizer steps: `erm` (one batch a step) and `dotprod` (two)
see the same masks on the same batch. The key depends neither on how many passes a method makes nor on whether it draws
clean batches, and no state of a global generator enters or leaves.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.noise import Noise
from gradworks.spec import Batch


def key(*parts: int | str) -> int:
    """63 bits of blake2b of the parts joined by '/': the seed that `torch.manual_seed` would take for this key.

    Dropout of stream s in micro-batch m of the b-th train batch draws with key(seed, "train", b, m, s); the clean batch
    beside it with key(seed, "clean", b, m, s); noise for an example with key(seed, "noise", b, id).
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class _Seeded:
    """Inside, these generators draw from a seed; afterwards, also after an error, they are as they were before."""

    def __init__(self, seed: int, generators: Sequence[torch.Generator]) -> None:
        self._seed, self._generators = seed, generators

    def __enter__(self) -> None:
        self._states = [generator.get_state() for generator in self._generators]
        for generator in self._generators:
            generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)


class Masks:
    """See `gradworks.spec.Masks`.

    Args:
        seed: of the run; the same for all methods that are compared.
        split: "train" or "clean".
        batch: how many batches the run drew before this one.
        micro: index of the micro-batch over all ranks: m ranks = m micro-batches.
        devices: indices of the CUDA devices whose generators dropout draws from.
        kept: cache of the current micro-batch's noise, shared by all masks of a step. None: nothing is cached.
    """

    def __init__(
        self, seed: int, split: str, batch: int, micro: int, devices: Sequence[int] = (),
        kept: dict[Any, Any] | None = None,
    ):  # fmt: skip
        self._seed, self._split, self._batch, self._micro = seed, split, batch, micro
        self._devices = list(devices)
        self._kept = kept

    def __call__(self, stream: int) -> contextlib.AbstractContextManager:
        seed = key(self._seed, self._split, self._batch, self._micro, stream)
        # not torch.manual_seed: it would also seed devices whose generators are not put back
        generators = [torch.default_generator, *(torch.cuda.default_generators[device] for device in self._devices)]
        seeded = _Seeded(seed, generators)
        return seeded if self._kept is None else self._noised(seeded, stream)

    @contextlib.contextmanager
    def _noised(self, seeded: _Seeded, stream: int) -> Iterator[None]:
        with seeded, self._noise(stream):
            yield

    def _noise(self, stream: int) -> Noise:
        here = (self._split, self._batch, self._micro)
        if self._kept.get("of") != here:
            self._kept.clear()
            self._kept["of"] = here
        return Noise(self._kept.setdefault(stream, []))

    def noise(self, like: Tensor, batch: Batch) -> Tensor:
        """Drawn on the CPU, so that every device sees the same numbers."""
        shape = (like.shape[0] // len(batch.ids), *like.shape[1:])
        generator = torch.Generator()
        rows = [
            torch.randn(shape, generator=generator.manual_seed(key(self._seed, "noise", self._batch, i)))
            for i in batch.ids
        ]
        return torch.cat(rows).to(like)
