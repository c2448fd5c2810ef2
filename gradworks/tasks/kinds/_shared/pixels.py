"""Pictures as arrays (H, W, C) of uint8, 0 is black, C is 1 or 3: decoded, in a column of a table, read from it.

Pillow decodes and resizes; arrays of the right shape do not need it.
"""

from __future__ import annotations

import io
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Shape = tuple[int, int, int]  # height, width, channels
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of more than 8 bits


def decode(raw: Any, shape: Shape) -> np.ndarray:
    """The picture of a file's value, resized where it is of another size, in grey or in colours as `shape` says.

    Args:
        raw: a path, the bytes of a file, {bytes, path} as the hub has it, or an array (H, W) or (H, W, C) of uint8.

    Returns:
        `shape` of uint8; a view of an array that has it.

    Raises:
        ValueError: it is no picture; says why, and which file.
    """
    import numpy as np

    if isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and (*raw.shape, 1)[:3] == shape:
        return raw.reshape(shape)
    name = ""
    if isinstance(raw, dict):
        name, raw = Path(raw.get("path") or "").name, raw.get("bytes")
    if isinstance(raw, Path):
        name = f"{raw.parent.name}/{raw.name}"
    said = f"{name}: " if name else ""
    if not isinstance(raw, Path | bytes | np.ndarray):
        raise ValueError(f"{said}no picture")
    return _pillow(raw, shape, said)


def _pillow(raw: Any, shape: Shape, said: str) -> np.ndarray:
    import numpy as np

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError("pictures are decoded by Pillow, which is not installed\npip install pillow") from None
    try:
        if isinstance(raw, np.ndarray):
            picture = Image.fromarray(raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw)
        else:
            picture = Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw)
        if picture.mode in _DEEP:
            raise ValueError(f"found pixels of mode {picture.mode}, expected 8 bits a channel")
        picture = picture.convert("L" if shape[2] == 1 else "RGB")
        if picture.size != (shape[1], shape[0]):
            picture = picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        raise ValueError(f"{said}not a picture that Pillow knows") from None
    except (OSError, SyntaxError, TypeError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{said}{(str(error).splitlines() or ['does not decode'])[0]}") from None
    return np.asarray(picture, np.uint8).reshape(shape)


def as_column(values: Sequence[np.ndarray], shape: Shape) -> pa.Array:
    """Pictures as the values of a column, their bytes one after the other."""
    import numpy as np
    import pyarrow as pa

    memory = np.ascontiguousarray(np.stack(values)) if values else np.empty(0, np.uint8)
    kind = pa.binary(shape[0] * shape[1] * shape[2])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(memory)])


class Pictures(Sequence):
    """The pictures of a column of a table as the encodings of examples, in the memory of the table.

    Args:
        column: of `as_column`.
        shape: of each.

    Raises:
        ValueError: it is another column.
    """

    def __init__(self, column: pa.ChunkedArray, shape: Shape):
        import numpy as np
        import pyarrow as pa

        size = shape[0] * shape[1] * shape[2]
        if column.type != pa.binary(size):
            raise ValueError(f"found a column of {column.type}, expected pictures of {size} bytes, {list(shape)}")
        self._parts = []
        for chunk in column.chunks:
            memory = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size, chunk.offset * size)
            self._parts.append(memory.reshape(len(chunk), *shape))
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: Any) -> dict[str, np.ndarray]:
        """`pixels` (H, W, C)."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        part = bisect_right(self._ends, i % len(self))
        return {"pixels": self._parts[part][i % len(self) - self._ends[part]]}
