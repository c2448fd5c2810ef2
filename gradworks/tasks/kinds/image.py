"""Classification of pictures: one of C classes, cross entropy. Pictures are arrays of bytes in the table itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from gradworks.base.errors import InputError
from gradworks.tasks.kinds import classification
from gradworks.tasks.kinds._shared import pixels

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from gradworks.tasks import TaskSpec

_AT_ONCE = 2**23  # bytes of pictures that are written together
_Size = Annotated[int, Field(ge=1)]
ShapeOption = Annotated[tuple[_Size, _Size, _Size], Field(strict=False)]


class Options(classification.Options):
    """shape: [height, width, channels] of what the model reads, 1 or 3 channels; pictures of another size are resized,
    those in colours become grey where there is one channel.
    """

    shape: ShapeOption


class Kind(classification.Kind):
    """What is classified is one column of pictures. `embed` gives the pixels, from 0 to 1: SMART, R3F and R-Drop add
    their noise to these.

    Attributes:
        shape: height, width, channels.
    """

    reads = "pictures"

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        shape = tuple(spec.options.get("shape", ()))
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise ValueError(f"shape: found {list(shape)}\nexpected [height, width, channels], 1 or 3 channels")
        if len(spec.texts) != 1:
            raise ValueError(f"texts: found {list(spec.texts)}\nexpected one column, of pictures")
        self.shape: pixels.Shape = shape
        self.rows_at_once = max(1, _AT_ONCE // math.prod(shape))

    def take(self, raw: Any, column: str) -> np.ndarray:
        """(H, W, C) uint8."""
        return pixels.decode(raw, self.shape)

    def column(self, values: Sequence[np.ndarray]) -> pa.Array:
        return pixels.as_column(values, self.shape)

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[Any, Tensor]:
        """Pictures in the memory of the table; labels (n,) int64. `max_length` is of texts."""
        if tuple(model.shape) != self.shape:
            raise InputError(
                f"{where}: found pictures of {list(self.shape)}\nexpected {list(model.shape)}, which the encoder reads"
            )
        try:
            found = pixels.Pictures(table[self.spec.texts[0]], self.shape)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        return found, self.targets(table, where)
