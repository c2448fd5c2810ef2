"""Entries written on the contract alone, outside the folders: the machinery must carry what is still to come."""

from __future__ import annotations

import copy

import torch

from gradworks.methods._core.bases import BaseWeighting, Stateless
from gradworks.spec import Needs


class RDrop(Stateless):
    """Two masks on one batch."""

    holds, requires = False, ("divergence",)

    def begin(self, model):
        pass

    def outputs(self, task, model, batch, masks, held):
        with masks(0):
            p = task.outputs(model, batch)
        with masks(1):
            q = task.outputs(model, batch)
        return p + q

    def loss(self, task, out, batch, held):
        p, q = out[: len(out) // 2], out[len(out) // 2 :]
        return (task.loss(p, batch) + task.loss(q, batch)) / 2 + task.divergence(p, q) / 4


class Smart(Stateless):
    """Adversarial smoothness and a momentum teacher: two kinds of constants, one of them from an ascent step."""

    holds, requires = True, ("embed", "divergence")

    def __init__(self, smooth=1.0, proximal=1.0, epsilon=0.1):
        self.smooth, self.proximal, self.epsilon = smooth, proximal, epsilon
        self.teacher, self.loaded = None, None

    def begin(self, model):
        if not self.proximal:
            return
        if self.teacher is None:
            self.teacher = copy.deepcopy(model).requires_grad_(False)
            if self.loaded is not None:
                self.teacher.load_state_dict(self.loaded)
        with torch.no_grad():
            for t, p in zip(self.teacher.parameters(), model.parameters(), strict=True):
                t.lerp_(p, 0.1)

    def outputs(self, task, model, batch, masks, held):
        with masks(0):
            z = task.outputs(model, batch)
        if "delta" not in held:
            e = task.embed(model, batch).detach()
            d = (1e-3 * masks.noise(e, batch)).requires_grad_()
            with masks(0):
                moved = task.outputs(model, batch, e + d)
            (g,) = torch.autograd.grad(task.divergence(moved, tuple(t.detach() for t in z)).sum(), d)
            size = g.abs().amax(tuple(range(1, g.ndim)), keepdim=True).clamp_min(1e-30)
            held["delta"] = (self.epsilon * g / size).detach()
            if self.proximal:
                with torch.no_grad(), masks(0):
                    held["teacher"] = task.outputs(self.teacher, batch)
        if not self.smooth:
            return z + z
        with masks(0):
            return z + task.outputs(model, batch, task.embed(model, batch) + held["delta"])

    def loss(self, task, out, batch, held):
        z, moved = out[: len(out) // 2], out[len(out) // 2 :]
        loss = task.loss(z, batch) + self.smooth * task.divergence(moved, z)
        return loss + self.proximal * task.divergence(z, held["teacher"]) if self.proximal else loss

    def state_dict(self):
        if self.teacher is None:
            return {}
        return {"teacher": {k: v.clone() for k, v in self.teacher.state_dict().items()}}

    def load_state_dict(self, state):
        self.loaded = state.get("teacher")


class HardMining(BaseWeighting):
    """The half of a micro-batch with the highest losses."""

    holds = True

    def weights(self, here, outputs, losses):
        w = torch.zeros_like(losses)
        w[losses.topk(max(1, len(losses) // 2)).indices] = 1
        return w * here.batch.mass, None


class GroupDro(BaseWeighting):
    """State that moves once a step, by sums over micro-batches and ranks."""

    def __init__(self):
        self.q = torch.ones(2, dtype=torch.float64)

    def weights(self, here, outputs, losses):
        return self.q[here.batch.group] * here.batch.mass, None

    def end(self, done, reduce):
        sums = torch.zeros(len(done), 2, 2, dtype=torch.float64)
        for i, batch in enumerate(done):
            for b, one in batch:
                for k in (0, 1):
                    sums[i, k] += torch.stack([one.losses[b.group == k].sum(), (b.group == k).sum()])
        reduce([sums])
        total, count = sums.sum(0).unbind(1)
        self.q = self.q * torch.exp(0.1 * total / count.clamp_min(1))
        self.q = self.q / self.q.sum()

    def state_dict(self):
        return {"q": self.q.clone()}

    def load_state_dict(self, state):
        self.q = state["q"].clone()


def moved(x, y, scale):
    return [b + scale * a for a, b in zip(x, y, strict=True)]


class Reptile(Stateless):
    """The mean of the gradients along k inner SGD steps."""

    def __init__(self, k=3, rate=0.05):
        self.k, self.rate, self.needs = k, rate, Needs(k, tasks="same")

    def gradient(self, passes):
        at, seen = None, []
        for i in range(self.k):
            seen.append(passes.gradient(i, at))
            at = moved(seen[-1], passes.theta if at is None else at, -self.rate)
        return [sum(g) / self.k for g in zip(*seen, strict=True)]


class Fomaml(Reptile):
    """The last gradient along the inner steps."""

    def gradient(self, passes):
        at = None
        for i in range(self.k - 1):
            at = moved(passes.gradient(i, at), passes.theta if at is None else at, -self.rate)
        return passes.gradient(self.k - 1, at)


class Maml(Reptile):
    """The gradient through the inner steps."""

    def gradient(self, passes):
        at = theta = [t.clone().requires_grad_() for t in passes.theta]
        for i in range(self.k - 1):
            g = torch.autograd.grad(passes.loss(i, at), at, create_graph=True, materialize_grads=True)
            at = moved(g, at, -self.rate)
        return list(torch.autograd.grad(passes.loss(self.k - 1, at), theta, materialize_grads=True))


class Sam(Stateless):
    """The gradient of the same batch uphill."""

    needs = Needs(1)

    def __init__(self, rho=0.05):
        self.rho = rho

    def gradient(self, passes):
        g = passes.gradient(0)
        size = torch.cat([t.flatten() for t in g]).norm()
        return g if self.rho == 0 or size == 0 else passes.gradient(0, moved(g, passes.theta, self.rho / size))


OBJECTIVES = {"supervised": lambda: "supervised", "rdrop": RDrop, "smart": Smart}
WEIGHTINGS = {
    "uniform": lambda: "uniform",
    "random": lambda: "random",
    "reweight": lambda: "reweight",
    "hard_mining": HardMining,
    "group_dro": GroupDro,
}
UPDATES = {
    "erm": lambda: "erm",
    "erm2": lambda: {"erm": {"batches": 2}},
    "dotprod": lambda: "dotprod",
    "dotprod_exact": lambda: {"dotprod": {"form": "exact"}},
    "reptile": Reptile,
    "fomaml": Fomaml,
    "maml": Maml,
    "sam": Sam,
}
