"""The digest of a container image: it is the image's tag, so that the tag says which environment is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gradworks.base.errors import InputError

LENGTH = 12  # hex digits


def files(kind: str) -> tuple[str, str]:
    """What decides what an image of this kind (cpu, gpu) holds; paths from the checkout's root."""
    return "constraints.txt", f"images/{kind}/Dockerfile"


def digest(root: Path, kind: str) -> str:
    """As `cat constraints.txt images/KIND/Dockerfile | git hash-object --stdin | cut -c 1-12`.

    Args:
        root: of the checkout.
        kind: cpu or gpu.

    Raises:
        InputError: one of the files is missing.
    """
    try:
        text = b"".join((root / name).read_bytes() for name in files(kind))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file\nthe tag of the {kind} image is made from it") from None
    return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()[:LENGTH]
