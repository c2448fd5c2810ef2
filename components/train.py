"""Train one cell: one data set, encoder, method and seed.

Writes history, statistics of the gradient, example weights and status.json to --out and the best model to --model. The
best model is the one with the highest score on the split `selection`, which is neither the clean nor the test set. A
cell that runs out of memory or diverges writes all of its outputs too, says so in status.json and exits with 0. A run
that was killed goes on from its last checkpoint by itself.

examples:
  python -m components.train --method reweight --seed 0 --data runs/corrupt/noise/0 --start runs/pretrain/gru \\
      --out runs/train/noise/reweight/gru/0 --model runs/models/noise/reweight/gru/0
  torchrun --standalone --nproc-per-node 2 -m -- components.train --method reweight ...
      two processes; without `--` torchrun takes --start for an option of its own
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from pydantic import Field

from gradworks import base
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.cell import Run, out_of_memory
from gradworks.telemetry import live


class Gpu(base.Section):
    """The section `gpu`: how many processes train together, each with a GPU of its own, and on how many nodes."""

    kind: str = ""
    count: int = Field(0, ge=0)
    nodes: int = Field(1, ge=1)


def _status(trace: Any, ended: tuple[str, str], constant: float, better: int) -> dict[str, Any]:
    """State and reason: what it `ended` as before its time; else by the score of the best constant prediction."""
    state, reason = ended
    if state != "ok":
        pass
    elif trace.diverged:
        state, reason = "diverged", trace.diverged
    elif not trace.best or better * trace.best["score"] <= better * constant:
        reason = f"best selection score {trace.best.get('score')} is not better than that of a constant, {constant}"
        state = "not converged"
    counts = {key: getattr(trace, key) for key in ("batches", "examples", "skipped", "passes", "best")}
    about = {"state": state, "reason": reason, "steps": trace.step, "constant": constant}
    return {**about, **counts, "figures": trace.figures()}


def processes(params: base.Params, asked: int | None) -> int:
    """How many processes are to be started in the place of this one, `asked` for or `gpu.count`; 0 = none."""
    alone = os.environ.get("PET_NNODES", "1") == "1"  # not on one of several nodes
    if "LOCAL_WORLD_SIZE" in os.environ or (alone and params.value("device") == "cpu"):
        return 0  # and torch is not imported
    from gradworks.distributed import wanted

    count = params.optional("gpu", Gpu).count if asked is None else asked
    return wanted(params.value("device"), count, os.environ)


def _expect(asked: int, found: int) -> None:
    """Raises InputError where Trainer has started another number of nodes than was asked for."""
    if found not in (1, asked):
        raise InputError(f"gpu.nodes: found {asked}, but Kubeflow Trainer has started {found} nodes\nexpected as many")


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--method", required=True, help="key of the section `methods`")
    parser.add_argument("--seed", type=int, required=True, help="of initialisation, data order and masks")
    parser.add_argument("--mixture", help="key of the section `mixtures`; none = the project's task alone")
    parser.add_argument("--data", type=Path, required=True, help="folder that `corrupt` wrote")
    parser.add_argument("--start", type=Path, required=True, help="what `pretrain` or another cell wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for history, weights and status")
    parser.add_argument("--model", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--slices", type=Path, help="folder that `slice` wrote, for a mixture that has slices")
    said = "file that `measure` wrote, for a method that takes `as_long_as` another"
    parser.add_argument("--schedule", type=Path, help=said)
    said = "processes that train together, each with a GPU (default: gpu.count); with `device: cuda`, or in a pod"
    parser.add_argument("--processes", type=int, metavar="N", help=said)
    said = "nodes that train together, as Kubeflow Trainer starts them (default: gpu.nodes); elsewhere one trains"
    parser.add_argument("--nodes", type=int, metavar="N", help=said)
    args = parser.parse_args()
    run = Run(args, args.schedule)
    if count := processes(run.params, args.processes):
        from gradworks import distributed

        _expect(args.nodes or run.params.optional("gpu", Gpu).nodes, distributed.nodes(os.environ))
        distributed.launch(count, "components.train", sys.argv[1:], run.params.value("device"))
    else:
        train(run)


def train(run: Run) -> None:
    """Train the cell, as one of several processes or alone, and write its outputs."""
    args = run.args
    encoder = args.start.parent.name if run.later else args.start.name  # of models/…/ENCODER/SEED

    from gradworks import models
    from gradworks.base import checkpoint
    from gradworks.base.device import set_up
    from gradworks.distributed import World
    from gradworks.loop import Stopped
    from gradworks.trace import Trace

    world = World.current(set_up(run.params.value("threads"), run.params.value("device")))
    watch = None
    if world.first:
        watch = live.begin("train", args, encoder=encoder, condition=args.data.parent.name, task=run.task.name).step
    parameters = run.parameters if world.size == 1 else {**run.parameters, "processes": world.size}
    saved = checkpoint.Checkpoint(checkpoint.key("train", run.folders, parameters))
    model, trace, rows, constant, ended, left = None, Trace(), [], 0.0, ("ok", ""), False
    with base.Stopping() as stop:
        try:
            if run.longer is None:
                ended = ("not run", f"the time of {run.point.as_long_as}, which it would take, was not measured")
            elif not run.later or (args.start / models.CONFIG).exists():
                model, trace, rows, constant = run.fit(saved, stop, watch, world)
            else:
                ended = (
                    "not run",
                    f"{run.point.from_ or run.mixed.from_}, which it starts from, ended without a model",
                )
        except Stopped as reason:
            if world.first:
                print(reason, flush=True)
            world.close()  # after the first has written the checkpoint: where one ends, torchrun ends the others
            raise SystemExit(128 + (stop.signal or signal.SIGTERM)) from None
        except (RuntimeError, MemoryError) as error:
            reason = str(error).splitlines()[0] if out_of_memory(error) else world.ended()
            if not reason:
                raise
            world.end(reason)
            left = True
            ended = ("OOM", reason)
            print(f"out of memory: {ended[1]}", flush=True)
    if world.first:
        _write(run, saved, model, trace, rows, ended, constant)
    if not left:
        world.close()


def _write(
    run: Run, saved: Any, model: Any, trace: Any, rows: list[tuple[str, str]], ended: tuple[str, str], constant: float
) -> None:
    """All outputs of a cell; then its checkpoint goes."""
    from gradworks import models

    args = run.args
    with artifacts.atomic_folder(args.model) as folder:
        if model is not None:
            models.save(model, folder)
        artifacts.write_manifest(folder, "train", run.parameters)
    with artifacts.atomic_folder(args.out) as folder:
        trace.write(folder, rows)
        artifacts.write_json(folder / "status.json", _status(trace, ended, constant, run.looks.better))
        artifacts.write_manifest(folder, "train", run.parameters)
    saved.remove()


if __name__ == "__main__":
    base.run(main)
