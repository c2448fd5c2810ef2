"""The tag of a container image: a digest of the environment it holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gradworks.base.errors import InputError

LENGTH = 12  # hex digits
FILES = ("constraints.txt", "images/Dockerfile")  # which, with the kind, decide what an image holds


def digest(root: Path, kind: str) -> str:
    """As `(echo KIND; cat constraints.txt images/Dockerfile) | git hash-object --stdin | cut -c 1-12`.

    Args:
        root: of the checkout.
        kind: cpu or gpu.

    Raises:
        InputError: one of the files is missing.
    """
    try:
        text = f"{kind}\n".encode() + b"".join((root / name).read_bytes() for name in FILES)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file\nthe tag of the {kind} image is made from it") from None
    return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()[:LENGTH]
