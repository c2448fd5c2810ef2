"""What a stage costs in a container beside its own work: `python -m benchmarks.pod` (needs Docker and `make images`).

A stage that does next to nothing, a warm image, and a remote whose run cache has many entries. Side by side, in turn:
the pod's program, and the commands that do the same one by one (get the code, dvc repro --pull, dvc push --run-cache).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from gradworks.cluster import local
from tests import docker
from tests.cluster import toy

_PLAIN = """
mkdir code && cd code && python -c "
import boto3, io, tarfile
s3 = boto3.client('s3')
for key in ('{code}', '{lock}'):
    body = s3.get_object(Bucket='gradworks', Key=key)['Body'].read()
    if key.endswith('gz'):
        tarfile.open(fileobj=io.BytesIO(body)).extractall()
    else:
        open('dvc.lock', 'wb').write(body)
" && dvc config --local core.no_scm true && dvc repro -q -s --pull double@a && dvc push -q --run-cache double@a
"""


def _seconds(command: list[str], home: Path, out: Path) -> float:
    options = local._options(home)
    begun = time.monotonic()
    docker.engine().containers.run(
        docker.image(), command, remove=True, volumes={str(out): {"bind": str(out), "mode": "rw"}}, **options
    )
    return time.monotonic() - begun


def measure(entries: int, rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each, in turn.

    Args:
        entries: how many the run cache of the remote has.
        rounds: how often.
    """
    with tempfile.TemporaryDirectory() as folder, toy.served(Path(folder)) as (clients, _):
        at = Path(folder)
        at.chmod(0o755)
        runs = toy.Runs(toy.checkout(at / "checkout"), at, clients)
        ended, said = runs.pod("bench", "make")
        assert ended == 0, said
        for i in range(entries):
            runs.places.put(f"toy/runs/{i:02x}/{i:064x}/{i:064x}", b"cmd: x\n" * 20)
        lock = {"schema": "2.0", "stages": {"make": runs.places.entry("bench", "make")}}
        key = runs.places.key("lock.json")
        runs.places.put(key, json.dumps(lock).encode())
        home, out = at / "aws", at / "out"
        home.mkdir()
        local._aws(home)
        boot = (toy.ROOT / "gradworks/pod/boot.py").read_text()
        found: dict[str, list[float]] = {"pod": [], "commands": []}
        for i in range(rounds):
            runs.folder = out / str(i)
            out.mkdir(exist_ok=True)
            out.chmod(0o777)
            given = json.dumps(runs.given(f"bench{i}", "double@a"))
            runs.places.put_entry(f"bench{i}", "make", runs.places.entry("bench", "make"))
            plain = _PLAIN.format(code=runs.uri.removeprefix("s3://gradworks/"), lock=key)
            found["commands"].append(_seconds(["sh", "-c", plain], home, out))
            found["pod"].append(_seconds(["python3", "-c", boot, given], home, out))
            seconds = runs.places.record(f"bench{i}", "stages/double@a")["seconds"]
            print(f"round {i + 1}: pod {found['pod'][-1]:.2f} s {seconds}, commands {found['commands'][-1]:.2f} s")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000, help="of the remote's run cache (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    args = parser.parse_args()
    for name, seconds in measure(args.entries, args.rounds).items():
        median, n = statistics.median(seconds), len(seconds)
        print(f"{name}: median {median:.2f} s of {n}, {min(seconds):.2f} to {max(seconds):.2f}")


if __name__ == "__main__":
    main()
