"""Random draws keyed by purpose and example id: neither the order of rows nor other draws matter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone, for example `uniform(seed, "noise", id)`."""
    text = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64


def choose(ids: Iterable[str], count: int, *key: object) -> set[str]:
    """`count` of the ids without replacement; a smaller count of the same key is a subset of a larger one's."""
    return set(sorted(ids, key=lambda i: (uniform(*key, i), i))[:count])
