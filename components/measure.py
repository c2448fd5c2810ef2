"""Measure what a method costs on an encoder, beside plain training on the same batches.

Both sides train in one process, a pair of them at a time and in turn, on the real data, encoder, batch sizes,
precision, clipping and optimizer, until the 95 % interval of the ratio of their times is narrow. A pair is as many
steps as the method's work takes to repeat. The plain side makes one optimizer step of as many batches, with
`.backward()` by hand. What a whole run costs is over plain training of all weights with one batch a step: where the
plain side is another, that one is timed beside the method as well, as seconds of two measurements differ by more than
methods do. Peak memory is that of one process a side. A method that cannot be measured says why, and the
stage exits with 0.

--schedule gets the ratio to one decimal place, so that noise does not rerun the cells that train as long as this
method does (`as_long_as`).

examples:
  python -m components.measure --method reweight --seed 0 --data runs/corrupt/noise/0 --start runs/pretrain/gru \\
      --encoder gru --out runs/measure/gru/reweight.json --schedule runs/schedule/gru/reweight.json
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from gradworks import base
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.base.points import entry_options
from gradworks.cell import Run, out_of_memory
from gradworks.cost import hardware
from gradworks.telemetry import live

_WARM_UP = 9  # periods: what libraries set up, and what methods measure in their first steps (2 and 8) alone
_AT_PEAK = 3  # steps beyond a period: the optimizer's state is there from the second on
_COUNTED = 16  # batches, or a period: batches are of like length within, and one is long and another short
_SECONDS = 1.0  # of one side alone, for a counter of energy to move


class Measure(base.Section):
    """The section `measure`.

    pairs: least and greatest number. half_width: of the ratio's 95 % interval, as a share of it, that is enough; the
    one that is written is wider, as it is to hold the ratio of a second measurement.
    seconds: of both sides together, after which no further pair is begun once the least number is there; no limit by
    default.
    """

    pairs: list[int] = Field([40, 200], min_length=2, max_length=2)
    half_width: float = Field(0.03, gt=0)
    seconds: float = Field(math.inf, gt=0, allow_inf_nan=True)

    @field_validator("pairs")
    @classmethod
    def _enough(cls, pairs: list[int]) -> list[int]:
        if not 9 <= pairs[0] <= pairs[1]:
            raise ValueError("expected a least number of 9, below which there is no interval, and a greatest")
        return pairs


class Bench:
    """The data, encoder and settings that both sides share.

    Attributes:
        period: steps after which the method's work repeats.
        consumed: batches of the training stream that a step consumes.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from gradworks import loop, models
        from gradworks.base.device import set_up

        self.run = Run(args)
        self.threads = base.value(args.params, "threads")
        self.device = set_up(self.threads, base.value(args.params, "device"))
        point = self.run.point
        of = [entry_options(slot) for slot in (point.objective, point.weighting, point.update)]
        # each task has a clean gradient of its own, made again for every k-th batch that is scored
        kept = [one.get("clean_every", 1) for one in of]
        parts = len(self.run.trained) if max(kept) > 1 else 1
        self.period = math.lcm(*(one.get("every", 1) * k * parts for one, k in zip(of, kept, strict=True)))
        method = self.method()
        self.consumed = method.batches
        model = self.model()
        self.mixture = self.run.mixture(model, method.clean, self.device)
        self.plan = self.run.plan(artifacts.read_json(args.start / models.CONFIG)["model"], self.mixture)
        self.total = loop.steps(self.plan, method)
        self.needs, self.clean = method.needs, method.clean

    def method(self) -> Any:
        return self.run.method()

    def model(self) -> Any:
        return self.run.model().to(self.device).train()

    def examples(self) -> float:
        """Of a batch: of a budget in the mean of an epoch."""
        batch, parts = self.plan.batch, self.mixture.streams.values()
        if isinstance(batch, int):
            return batch
        return sum(len(part.train) for part in parts) / sum(self.mixture.sizes(batch).values())

    def tokens(self) -> float:
        """Of an example, without padding; 0 of pictures."""
        lengths = [
            sum(len(ids) for name, ids in one.items() if name != "token_type_ids" and isinstance(ids, list))
            for part in self.mixture.streams.values() for one in part.train.encodings
        ]  # fmt: skip
        return sum(lengths) / len(lengths)


class Side:
    """One side: a model, an optimizer and the training stream from its first batch on.

    Args:
        name: "plain", "method" or "single", which is plain training of all weights on the training split alone, a batch
            a step, and as many batches a period as the others.
    """

    def __init__(self, bench: Bench, name: str) -> None:
        from gradworks import loop
        from gradworks.spec import Needs

        plan, seed = bench.plan, bench.run.args.seed
        self._bench, self.model, self._consumed = bench, bench.model(), bench.consumed
        mixture, needs = bench.mixture, bench.needs
        if name == "single":
            mixture, needs = bench.run.mixture(self.model, False, bench.device, ["train"]), Needs()
            self._consumed = 1
            self.model.requires_grad_(True)
        self._method = bench.method() if name == "method" else None
        self._optimizer = loop.make_optimizer(self.model, plan)
        clean = plan.clean_batch if bench.clean and self._method else None
        self._draws = mixture.draws(needs, plan.batch, clean, seed)
        self._steps = self.examples = 0
        self.passes = 0.0

    def __call__(self, _: int = 0) -> None:
        """One period."""
        for _ in range(self._bench.period * self._bench.consumed // self._consumed):
            self.step()

    def step(self) -> None:
        from gradworks import loop
        from gradworks.learning_rate import linear

        bench, plan = self._bench, self._bench.plan
        share = linear(min(self._steps, bench.total - 1), bench.total, plan.warmup)
        asked = None if self._method is None else self._method.clean_for
        drawn, clean = (loop.cut(batches, plan) for batches in self._draws.step(self._steps, asked))
        backward = self._plain if self._method is None else self._method.backward
        made = loop.step(
            self.model, backward, self._optimizer, drawn, clean,
            rate=plan.learning_rate * share, largest=plan.clip, bf16=plan.bf16,
        )  # fmt: skip
        self.passes += made.report.passes
        self._steps += 1
        self.examples += sum(len(part.ids) for parts in drawn for part in parts)

    def _plain(self, model: Any, drawn: Any, _: Any) -> Any:
        """Plain training as one writes it by hand: the mean over each batch's labels, and the mean of the batches."""
        from gradworks.spec import StepReport

        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for parts in drawn:
            mass = sum(part.mass.sum() for part in parts)
            for part in parts:
                task = self._bench.run.trained[part.task]
                losses = task.loss(task.outputs(model, part), part)
                loss = (part.mass * losses).sum() / (mass * len(drawn))
                loss.backward()
                total = total + loss.detach()
        return StepReport(False, len(drawn), log={"loss": float(total), "finite": 1.0})


def _time(bench: Bench, settings: Measure) -> dict[str, Any]:
    """Time, operations, passes, energy and throughput of the two sides."""
    from gradworks.cost import energy, operations, pairs

    sides = {name: Side(bench, name) for name in ("plain", "method")}
    batches = bench.period * bench.consumed
    periods, counted, missed = -(-_COUNTED // batches), {}, set()
    for name, side in sides.items():
        for _ in range(_WARM_UP):
            side()
        side.examples, side.passes = 0, 0.0
        with operations.Operations() as found:
            for _ in range(periods):
                side()
        counted[name] = found.total / side.examples
        missed |= set(found.not_counted)
    passes = sides["method"].passes / (periods * batches)
    done = pairs.compare(
        *sides.values(), bench.device.type, settings.seconds, tuple(settings.pairs), settings.half_width,
    )  # fmt: skip
    found, run = done.repeat, _run(bench, sides["method"], settings) or done.repeat
    seconds = dict(zip(sides, (value / batches for value in done.seconds), strict=True))
    rates = {name: bench.examples() / value for name, value in seconds.items()}
    counter = energy.counter(bench.device.type)
    per_example = bench.tokens()
    tokens = {name: rate * per_example for name, rate in rates.items()} if per_example else {}
    taken = counter and {name: _joules(side, counter) for name, side in sides.items()}
    return {
        "pairs": len(done),
        "time": {"ratio": found.value, "low": found.low, "high": found.high, **_named(seconds, "seconds")},
        "run": {"ratio": run.value, "low": run.low, "high": run.high},
        "operations": {
            "ratio": None if missed else counted["method"] / counted["plain"],
            **counted,
            "not_counted": sorted(missed),
        },
        "passes": passes,
        "energy": taken
        and {"ratio": taken["method"] / taken["plain"], **_named(taken, "joules"), "source": counter.source},
        "throughput": {
            **_named(rates, "examples"),
            **_named(tokens, "tokens"),
        },
    }


def _run(bench: Bench, method: Side, settings: Measure) -> Any:
    """The ratio of the method's time to that of plain training with one batch a step; None where that is `plain`."""
    from gradworks.cost import pairs

    point = bench.run.point
    if bench.consumed == 1 and point.trainable == "all" and point.train_on == ["train"]:
        return None
    single = Side(bench, "single")
    for _ in range(_WARM_UP):
        single()
    limits = settings.seconds, tuple(settings.pairs), settings.half_width
    return pairs.compare(single, method, bench.device.type, *limits).repeat


def _named(values: dict[str, float], unit: str) -> dict[str, float]:
    return {f"{name}_{unit}": value for name, value in values.items()}


def _joules(side: Side, counter: Any) -> float:
    """Per example, of one side alone: counters move too seldom for pairs."""
    before, end, side.examples = counter.read(), time.monotonic() + _SECONDS, 0
    while time.monotonic() < end:
        side()
    return (counter.read() - before) / side.examples


_benches: dict[str, Bench] = {}  # of the process: a forked one has its parent's


def _bench(args: argparse.Namespace) -> Bench:
    return _benches.get(args.method) or _benches.setdefault(args.method, Bench(args))


def _first(args: argparse.Namespace, name: str) -> None:
    side = Side(_bench(args), name)
    for _ in range(2):
        side.step()


def _work(args: argparse.Namespace, name: str) -> None:
    bench = _bench(args)
    side = Side(bench, name)
    for _ in range(bench.period + _AT_PEAK):
        side.step()


def _memory(bench: Bench) -> dict[str, Any]:
    from gradworks.cost import memory

    args, device = bench.run.args, bench.device.type
    alone = sys.platform == "linux" and device == "cpu" and bench.threads == 1 and threading.active_count() == 1
    start = "fork" if alone else None  # the others start in seconds
    most = {name: memory.peak(_work, _first, (args, name), device, start, [__name__]) for name in ("plain", "method")}
    return {"memory": {"ratio": most["method"] / most["plain"], **_named(most, "bytes")}}


def measured(args: argparse.Namespace, settings: Measure) -> dict[str, Any]:
    """What the file says beside method and encoder; `state` and `reason` where there is nothing to say."""
    from gradworks import models

    run = Run(args)
    point, first = run.point, run.point.from_ or run.mixed.from_
    if first and not (args.start / models.CONFIG).exists():
        return {"state": "not run", "reason": f"{first}, which it starts from, ended without a model"}
    try:
        bench = _bench(args)
        found = {"batches": bench.consumed, **_memory(bench), **_time(bench, settings)}
    except InputError:
        raise
    except (RuntimeError, MemoryError, ValueError, NotImplementedError) as error:
        state = "OOM" if out_of_memory(error) else "not run"
        return {"state": state, "reason": str(error).splitlines()[0]}
    note = f"the second phase alone, from the model of {first}" if first else ""
    if point.trainable == "head":
        note += ("; " if note else "") + "both sides train the last layer of a frozen encoder"
    return {"state": "ok", "reason": "", **({"note": note} if note else {}), **found}


def main() -> None:
    parser = base.parser(__doc__)
    parser.add_argument("--method", required=True, help="key of the section `methods`")
    parser.add_argument("--encoder", required=True, help="key of the section `pretrain`")
    parser.add_argument("--seed", type=int, required=True, help="of initialisation, data order and masks")
    parser.add_argument("--mixture", help="key of the section `mixtures`; none = the project's task alone")
    parser.add_argument("--data", type=Path, required=True, help="folder that `corrupt` wrote")
    parser.add_argument("--start", type=Path, required=True, help="what `pretrain` or another cell wrote")
    parser.add_argument("--slices", type=Path, help="folder that `slice` wrote, for a mixture that has slices")
    parser.add_argument("--out", type=Path, required=True, help="file for the costs")
    parser.add_argument("--schedule", type=Path, required=True, help="file for the ratio of times, rounded")
    args = parser.parse_args()
    settings = base.optional(args.params, "measure", Measure)
    machine = hardware.check(args.params)
    metrics = live.begin("measure", args, condition=args.data.parent.name, task=base.value(args.params, "task"))
    found = measured(args, settings)
    ratio = found["time"]["ratio"] if found["state"] == "ok" else None
    if ratio is not None:
        metrics.overhead(ratio)
    on = {"threads": base.value(args.params, "threads"), **machine}
    device = base.value(args.params, "device")
    on["device"] = machine["accelerator"] if device != "cpu" and machine["accelerator"] else machine["processor"]
    about = {"method": args.method, "encoder": args.encoder, "hardware": on}
    artifacts.write_json(args.out, {**about, **found})
    artifacts.write_json(args.schedule, {"ratio": ratio and round(ratio, 1)})


if __name__ == "__main__":
    base.run(main)
