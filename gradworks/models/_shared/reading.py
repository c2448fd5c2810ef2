"""One forward pass of an encoder for the heads of several tasks that read the same rows.

    with model.reading() as reading:
        for head in heads:
            reading.next()
            head(model, inputs)         # its way to the encoder goes through `Headed.once`

The first head runs the encoder. The others get what it made, and find the generators of dropout where their own pass
would have left them, so each has, to the bit, the outputs of a forward pass of its own under the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradworks.base.errors import InputError


class _Made(NamedTuple):
    """What a part of the model made of what it read, and where it left the generators."""

    part: str
    reads: tuple[Tensor, ...]
    value: Any
    after: list[Tensor]


class Reading:
    """What the parts of a model have made of one micro-batch.

    Args:
        devices: indices of the CUDA devices that dropout may draw on.
    """

    def __init__(self, devices: Sequence[int] = ()) -> None:
        self._generators = [torch.default_generator, *(torch.cuda.default_generators[one] for one in devices)]
        self._made, self._heads = list[_Made](), 0

    def next(self) -> None:
        """Another head begins."""
        self._heads += 1

    def __call__(self, part: str, reads: Sequence[Tensor], make: Callable[[], Any], encoder: bool) -> Any:
        """What `make` gives, or gave for an earlier head that read the same.

        Args:
            part: of the model.
            reads: all that `make` depends on beside the parameters.
            encoder: the part runs for the first head alone.

        Raises:
            InputError: another head has the encoder read something else.
        """
        for known in self._made:
            if known.part == part and _same(known.reads, reads):
                for one, state in zip(self._generators, known.after, strict=True):
                    one.set_state(state)
                return known.value
        if encoder and self._heads > 1:
            raise InputError(
                f"together: found tasks whose {part} is not of the same tokens\n"
                "expected tasks that read the same texts in the same way, in one sequence each"
            )
        value = make()
        self._made.append(_Made(part, tuple(reads), value, [one.get_state() for one in self._generators]))
        return value


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether all are equal, in whatever shape; what lies in the same memory is not read."""
    return len(a) == len(b) and all(
        x.numel() == y.numel()
        and ((x.data_ptr() == y.data_ptr() and x.is_contiguous() and y.is_contiguous())
             or torch.equal(x.flatten(), y.flatten()))
        for x, y in zip(a, b, strict=True)
    )  # fmt: skip
