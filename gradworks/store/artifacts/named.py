"""An output, or a file of a folder, by its path: for `show`, `cat` and `url`."""

from __future__ import annotations

import difflib
import posixpath
import sys
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from gradworks.base.errors import InputError
from gradworks.store import s3
from gradworks.store.artifacts.lock import Lock, Out
from gradworks.store.artifacts.store import Store
from gradworks.store.artifacts.words import plain

_WEEK = 7 * 86400  # the longest validity of a signature


@dataclass(frozen=True)
class Named:
    """The target of a path: an output, or a file in one. `md5` is the object's name."""

    out: Out
    path: str
    md5: str

    @property
    def folder(self) -> bool:
        return self.md5.endswith(".dir")


def find(lock: Lock, store: Store, name: str) -> Named:
    """The output or file of that path; a stage with one output may be named instead.

    Raises:
        InputError: there is none; names similar ones. Fault: its folder cannot be opened.
    """
    outs, path = list(lock.outs()), posixpath.normpath(name)
    for out in outs:
        if out.path == path:
            return Named(out, path, out.md5)
    for out in outs:
        if out.folder and path.startswith(f"{out.path}/"):
            inside = dict(store.folder(out.md5))
            rest = path.removeprefix(f"{out.path}/")
            if rest in inside:
                return Named(out, path, inside[rest])
            raise _nothing(lock, name, [f"{out.path}/{one}" for one in inside])
    own = [out for out in outs if out.stage == name]
    if len(own) == 1:
        return Named(own[0], own[0].path, own[0].md5)
    if own:
        raise InputError(f"{plain(name)} has {len(own)} outputs\nname one: {', '.join(plain(o.path) for o in own[:5])}")
    raise _nothing(lock, name, [one for out in outs for one in (out.path, out.stage)])


def file(lock: Lock, store: Store, name: str) -> Named:
    """As `find`, but a file. Raises InputError, Fault."""
    found = find(lock, store, name)
    if found.folder:
        inside = ", ".join(plain(path) for path, _ in store.folder(found.md5)[:5])
        raise InputError(f"{plain(found.path)}: a folder\nname one of its files: {inside}")
    return found


def _nothing(lock: Lock, name: str, known: list[str]) -> InputError:
    near = difflib.get_close_matches(name, dict.fromkeys(known), 3, 0.5) or known[:3]
    return InputError(f"{lock.source}: nothing at {plain(name)}\nfound: {', '.join(map(plain, near)) or 'no outputs'}")


def cat(lock: Lock, store: Store, name: str) -> None:
    """Write a file to standard output. Raises Fault, for a large file after its bytes were written."""
    found = file(lock, store, name)
    for part in store.stream(found.md5):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def url(lock: Lock, store: Store, name: str, seconds: float) -> dict[str, Any]:
    """A link that downloads a file without credentials, under its own name, until it expires.

    Args:
        seconds: its validity; a week at most.

    Raises:
        InputError: no such file or object, or `seconds` is out of range.
    """
    if not 1 <= seconds <= _WEEK:
        raise InputError("--expires: expected between 1s and 7d, as long as a signature may last")
    found = file(lock, store, name)
    places, key = store.places, store.places.data_key(found.md5)
    if places.head(key) is None:
        raise InputError(f"{places.uri(key)}: missing\n{plain(found.out.stage)} made it: {plain(found.path)}")
    shown = f"attachment; filename*=UTF-8''{quote(posixpath.basename(found.path), safe='')}"
    # boto3 uses version 2 in some regions, which newer stores refuse
    places.client.meta.events.register("choose-signer.s3.GetObject", lambda **_: "s3v4-query")
    with s3.in_words(places.uri(key)):
        made = places.client.generate_presigned_url(
            "get_object",
            {"Bucket": places.bucket, "Key": key, "ResponseContentDisposition": shown},
            ExpiresIn=int(seconds),
        )
    return {"url": made, "seconds": int(seconds), "stage": found.out.stage, "path": found.path}
