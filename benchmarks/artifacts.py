"""How long `gradworks artifacts ls` takes with 10,000 objects: `python -m benchmarks.artifacts`.

Each call is a process of its own, against the S3 server of `gradworks storage` on this machine. Two checkouts: one with
10,000 outputs of a file each, and one with 1,000 folders of nine files, which `ls --files` opens (as many objects).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradworks.store.places import Places
from tests.cluster import toy

_COMMAND = [sys.executable, "-P", "-c", "from gradworks.cli import main; main()", "artifacts", "ls"]


def _files(count: int) -> Iterator[tuple[str, list[bytes]]]:
    for i in range(count):
        yield f"out/{i}", [f"file {i}\n".encode()]


def _folders(count: int) -> Iterator[tuple[str, list[bytes]]]:
    for i in range(count // 10):
        yield f"out/{i}", [f"file {j} of folder {i}\n".encode() for j in range(9)]


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _checkout(root: Path, remote: str, outs: Iterator[tuple[str, list[bytes]]]) -> None:
    """A dvc.lock of a stage for each output, as DVC writes it, and its objects in the store."""
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    places, objects, lines = Places(remote), {}, ["schema: '2.0'", "stages:"]
    for i, (path, bodies) in enumerate(outs):
        md5, more = _md5(bodies[0]), []
        objects |= {_md5(body): body for body in bodies}
        if len(bodies) > 1:
            listed = [{"md5": _md5(body), "relpath": f"{j}.txt"} for j, body in enumerate(bodies)]
            body = json.dumps(listed, sort_keys=True).encode()
            md5, more = f"{_md5(body)}.dir", [f"      nfiles: {len(bodies)}"]
            objects[md5] = body
        lines += [f"  train@{i}:", "    cmd: python -m components.train", "    params:", "      params.yaml:"]
        lines += [f"        method: {i % 10}", "    outs:", f"    - path: {path}", "      hash: md5"]
        lines += [f"      md5: {md5}", f"      size: {sum(map(len, bodies))}", *more]
    (root / "dvc.lock").write_text("\n".join(lines) + "\n")
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda one: places.put(places.data_key(one[0]), one[1]), objects.items()):
            pass
    print(f"{remote}: {len(objects)} objects, dvc.lock of {len(lines)} lines", flush=True)


def _timed(root: Path, options: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*_COMMAND, *options], cwd=root, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(count: int, rounds: int) -> None:
    """Print each round, and the medians.

    Args:
        count: objects in the store, of each checkout.
        rounds: calls of each.
    """
    cases = {"files": [], "folders": [], "folders --files": ["--files"]}
    with tempfile.TemporaryDirectory() as folder, toy.served(Path(folder)):
        for name, outs in (("files", _files), ("folders", _folders)):
            _checkout(Path(folder, name), f"s3://gradworks/{name}", outs(count))
        for name, options in cases.items():
            found = [_timed(Path(folder, name.split()[0]), options) for _ in range(rounds)]
            wall, cpu = (statistics.median(one[i] for one in found) for i in (0, 1))
            each = ", ".join(f"{one[0]:.2f}" for one in found)
            load = os.getloadavg()[0]
            print(f"ls of {name}: median {wall:.2f} s ({each}), {cpu:.2f} s of processor; load {load:.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    given = parser.parse_args()
    measure(given.objects, given.rounds)
