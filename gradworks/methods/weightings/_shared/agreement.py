"""Checks of `ghost`, so that no score counts that comes from a wrong rule or a wrong row.

1. Exact: the gradient of sum r_i l_i, r uneven, from the recorded rows against that of a plain pass. It differs where
   rows are not examples, a parameter is used past its module, or examples are coupled. Before the scores count of the
   first pass of each kind (`kinds.py`: operations, modules, how rows relate to examples, task, what is trained, train
   or eval), and of one pass at steps 10 and 50 and every 250th: 4/3 plain passes more. They are counted in the first
   step alone, so that what a step is said to cost does not depend on which were measured.
2. Independent: the scores against those of `logit_fd`, by rank and sign, and where these differ against a backward pass
   for each example. Both differ where the rule of an inner product is wrong. On the first batch of each task and set
   of trained parameters; later kinds of pass have <clean, sum r_i g_i> against sum r_i u_i instead, at no cost.

So rows that change their order are seen at once where operations, modules or the relation of shapes change, or where an
index, mask, sort or list of sizes picks them. A model that moves rows by other means (a product with a permutation
matrix, slices written in place) and moves none on the batch that was examined is seen by the check now and then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradworks.methods._shared.tensors import add_, dot, norm, owned, precision
from gradworks.methods.weightings._shared.ghost import LAYOUTS, Ghost, Recorded
from gradworks.methods.weightings._shared.layers import NotCovered
from gradworks.methods.weightings._shared.logit_fd import TAU, LogitFd
from gradworks.methods.weightings._shared.losses import COUPLED, coupled, uneven
from gradworks.methods.weightings._shared.per_example import PerExample
from gradworks.spec import Pass, Visit

# Relative error of a gradient that is a matter of rounding, per module. Seen on 15 small and large models: at most 5e-6
# in float32 and 4e-2 in bf16 (the bias of keys apart, which is zero but for rounding). Wrong rows: 0.2 to 1.
_EXACT, _EXACT_HALF = 1e-3, 0.15


class _Judge(NamedTuple):
    """When scores disagree. Below `noise` times their root mean square, they and differences of two are not judged."""

    noise: float
    share: float  # of signs, and of the order of pairs, that agree; a random order has 0.5
    error: float  # |a - b| / |a|


# logit_fd errs by 1e-7 (float64), 1e-3 and at worst 1e-2 (float32), and 5e-2, at worst 0.8 where a model is saturated
# (bf16): a false alarm lies more than ten errors away, and in bf16, where single scores may be wrong, takes many.
_FULL, _HALF = _Judge(0.03, 0.9, 0.25), _Judge(1.0, 0.75, math.inf)
_FEWEST = 8  # fewer signs or pairs say nothing by their share


class Changed(NotCovered):
    """A kind of pass that was examined, and right, is not right any more."""


class _Plain(NamedTuple):
    """What an examination compares with."""

    r: Tensor
    gradient: list[Tensor]


def again(step: int) -> bool:
    """Whether a kind of pass that was examined is examined again in this step."""
    return step in (10, 50) or step % 250 == 249


def examine(ghost: Ghost, visit: Visit) -> None:
    """The exact check on the largest micro-batch; finds the layout of rows where they are not contiguous.

    Keeps nothing but `ghost.layouts`.

    Raises:
        NotCovered: ghost cannot serve this model on some rank.
    """
    with visit.largest() as here:
        try:
            _exact(ghost, here)
            found = None
        except NotCovered as error:
            found = error
    failed = torch.tensor(float(found is not None), device=here.parameters[0].device)
    visit.reduce([failed])  # all ranks decide alike
    if found is not None:
        raise found
    if failed > 0:
        raise NotCovered("", "it cannot on another rank")


def admitted(ghost: Ghost, here: Pass, check: bool) -> Recorded:
    """One pass, recorded, that was examined if none of its kind was before.

    Args:
        ghost: prepared.
        check: examine it in any case.

    Raises:
        NotCovered: its scores must not count.
    """
    recorded = _recorded(ghost, here)  # first: what is examined holds and logs what others do
    if recorded.kind in ghost.layouts and not check:
        if not recorded.row_wise and coupled(recorded.outputs, recorded.losses):
            raise NotCovered("", COUPLED)
        return recorded
    del recorded  # its graph and that of the plain pass would be in memory at once
    recorded, plain = _exact(ghost, here, besides=True)
    direction = ghost.direction()
    expected, made = dot(direction, plain.gradient), (plain.r * ghost.scores(recorded)).sum()
    bound = (_EXACT_HALF if _half(here, recorded.outputs) else _EXACT) * norm(direction) * norm(plain.gradient)
    if bool((made - expected).abs() > bound):
        raise NotCovered("", "its scores do not add up to the product with the gradient")
    return recorded


def _recorded(ghost: Ghost, here: Pass) -> Recorded:
    try:
        return ghost.record(here)
    except NotCovered:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise NotCovered("", f"a recorded forward pass fails: {str(error).splitlines()[0]}") from error


def _exact(ghost: Ghost, here: Pass, besides: bool = False) -> tuple[Recorded, _Plain]:
    """`besides`: after a forward pass that was counted; of these passes the backward one alone is."""
    modules, before = ghost.modules(here), here.count(0)
    outputs = here.outputs()  # a pass of its own: recording must not change what the model computes
    losses = here.loss(outputs)
    if coupled(outputs, losses):
        raise NotCovered("", COUPLED)
    r = uneven(losses)
    plain = here.backward((r * losses).sum())
    del outputs, losses
    if besides:
        here.count(before - here.count(0))
    recorded = _recorded(ghost, here)
    if besides:
        here.count(before - here.count(0))
    try:
        ghost.backward(recorded)
    except RuntimeError as error:  # of what runs the forward pass again, as checkpointing does
        raise NotCovered("", f"its backward pass fails: {str(error).splitlines()[0]}") from error
    layouts: dict[str, str] = {}
    recorded.layouts = layouts
    tried: dict[str, int] = {}
    reasons: dict[str, str] = {}
    while True:
        for use in recorded.uses:
            use.small = None  # of the layout before
        try:
            with torch.no_grad():
                made = owned(ghost.weighted(recorded, r), here.parameters)
            wrong = _wrong(here, modules, plain, made, _EXACT_HALF if _half(here, recorded.outputs) else _EXACT)
            reason = "its rows are not examples, or it is used past its forward, or examples are coupled"
        except NotCovered as error:
            wrong, reason = [error.module], error.reason
        if not wrong:
            ghost.layouts[recorded.kind] = layouts
            return recorded, _Plain(r, plain)
        for name in wrong:
            reasons.setdefault(name, reason)  # of the rows as they usually are
            tried[name] = tried.get(name, 0) + 1
            if tried[name] == len(LAYOUTS):
                known = ghost.layouts.pop(recorded.kind, None) is not None
                raise (Changed if known else NotCovered)(name, reasons[name])
            layouts[name] = LAYOUTS[tried[name]]


def _half(here: Pass, outputs: Sequence[Tensor]) -> bool:
    """Whether something rounds to 10 bits or less: autocast, here or within the model, or tensor cores."""
    p = here.parameters[0]
    short = p.is_cuda and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)
    kinds = {precision(p), *(z.dtype for z in outputs)}
    return bool(kinds & {torch.float16, torch.bfloat16}) or (short and torch.float64 not in kinds)


def _wrong(
    here: Pass,
    modules: Sequence[tuple[str, nn.Module]],
    plain: Sequence[Tensor],
    made: Sequence[Tensor],
    bound: float,
) -> list[str]:
    """Modules whose gradients differ, in the order of the model. Writes into `made`."""
    sizes = torch.stack(torch._foreach_norm(list(plain))).double()
    add_(made, plain, -1)
    differences = torch.stack(torch._foreach_norm(list(made))).double()
    whole = norm(plain).double()
    if not torch.isfinite(whole):
        return []  # nothing can be judged; the report of the step says so
    place, found = {id(p): j for j, p in enumerate(here.parameters)}, []
    for name, module in modules:
        own = [place[id(p)] for p in module.parameters(recurse=False) if id(p) in place]
        # the gradient of some parameters is zero but for rounding (the bias of keys in attention)
        if bool((differences[own].max() <= bound * (sizes[own].max() + 1e-2 * whole)).logical_not()):
            found.append(name)
    return found


def confirm(ghost: Ghost, visit: Visit) -> None:
    """The independent check, before any graph exists.

    Raises:
        ValueError: the scores of the batch disagree, over all micro-batches and ranks.
    """
    other = LogitFd()
    other.prepare(visit)
    ghost.prepare(visit)
    counts = torch.zeros(6, dtype=torch.float64, device=visit.passes[0].parameters[0].device)
    judge = _FULL
    for here in visit.passes:
        try:
            recorded = ghost.record(here)
        except NotCovered:
            recorded = None
        if recorded is None or recorded.kind not in ghost.layouts:  # examined before its scores count
            here.held.pop("moved", None)
            continue
        judge = _HALF if _half(here, recorded.outputs) else judge
        expected = other.scores(here, recorded.outputs, recorded.losses)
        counts += compared(ghost.scores(recorded), expected, judge.noise)
    if _agree(counts, visit, judge) or _agree(_by_example(ghost, visit, judge), visit, judge):
        return
    signs, of_signs, pairs, of_pairs, off, size = counts.tolist()
    raise ValueError(
        f"reweight: ghost and logit_fd disagree on the first batch: signs {signs:.0f} of {of_signs:.0f}, "
        f"order of pairs {pairs:.0f} of {of_pairs:.0f}, error {math.sqrt(off / size):.2g}\n"
        f"responsible: {_responsible(ghost, visit.passes[0], judge.noise)}\nuse backend: logit_fd"
    )


def _agree(counts: Tensor, visit: Visit, judge: _Judge) -> bool:
    """Whether the sums of `compared` over all ranks, into which `counts` is changed, are those of the same scores."""
    visit.reduce([counts])
    signs, of_signs, pairs, of_pairs, off, size = counts.tolist()
    agree = all(same >= judge.share * of for same, of in ((signs, of_signs), (pairs, of_pairs)) if of >= _FEWEST)
    return agree and not off > judge.error**2 * size


def _by_example(ghost: Ghost, visit: Visit, judge: _Judge) -> Tensor:
    """Sums of `compared` with a backward pass for each example.

    Where `logit_fd` disagrees, it may be the one that errs: a clean gradient that hardly moves the outputs (a balanced
    clean batch at the start) takes a long step, which crosses the kinks of ReLU and max-pooling.
    """
    exact = PerExample(ghost.direction())
    counts = torch.zeros(6, dtype=torch.float64, device=visit.passes[0].parameters[0].device)
    for here in visit.passes:
        try:
            recorded = ghost.record(here)
        except NotCovered:
            continue
        if recorded.kind in ghost.layouts:
            found, outputs = ghost.scores(recorded), here.outputs()
            counts += compared(found, exact.scores(here, outputs, here.loss(outputs)), judge.noise)
    return counts


def compared(a: Tensor, b: Tensor, noise: float) -> Tensor:
    """(6,) of scores (n,): signs that agree, clear signs, the same of the order of pairs, |a - b|^2, |a|^2."""
    a, b = a.double(), b.double()
    level = noise * torch.maximum(a.square().mean(), b.square().mean()).sqrt()
    if not (level > 0 and torch.isfinite(level)):
        return torch.zeros(6, dtype=torch.float64, device=a.device)  # nothing can be judged
    counts = []
    for x, y in ((a, b), (a[:, None] - a, b[:, None] - b)):
        clear = torch.maximum(x.abs(), y.abs()) > level
        counts += [((x > 0) == (y > 0))[clear].sum(), clear.sum()]
    return torch.stack([*counts, (a - b).square().sum(), a.square().sum()])


def _responsible(ghost: Ghost, here: Pass, noise: float) -> str:
    """The module whose own part of the scores disagrees most, each moved alone."""
    clean = ghost.direction()
    recorded = ghost.record(here)
    cotangents = torch.autograd.grad(recorded.losses.sum(), recorded.outputs, retain_graph=True, allow_unused=True)
    ghost.backward(recorded)
    parts: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, part in ghost.parts(recorded, clean):
            parts[name] = parts.get(name, 0) + part
    place, worst = {id(p): j for j, p in enumerate(here.parameters)}, (0.0, "no module alone: is the model random?")
    for name, module in ghost.modules(here):
        own = {place[id(p)] for p in module.parameters(recurse=False) if id(p) in place}
        direction = [t if j in own else torch.zeros_like(t) for j, t in enumerate(clean)]
        found = _one_sided(here, recorded.outputs, cotangents, direction)
        part = parts.get(name, torch.zeros_like(found))
        off = float((part - found).norm() / torch.maximum(part.norm(), found.norm()).clamp_min(1e-30))
        if off > max(noise, worst[0]):
            worst = (off, f"module {name} ({type(module).__name__})")
    return worst[1]


def _one_sided(
    here: Pass, outputs: Sequence[Tensor], cotangents: Sequence[Tensor | None], direction: list[Tensor]
) -> Tensor:
    """(n,) u in one direction by a difference of the outputs."""
    theta = [p.detach() for p in here.parameters]
    tau, step = TAU[precision(theta[0])], 1e-3 / float(norm(direction).clamp_min(1e-30))
    for _ in range(3):
        moved = here.moved(torch._foreach_add(theta, direction, alpha=step))
        changes = [(m - z.detach()).to(theta[0].dtype) for m, z in zip(moved, outputs, strict=True)]
        size = math.sqrt(sum(float(c.square().sum()) for c in changes) / sum(c.numel() for c in changes))
        score = sum((g * c).flatten(1).sum(1) for g, c in zip(cotangents, changes, strict=True) if g is not None) / step
        step *= tau / size if size > 0 else 100.0
    return score.detach()
