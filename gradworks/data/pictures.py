"""Pictures as published: the idx files of MNIST, arrays in .npz, folders with a folder of pictures for each class.

A row has the fields `image`, an array of uint8 or a path, and `label`, in folders also `id`. The kind of the task
decodes what is a path.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np

LAYOUTS = ("idx", "npz", "folder")
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_IDX = ("-images-idx3-ubyte", "-images.idx3-ubyte")  # of an images file; its labels are in the file beside it
_IDX_MAGIC = {3: b"\0\0\x08\x03", 1: b"\0\0\x08\x01"}  # unsigned bytes of so many dimensions


def layout_of(path: Path) -> str | None:
    """The layout of a split's file or folder; None where it is none of pictures."""
    if path.is_dir():
        return "folder"
    if _idx_split(path) is not None:
        return "idx"
    return "npz" if path.suffix == ".npz" else None


def splits_of(folder: Path) -> dict[str, Path]:
    """Splits by name: X-images-idx3-ubyte[.gz] and X.npz are the split X; a folder of folders with pictures is one of
    its name, and where they lie in `folder` itself, the split `all`. Empty where there is none.
    """
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith((".", "~"))]
    found: dict[str, Path] = {}
    for path in files:
        split = _idx_split(path) or (path.stem if path.suffix == ".npz" else None)
        if split is not None and split in found:
            raise InputError(f"{folder}: {found[split].name} and {path.name} are both the split {split!r}")
        if split is not None:
            found[split] = path
    if found:
        return found
    inside = _folders(folder)
    if any(_files(one) for one in inside):
        return {"all": folder}
    return {one.name: one for one in inside if any(_files(deeper) for deeper in _folders(one))}


def read(path: Path, layout: str, advance: Callable[[int], None]) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """Names of the fields; line, counted from 1, and fields, or why a picture cannot be read.

    Raises:
        InputError: the file is damaged, has no pictures, or labels that are not one for each.
    """
    if layout == "folder":
        return ["id", "image", "label"], _folder(path, advance)
    images, labels = _idx(path) if layout == "idx" else _npz(path)
    advance(path.stat().st_size)
    return ["image", "label"], _rows(images, labels)


def _rows(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, Any]]:
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True), 1):
        yield number, {"image": image, "label": label}


def _folders(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith((".", "__"))]


def _files(folder: Path) -> list[Path]:
    """Of pictures, by their suffix."""
    return [p for p in sorted(folder.iterdir()) if p.is_file() and p.suffix.lower() in _SUFFIXES]


def _folder(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[int, Any]]:
    number = 0
    for one in _folders(path):
        for file in sorted(p for p in one.iterdir() if p.is_file() and not p.name.startswith(".")):
            number += 1
            name = f"{one.name}/{file.name}"
            if file.suffix.lower() not in _SUFFIXES:
                yield number, f"{name}: no picture by its suffix; expected {', '.join(_SUFFIXES)}"
            else:
                yield number, {"id": name, "image": file, "label": one.name}
    advance(path.stat().st_size)


def _idx_split(path: Path) -> str | None:
    name = path.name.removesuffix(".gz")
    return next((name.removesuffix(end) for end in _IDX if name.endswith(end) and name != end), None)


def _idx(path: Path) -> tuple[np.ndarray, np.ndarray]:
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1"))
    images, labels = _idx_array(path, 3), _idx_array(beside, 1)
    if len(images) != len(labels):
        raise InputError(f"{beside}: found {len(labels)} labels\nexpected {len(images)}, one for each of {path.name}")
    return images, labels


def _idx_array(path: Path, dimensions: int) -> np.ndarray:
    import numpy as np

    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if head[:4] != _IDX_MAGIC[dimensions] or len(head) < 4 + 4 * dimensions:
                raise InputError(f"{path}: no idx file of {dimensions} dimensions: begins with {head[:4].hex(' ')}")
            shape = np.frombuffer(head, ">u4", dimensions, 4).tolist()
            made = np.empty(shape, np.uint8)
            # into the array's own memory: what is decompressed is there once
            place, rest = memoryview(made).cast("B") if made.size else memoryview(b""), made.size
            while rest and (count := file.readinto(place[made.size - rest :])):
                rest -= count
            if rest or file.read(1):
                found = "fewer" if rest else "more"
                raise InputError(f"{path}: found {found} bytes\nexpected {made.size} of {shape}, as its header says")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file\nexpected the labels beside the images") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged: {str(error).splitlines()[0]}") from None
    return made


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Arrays `images` (..., H, W) or (..., H, W, 3) of uint8 or bool, and `labels` (...) of whole numbers or text."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("images", "labels") if name not in file.files]
            if missing:
                raise InputError(f"{path}: no array {missing[0]!r}\nfound: {', '.join(file.files) or 'none'}")
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable .npz: {(str(error).splitlines() or ['damaged'])[0]}") from None
    if images.dtype == bool:
        images = images.view(np.uint8)
        images *= 255
    colours = images.ndim == labels.ndim + 3 and images.shape[-1] in (1, 3)
    if images.dtype != np.uint8 or not (colours or images.ndim == labels.ndim + 2):
        found = f"images {images.shape} of {images.dtype}, labels {labels.shape}"
        raise InputError(f"{path}: found {found}\nexpected images (..., H, W) or (..., H, W, C) of uint8, labels (...)")
    tail = images.shape[labels.ndim :]
    if images.shape[: labels.ndim] != labels.shape:
        raise InputError(f"{path}: found images {images.shape} and labels {labels.shape}\nexpected a label for each")
    return images.reshape(-1, *tail), labels.reshape(-1)
