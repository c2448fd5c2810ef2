"""Copy a running stage's checkpoints and log to S3, so that a killed stage resumes in another pod.

A thread polls every second. A lost connection never stops the stage: the next poll retries.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gradworks.base.errors import InputError
from gradworks.store.places import Places

_LOOK = 1.0  # seconds
_LOG = 15.0  # seconds between two uploads of the log
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)


class Checkpoints:
    """A folder of checkpoints and its copy in S3.

    Args:
        folder: .gradworks/checkpoints of the checkout; prefix: the key that its copy begins with.
    """

    def __init__(self, places: Places, prefix: str, folder: Path) -> None:
        self._places, self._prefix, self._folder = places, prefix, folder
        self._sent: dict[str, tuple[int, int, int]] = {}

    def fetch(self) -> int:
        """Download the checkpoints of an earlier attempt; returns the number of files. Raises InputError."""
        for one in self._places.list(f"{self._prefix}/"):
            name = one["Key"].removeprefix(f"{self._prefix}/")
            file = self._folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._places.get(one["Key"]) or b"")
            self._sent[name] = _stamp(file)
        return len(self._sent)

    def send(self) -> None:
        """Update the copy: upload new and changed files, delete removed ones. Raises InputError."""
        here: dict[str, tuple[int, int, int]] = {}
        for file in self._folder.rglob("*"):
            if not file.name.startswith("."):  # still being written
                with contextlib.suppress(FileNotFoundError):
                    if file.is_file():
                        here[file.relative_to(self._folder).as_posix()] = _stamp(file)
        for name, stamp in here.items():
            if self._sent.get(name) != stamp:
                with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                    self._places.upload(f"{self._prefix}/{name}", self._folder / name)
                    self._sent[name] = stamp
        gone = [name for name in self._sent if name not in here]
        self._places.delete([f"{self._prefix}/{name}" for name in gone])
        for name in gone:
            del self._sent[name]


def _stamp(file: Path) -> tuple[int, int, int]:
    about = file.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


class Log:
    """Output of this process and its children: passed on, and kept in a file with secrets masked."""

    def __init__(self, file: Path) -> None:
        self.file = file
        values = {v for k, v in os.environ.items() if _SECRET.search(k) and len(v) >= 8 and not os.path.exists(v)}
        self._secrets = sorted((v.encode() for v in values), key=len, reverse=True)

    def since(self, size: int) -> str:
        """The log after the first `size` bytes, complete up to this call."""
        until, seen = time.monotonic() + 2.0, -1
        while (there := self.size()) != seen and time.monotonic() < until:
            seen = there
            time.sleep(0.1)
        with self.file.open("rb") as kept:
            kept.seek(size)
            return kept.read().decode(errors="replace")

    def size(self) -> int:
        """The size of the log so far, in bytes."""
        return self.file.stat().st_size if self.file.exists() else 0

    def _clean(self, line: bytes) -> bytes:
        for secret in self._secrets:
            line = line.replace(secret, b"***")
        return line

    @contextlib.contextmanager
    def keep(self, earlier: bytes | None = None) -> Iterator[None]:
        """Log standard output and error, of child processes too, after the log of earlier attempts."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_bytes(earlier + b"--- tried again ---\n" if earlier else b"")
        before = [os.dup(1), os.dup(2)]
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        copier = threading.Thread(target=self._copy, args=(reading, before[0]), daemon=True)
        copier.start()
        try:
            yield
        finally:
            for number, old in enumerate(before, 1):
                os.dup2(old, number)
            copier.join(5)  # a process that the stage left behind may hold the pipe open
            for old in before:
                os.close(old)

    def _copy(self, reading: int, to: int) -> None:
        with os.fdopen(reading, "rb") as lines, self.file.open("ab", buffering=0) as kept:
            for line in iter(lines.readline, b""):
                clean = self._clean(line)
                kept.write(clean)
                with contextlib.suppress(OSError):
                    os.write(to, clean)


class Watch:
    """`with Watch(...):` copies checkpoints and log to S3 while the block runs, and once more at its end.

    Without checkpoints it copies the log alone.
    """

    def __init__(self, places: Places, checkpoints: Checkpoints | None, log: Log, log_key: str) -> None:
        self._places, self._checkpoints, self._log, self._key = places, checkpoints, log, log_key
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._send()

    def _send(self) -> None:
        if self._checkpoints:
            with contextlib.suppress(InputError):
                self._checkpoints.send()

    def _go(self) -> None:
        logged = time.monotonic()
        while not self._ended.wait(_LOOK):
            self._send()
            with contextlib.suppress(InputError):
                if time.monotonic() - logged > _LOG and self._log.file.exists():
                    self._places.upload(self._key, self._log.file)
                    logged = time.monotonic()
