"""The rows of the cost table: which method, what it must cost at least, and what the project promises.

A floor counts what cannot be left out, in thirds of a plain pass over the examples of one batch: forward passes,
backward passes through the activations, weight gradients, and work of a method's own of the size of one of these.
Plain training is (1, 1, 1) per batch. `r` is the size of the clean batch as a share of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.models import KINKED, ON_CPU

QUARTER = 0.25


@dataclass(frozen=True)
class Work:
    """Thirds of a plain pass, over the examples of one batch.

    `clean`: plain passes over the clean batch; `each`: backward passes and weight gradients for every single example.
    """

    forward: float
    backward: float
    weights: float
    other: float = 0.0
    clean: float = 0.0
    each: float = 0.0

    def at(self, r: float | None, n: int = 0) -> Work:
        """With the passes over the clean batch, and those of each of n examples, among the others."""
        clean, each = self.clean * (r or 0.0), self.each * n
        return Work(self.forward + clean, self.backward + clean + each, self.weights + clean + each, self.other)

    @property
    def passes(self) -> float:
        """In plain passes, after `at`."""
        return (self.forward + self.backward + self.weights + self.other) / 3


@dataclass(frozen=True)
class Targets:
    """Upper bounds, None where nothing is promised. `time`: of the ratio, by model; "" = every other model.

    Time and memory are promised for a clean batch of a quarter.
    """

    time: Mapping[str, float] = field(default_factory=dict)
    memory: float | None = None
    error: float | None = None
    kinked: float | None = None  # of the error on models with kinks
    sign: float | None = None  # lower bound of the sign agreement

    def of(self, model: str, fraction: float | None) -> dict[str, float | None]:
        """By name: time, memory, error, sign."""
        cost = fraction in (None, QUARTER)
        return {
            "time": self.time.get(model, self.time.get("")) if cost else None,
            "memory": self.memory if cost else None,
            "error": self.kinked if model in KINKED else self.error,
            "sign": self.sign,
        }


@dataclass(frozen=True)
class Row:
    """One method, one way to compute it.

    Attributes:
        method, backend: labels; together with fraction and model they name a row of the results.
        slots: arguments of `Method`; empty for a peer.
        floor: work per batch; None where no closed form is claimed.
        fractions: sizes of the clean batch; None = no clean batch.
        models: on which it is measured.
        error: which oracle judges it: "scores", "term", "gradient" (benchmarks/errors.py).
        peer: name in benchmarks/peers.py of somebody else's way to compute the same.
        attention: of the method's side; "eager" where it differentiates twice or forward. Plain training has "sdpa".
        kinked: judge the error on models with kinks too.
        period: steps after which its work repeats: one round of timing.
    """

    method: str
    backend: str
    slots: Mapping[str, Any] = field(default_factory=dict)
    floor: Work | None = None
    fractions: tuple[float | None, ...] = (None,)
    models: tuple[str, ...] = ON_CPU
    targets: Targets = field(default_factory=Targets)
    error: str = ""
    peer: str = ""
    attention: str = "sdpa"
    kinked: bool = False
    period: int = 1


def _reweight(backend: str, floor: Work, **options: Any) -> Row:
    slots = {"weighting": {"reweight": {"backend": backend}}}
    return Row("reweight", backend, slots, floor, **({"fractions": (QUARTER,), "error": "scores"} | options))


def _update(method: str, entry: Any, floor: Work | None, backend: str = "", **options: Any) -> Row:
    return Row(method, backend, {"update": entry}, floor, **options)


def _objective(method: str, entry: Any, floor: Work | None, backend: str = "", **options) -> Row:
    return Row(method, backend, {"objective": entry}, floor, **options)


def _smart(ascent: str, **options: Any) -> dict[str, Any]:
    return {"smart": {"ascent": ascent, "smoothness": 1.0, "proximal": 1.0, **options}}


def _weighting(entry: str) -> Row:
    return Row(entry, "", {"weighting": entry}, PLAIN, models=SMALL)


PLAIN, TWICE = Work(1, 1, 1), Work(2, 2, 2)
SMALL = ("bert-2x128", "gru")  # rows that nothing is promised of

AS_PAPER = {"projection": True, "relative": False, "epsilon": 1e-5, "noise": 1e-5}

ROWS: tuple[Row, ...] = (
    Row("erm", "Method", {}, PLAIN),
    _update("erm", {"erm": {"batches": 2}}, PLAIN, "Method, 2 batches", models=SMALL),
    # the scores by dot products: one third more than the weighted step itself
    _reweight(
        "ghost", Work(1, 1, 1, 1, clean=1), fractions=(QUARTER, 1.0),
        targets=Targets({"bert-2x128": 1.70, "bert-4x256": 1.85, "gru": 1.6}, memory=1.2, error=1e-6),
    ),
    # the outputs at a second point: one forward pass more
    _reweight(
        "logit_fd", Work(2, 1, 1, clean=1), fractions=(QUARTER, 1.0),
        targets=Targets({"": 1.95}, memory=1.05, error=1e-3, sign=0.999),
    ),
    Row("reweight, every: 5", "ghost", {"weighting": {"reweight": {"backend": "ghost", "every": 5}}},
        Work(1, 1, 1, 0.2, clean=0.2), (QUARTER,), SMALL, period=5),
    # a second forward pass whose tangent costs two: not kept for the backward pass, which saves its memory
    _reweight("jvp", Work(2, 1, 1, 2, clean=1), attention="eager"),
    _reweight("per_example", Work(1, 1, 1, clean=1, each=1), models=SMALL),
    _reweight("second_order", Work(1, 2, 2, 2, clean=1), models=("bert-2x128", "gru", "bow"), attention="eager"),
    Row("reweight", "higher", peer="Higher", fractions=(QUARTER,), models=("bert-2x128", "gru", "bow"),
        attention="eager", floor=Work(3, 3, 2, clean=1)),
    Row("reweight", "torch.func", peer="TorchFunc", fractions=(QUARTER,), models=("bert-2x128", "bow")),
    Row("reweight", "opacus", peer="Opacus", fractions=(QUARTER,), models=("bert-2x128", "bow")),
    _weighting("random"),
    _weighting("hard_mining"),
    _weighting("class_ratio"),
    _update(
        "dotprod", {"dotprod": {"form": "central"}}, Work(1.5, 1.5, 1.5), "central", error="term", kinked=True,
        targets=Targets({"": 1.58}, memory=1.3, error=1e-4, kinked=1e-2),
    ),
    _update(
        "dotprod, every: 5", {"dotprod": {"every": 5}}, Work(1.1, 1.1, 1.1), "central", period=5,
        targets=Targets({"": 1.12}),
    ),
    _update(
        "dotprod", {"dotprod": {"form": "one_sided"}}, Work(1.5, 1.5, 1.5), "one_sided", error="term", kinked=True,
        models=SMALL,
    ),
    _update(
        "dotprod", {"dotprod": {"form": "exact"}}, None, "exact", error="term", models=("bert-2x128",),
        attention="eager",
    ),
    _update("reptile", "reptile", PLAIN, targets=Targets({"": 1.05}, memory=1.25)),
    _update("fomaml", "fomaml", PLAIN, targets=Targets({"": 1.05}, memory=1.25)),
    _update("sam", "sam", TWICE, models=SMALL),
    _update("asam", "asam", TWICE, models=SMALL),
    _update("grad_norm_penalty", "grad_norm_penalty", TWICE, models=SMALL),
    _update("maml", "maml", None, models=("bow",)),
    _update("pcgrad", {"pcgrad": {"batches": 2}}, PLAIN, models=SMALL),
    _update("cagrad", {"cagrad": {"batches": 2}}, PLAIN, models=SMALL),
    _update("upgrad", {"upgrad": {"batches": 2}}, PLAIN, models=SMALL),
    _update("joint", {"joint": {"batches": 2}}, PLAIN, models=SMALL),
    _update("uncertainty", {"uncertainty": {"batches": 2}}, PLAIN, models=SMALL),
    _update("famo", {"famo": {"batches": 2}}, PLAIN, models=SMALL),
    # clean pass, adversarial pass and the teacher's; one backward by the input alone, then both
    _objective(
        "smart", _smart("vjp"), Work(3, 3, 2), "vjp", error="gradient",
        targets=Targets({"": 2.6}, memory=1.6),
    ),
    # and a pass at a random point, through which the ascent goes
    _objective(
        "smart", _smart("noise"), Work(4, 3, 2), "noise", error="gradient",
        targets=Targets({"gru": 3.5, "": 3.1}, memory=1.6),
    ),
    _objective("smart-paper", _smart("noise", **AS_PAPER), Work(4, 3, 2), models=SMALL),
    _objective("smart-mtdnn", _smart("mtdnn"), Work(4, 3, 2), models=SMALL),
    Row("smart", "published order", peer="Smart", models=("bert-2x128", "bert-4x256", "gru")),
    _objective("rdrop", "rdrop", TWICE, models=SMALL),
    _objective("r3f", "r3f", TWICE, models=SMALL),
    _objective("label_smoothing", "label_smoothing", PLAIN, models=SMALL),
)  # fmt: skip
