"""What is killed and started again ends with the files of what ran through: `python -m benchmarks.kills`.

Ten pods (the pod's program with the stage below it, against the local S3 server; its disk goes with it) and ten times
one of two gloo ranks of `components.train` under torchrun get SIGKILL or SIGTERM in turn, at moments that are keyed by
the number of the kill, and are started again as Kubernetes would. Every output is then compared with that of a run
that nothing broke, byte by byte. Writes benchmarks/kills.json and KILLS.md; fails where a file differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path

from benchmarks import killing
from benchmarks.killing_pods import pods
from benchmarks.killing_ranks import ranks
from gradworks.cost import hardware

KINDS = {"pods": pods, "ranks": ranks}


def written(kills: list[killing.Kill], about: str) -> str:
    """The table as Markdown."""
    lines = [
        "# Kills", "",
        f"{len(kills)} kills, {len(kills)} times the files of an unbroken run, byte for byte; {about}.", "",
        "Pods: the pod's program and the stage below it, against the local S3 server. SIGKILL takes all processes of",
        "the pod, SIGTERM goes to its program alone; the pod's disk is lost each time, and the run cache emptied, so",
        "that nothing is restored. Ranks: one of two gloo processes of `components.train` under torchrun. Then the",
        "same is started again. Moment: share of the seconds that the unbroken run took from the start of the",
        f"`components.train` in it, imports and all. One too late is drawn forward, to {killing.EARLIER} of it.",
        "Step 0: it began again, as the signal came before the first checkpoint or its copy had left the pod, or after",
        "training, before all outputs had.", "",
        "| | killed | method | signal | moment | went on from step | files | equal |", "|---" * 8 + "|",
    ]  # fmt: skip
    for i, one in enumerate(kills, 1):
        step = f"{one.resumed} of {one.steps}" if one.resumed else "0"
        lines.append(
            f"| {i} | {one.kind} | {one.cell} | {one.signal} | {one.moment:.2f} | {step} | {one.files} | yes |"
        )
    return "\n".join([*lines, "", "Made by `python -m benchmarks.kills`, which fails where a file differs.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each kind (default: %(default)s)")
    parser.add_argument("--only", choices=KINDS, help="one kind again; the other as kills.json has it")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("kills.json"))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found = json.loads(args.out.read_text()) if args.only and args.out.exists() else {}
    for kind in [args.only] if args.only else KINDS:
        made = []
        with tempfile.TemporaryDirectory() as folder:
            for one in KINDS[kind](Path(folder) / kind, args.kills):
                made.append(dataclasses.asdict(one))
                print(one, flush=True)
        found[kind] = made
    found["hardware"] = hardware.processor()
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    kills = [killing.Kill(**one) for kind in KINDS for one in found.get(kind, [])]
    args.out.with_name("KILLS.md").write_text(written(kills, found["hardware"]), encoding="utf-8")


if __name__ == "__main__":
    main()
