"""SMART written out in float64: nothing here imports gradworks.methods."""

import hashlib

import torch

from tests.methods.toys import TASKS

SEED = 3
DEFAULTS = {
    "smoothness": 0.7, "proximal": 1.3, "epsilon": 0.4, "relative": True, "ascent": "vjp", "projection": False,
    "step": 0.2, "noise": 0.05, "momentum": 0.8,
}  # fmt: skip


def noise(shape, ids, number):
    """N(0, 1) of one example's shape for each id, as the documented key says."""
    keys = [hashlib.blake2b(f"{SEED}/noise/{number}/{i}".encode(), digest_size=8).digest() for i in ids]
    seeds = [int.from_bytes(k, "big") >> 1 for k in keys]
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).double()


def metric(kind, z, r):
    """Second derivative of the divergence at equality, times r, by hand."""
    if kind == "reg":
        return 2 * r
    if kind == "one":
        return 2 * z.sigmoid() * (1 - z.sigmoid()) * r
    p = z.softmax(-1)
    return 2 * p * (r - (p * r).sum(-1, keepdim=True)) / (z.shape[1] if kind == "seq" else 1)


def rms(x, dims):
    return x.square().mean(dims, keepdim=True).sqrt()


def per_example(x, n):
    """(n, everything of one example)"""
    return x.reshape(n, -1, x.shape[-1])


def oracle_delta(kind, model, b, number, o, drop, mask=(0, 0)):
    """delta of one micro-batch; `o` are the options."""
    task, n = TASKS[kind], len(b.ids)
    e = task.embed(model, b).detach().requires_grad_()
    with drop(mask[0]):
        z = task.outputs(model, b, e)
    if o["ascent"] == "vjp":
        widths = [t[0].numel() for t in z]
        r = noise((1, sum(widths)), b.ids, number).split(widths, 1)
        dots = [(t * metric(kind, t, part.view_as(t)).detach()).sum() for t, part in zip(z, r, strict=True)]
        (g,) = torch.autograd.grad(sum(dots), e)
        xi = torch.zeros_like(e)
    else:
        xi = o["noise"] * noise((e.shape[0] // n, *e.shape[1:]), b.ids, number)
        start = (xi * (rms(e, -1) if o["relative"] else 1)).detach().requires_grad_()
        with drop(mask[1]):
            moved = task.outputs(model, b, e.detach() + start)
        (g,) = torch.autograd.grad(task.divergence(moved, tuple(t.detach() for t in z)).sum(), start)
    e = e.detach()
    if o["ascent"] == "mtdnn":
        total = xi + o["step"] * g * rms(e, -1)
        return o["epsilon"] * rms(e, -1) * total / total.abs().amax(-1, keepdim=True)
    size = rms(per_example(e, n), (1, 2)) if o["relative"] else torch.ones(n, 1, 1).double()
    direction = per_example(g, n) / per_example(g, n).abs().amax((1, 2), keepdim=True)
    if not o["projection"]:
        return (o["epsilon"] * size * direction).view_as(e)
    start = per_example(xi * (rms(e, -1) if o["relative"] else 1), n)
    bound = o["epsilon"] * size
    return torch.maximum(torch.minimum(start + o["step"] * size * direction, bound), -bound).view_as(e)


def oracle_losses(kind, model, teacher, b, number, o, drop):
    """(n,) and its summands; delta and the teacher's outputs are constants."""
    task = TASKS[kind]
    delta = oracle_delta(kind, model, b, number, o, drop)
    with drop(0):
        z = task.outputs(model, b)
    with drop(0):
        moved = task.outputs(model, b, task.embed(model, b) + delta)
    with drop(0), torch.no_grad():
        still = task.outputs(teacher, b)
    return task.loss(z, b), o["smoothness"] * task.divergence(moved, z), o["proximal"] * task.divergence(z, still)
