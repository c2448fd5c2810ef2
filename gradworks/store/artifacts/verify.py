"""`gradworks artifacts verify`: read every object of a lock; report missing and damaged ones.

Also gradworks' own objects that carry a digest: lock entries of runs and code archives.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

from gradworks.base.errors import InputError
from gradworks.base.progress import Progress
from gradworks.store import s3
from gradworks.store.artifacts import words
from gradworks.store.artifacts.lock import AT_ONCE, Lock, Out, intact
from gradworks.store.artifacts.store import Fault, Store
from gradworks.store.places import Places


@dataclass(frozen=True)
class Wrong:
    """A missing, damaged or unreadable object.

    Attributes:
        state: missing, damaged or unreadable; stage and path: of the output (empty for other objects).
        object: its URI; said: what was found.
    """

    state: str
    stage: str
    path: str
    object: str
    said: str = ""


def check(lock: Lock, store: Store, absent: set[tuple[str, str]], run: str | None = None) -> dict[str, Any]:
    """Read every object that a lock names, and the objects of gradworks.

    Args:
        absent: stage and path of outputs that are not pushed.
        run: check the lock entries of this run only.

    Returns:
        Counts of objects and bytes read, and the faults, each as `Wrong`.

    Raises:
        InputError: the lock or the store cannot be read.
    """
    outs = [out for out in lock.outs() if (out.stage, out.path) not in absent]
    objects = store.objects()
    own = list(_own(store.places, run))
    counted = _Counted()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        users, wrong = _used(outs, store, pool)
        total = sum(objects[md5].size for md5 in users if md5 in objects) + sum(size for _, size in own)
        with Progress("verify", total, "B") as bar:
            counted.bar = bar

            def data(md5: str) -> list[Wrong]:
                fault = _read(store.stream(md5), counted)
                return [] if fault is None else _wrong(fault, store.uri(md5), users[md5])

            def gradworks(one: tuple[str, int]) -> list[Wrong]:
                found = _own_fault(store.places, one[0])
                counted(one[1])
                return found

            for check_one, these in ((data, users), (gradworks, own)):
                wrong += [fault for found in pool.map(check_one, these) for fault in found]
    return {
        "source": lock.source, "objects": len(users) + len(own), "bytes": counted.bytes,
        "faults": [asdict(one) for one in sorted(set(wrong), key=lambda one: (one.stage, one.path, one.object))],
    }  # fmt: skip


class _Counted:
    """Progress of several threads, in bytes."""

    def __init__(self) -> None:
        self.bytes, self.bar = 0, None
        self._alone = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._alone:
            self.bytes += count
            if self.bar is not None:
                self.bar.advance(count)


def _used(
    outs: list[Out], store: Store, pool: ThreadPoolExecutor
) -> tuple[dict[str, list[tuple[str, str]]], list[Wrong]]:
    """The stages and paths of each object, and faults for folders that cannot be opened."""
    users: dict[str, list[tuple[str, str]]] = {}

    def opened(md5: str) -> list[tuple[str, str]]:
        try:
            return store.folder(md5)
        except Fault as fault:
            lists[md5] = fault
            return []

    folders, lists = list({out.md5 for out in outs if out.folder}), {}
    inside = dict(zip(folders, pool.map(opened, folders), strict=True))
    wrong = []
    for out in outs:
        if out.md5 in lists:  # read, and found wrong
            wrong += _wrong(lists[out.md5], store.uri(out.md5), [(out.stage, out.path)])
            continue
        users.setdefault(out.md5, []).append((out.stage, out.path))
        for path, md5 in inside.get(out.md5, []):
            users.setdefault(md5, []).append((out.stage, f"{out.path}/{path}"))
    return users, wrong


def _read(parts: Iterable[bytes], counted: Callable[[int], None]) -> Fault | None:
    try:
        for part in parts:
            counted(len(part))
    except Fault as fault:
        return fault
    return None


def _wrong(fault: Fault, uri: str, users: list[tuple[str, str]]) -> list[Wrong]:
    return [Wrong(fault.state, stage, path, uri, fault.said) for stage, path in users]


def _own(places: Places, run: str | None) -> Iterator[tuple[str, int]]:
    """Key and size of lock entries (of one run or all) and code archives."""
    for prefix in (places.key("locks", *([run] if run else [])) + "/", places.key("code") + "/"):
        yield from ((one["Key"], one["Size"]) for one in places.list(prefix))


def _own_fault(places: Places, key: str) -> list[Wrong]:
    """Whether an object of gradworks matches the digest that it carries."""
    kind, _, name = key.removeprefix(places.key("")).lstrip("/").partition("/")
    if kind == "locks":
        run, _, name = name.partition("/")
        if intact(places, run, name) is not None:
            return []
        stage = name.removesuffix(".json")
        return [Wrong("damaged", unquote(stage), f"lock entry of run {run}", places.uri(key))]
    digest = name.removesuffix(".tar.gz").rpartition("-")[2]
    with s3.in_words(places.uri(key)):
        found = hashlib.sha256(places.get(key) or b"").hexdigest()
    said = f"found sha256 {found}, expected {digest}"
    return [] if found == digest else [Wrong("damaged", "", "bundle of code", places.uri(key), said)]


def shown(found: dict[str, Any]) -> str:
    """The result of `check` as text."""
    lines = []
    for one in found["faults"]:
        lines.append(f"{one['state']}: {words.plain(one['stage'] or 'code')}: {words.plain(one['path'])}")
        lines.append(f"  {words.plain(one['object'])}" + (f"  {words.plain(one['said'])}" if one["said"] else ""))
    number = len(found["faults"])
    said = f"{number} wrong" if number else "all good"
    lines.append(f"{found['objects']} objects of {found['source']}, {words.size(found['bytes'])} read: {said}")
    if number:
        lines.append("what is missing or damaged: dvc push from where it is whole, or run the stage again")
    return "\n".join(lines)


def raise_if_none(lock: Lock) -> None:
    """Raises InputError if there is nothing to check: that proves nothing."""
    if not any(True for _ in lock.outs()):
        raise InputError(f"{lock.source}: no outputs to verify")
