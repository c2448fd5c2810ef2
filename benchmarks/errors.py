"""How far a method is from what it should compute: float32 passes against float64 oracles, dropout on.

Every figure is taken on a model that was trained a little, so that its gradients mean something, with the same weights
and the same dropout masks on both sides. On a GPU dropout is off: its masks differ by precision there.
"""

from __future__ import annotations

import copy
import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import oracles
from benchmarks.models import Classification
from benchmarks.plain import Case, Data, OfMethod, Plain, batches_of
from gradworks import Method
from gradworks.spec import Batch, Outputs

WEIGHT = 1e4  # of the dot product: the term then outweighs G1 + G2, and rounding of the sum is no error of the term
TRAINED = 10  # plain steps before scores and gradients are judged


def errors(case: Case, seconds: float) -> dict[str, Any]:
    """`error` (median over batches of the relative error), `sign_agreement`, and `judged`, how many batches.

    Args:
        case: what is judged; {} where no oracle is named.
        seconds: after which no further batch starts.
    """
    judge = {"scores": _scores, "term": _term, "gradient": _gradient}.get(case.row.error)
    return judge(case, time.monotonic() + seconds) if judge else {}


def _pair(case: Case) -> tuple[nn.Module, nn.Module]:
    """The model, a little trained, and one for the oracle: float64, and attention that can be differentiated twice."""
    dropout = 0.1 if case.device == "cpu" else 0.0
    model = case.build(case.sizes, dropout)
    exact = case.sizes.build(dropout, "eager").to(case.device).double()
    trained = Plain(case, model, Classification())
    data = Data(case, case.sizes, 1)
    for i in range(TRAINED):
        trained.step(*data(i))
    return model, exact


def _scores(case: Case, end: float) -> dict[str, Any]:
    model, exact = _pair(case)
    exact.load_state_dict(model.state_dict())
    method, data = case.method(Classification()), Data(case, case.sizes, 1, pool=64)
    wrong, found, expected = [], [], []
    while len(wrong) < 64 and (len(wrong) < 3 or time.monotonic() < end):
        i = len(wrong)
        batches, clean = data(i)
        with case.autocast():
            report = method.backward(model, batches, clean)
        found.append(report.sums[0][0].score.double())
        expected.append(oracles.scores(exact, Classification(), batches[0][0], clean[0][0], i))
        wrong.append(oracles.up_to_scale(found[-1], expected[-1]))
    agreement = oracles.signs_agree(torch.cat(found), torch.cat(expected))
    return {"error": median(wrong), "sign_agreement": agreement, "judged": len(wrong)}


def _term(case: Case, end: float) -> dict[str, Any]:
    """H2 G1, taken out of `.grad` of a method with a large weight: (G1 + G2 - weight * H2 G1) / 2.

    It starts with the state of some steps of training, in which the step size was chosen and kinks were looked for.
    """
    ((name, options),) = case.row.slots["update"].items()
    heavy = Method(update={name: {**options, "weight": WEIGHT, "limit": None}}, task=Classification())
    model, exact = _pair(case)
    side, data = OfMethod(case, model, Classification()), Data(case, case.sizes, batches_of(case), pool=16)
    start, steps = time.monotonic(), 0
    while steps < 34 and (steps < 10 or time.monotonic() < (start + end) / 2):
        side.step(*data(steps))
        steps += 1
    heavy.load_state_dict(side.method.state_dict())
    wrong: list[float] = []
    exact.load_state_dict(model.state_dict())
    while len(wrong) < 16 and (len(wrong) < 3 or time.monotonic() < end):
        batches, _ = data(steps)
        plain, product = oracles.second_term(
            exact, Classification(), batches[0][0], batches[1][0], batches_of(case) * steps
        )
        with case.autocast():
            heavy.backward(model, batches)
        found = [(g - 2 * p.grad.double()) / WEIGHT for g, p in zip(plain, model.parameters(), strict=True)]
        wrong.append(oracles.relative(found, product))
        steps += 1
    return {"error": median(wrong), "sign_agreement": None, "judged": len(wrong)}


class _Recorder(Classification):
    """Keeps the embeddings and the modules of the passes it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[nn.Module, Tensor | None]] = []

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        self.seen.append((model, None if embedded is None else embedded.detach().double()))
        return super().outputs(model, batch, embedded)


def _gradient(case: Case, end: float) -> dict[str, Any]:
    """The gradient of the smoothed objective, given the perturbation and the teacher that the method used."""
    model, exact = _pair(case)
    task = _Recorder()
    side, data = OfMethod(case, model, task), Data(case, case.sizes, 1, pool=8)
    for i in range(4):  # until the teacher differs from the model
        side.step(*data(i))
    wrong: list[float] = []
    while len(wrong) < 8 and (not wrong or time.monotonic() < end):
        step = 4 + len(wrong)
        batches, _ = data(step)
        task.seen.clear()
        exact.load_state_dict(model.state_dict())
        side.step(batches, ())
        teacher = next(module for module, _ in task.seen if module is not model)
        embedded = [e for module, e in task.seen if module is model and e is not None]
        with torch.no_grad(), oracles.masks(0, "train", step):
            taught = Classification().outputs(copy.deepcopy(teacher).double(), batches[0][0])
        expected = oracles.smooth_gradient(
            exact, Classification(), batches[0][0], embedded[-1] - embedded[0], taught, step
        )
        wrong.append(oracles.relative([p.grad for p in model.parameters()], expected))
    return {"error": median(wrong), "sign_agreement": None, "judged": len(wrong)}
