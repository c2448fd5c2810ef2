"""A kink or rounding between the two points of a finite difference: seen at the step, mended or said, float32."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods._shared.graph import crossed, watch
from gradworks.methods.updates.dotprod import DotProd
from gradworks.models.bow import Bow
from tests.methods.test_distance import KINKED, SMOOTH, gradient, loss, outputs
from tests.methods.toys import flat, gradients
from tests.test_loop import fit


class Pool(nn.Module):
    """A convolution, ReLU, and a maximum over squares of four."""

    def __init__(self):
        super().__init__()
        self.convolution, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 9, 3)

    def forward(self, x):
        return self.out(F.max_pool2d(F.relu(self.convolution(x[:, None])), 2).flatten(1))


class Words(nn.Module):
    """The model `bow`, all texts of one length."""

    def __init__(self, embedding, hidden):
        super().__init__()
        sizes = {"rows": 60, "embedding": embedding, "hidden": hidden, "layers": 4}
        self.model = Bow({**sizes, "dropout": 0.0, "texts": 2, "frozen": False}, None, 3)

    def forward(self, ids):
        return self.model({"ids": ids, "lengths": torch.full(ids.shape[:2], ids.shape[2])})


class Most(nn.Module):
    """The largest of each entry of a text's embeddings."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(60, 16), nn.Linear(16, 3)

    def forward(self, ids):
        return self.out(self.embedding(ids.flatten(1)).amax(1))


NETS = {
    "pool": (Pool, 8, lambda n, g: torch.randn(n, 6, 6, generator=g)),
    "bow": (lambda: Words(16, 24), 8, lambda n, g: torch.randint(0, 60, (n, 2, 6), generator=g)),
    "wide bow": (lambda: Words(64, 200), 32, lambda n, g: torch.randint(0, 60, (n, 2, 6), generator=g)),
    "most": (Most, 8, lambda n, g: torch.randint(0, 60, (n, 2, 3), generator=g)),
}


def exact(model, pair):
    """H2 G1 (H1 G1 for one batch) in float64, by double backward."""
    wide = copy.deepcopy(model).double()
    first, second = ((x.double() if x.is_floating_point() else x, y) for x, y in (pair[0], pair[-1]))
    g = gradient(wide, loss(outputs(wide, first), first).mean(), materialize_grads=True)
    other = gradient(wide, loss(outputs(wide, second), second).mean(), create_graph=True, materialize_grads=True)
    return flat(gradient(wide, other, grad_outputs=g, materialize_grads=True))


def steps(name, form, seed, count, entry="dotprod"):
    """Of a training with Adam, for each step: error of the term, what is logged of it, passes."""
    make, n, drawn = NETS[name]
    torch.manual_seed(seed)
    model = make()
    more = {"limit": None} if entry == "dotprod" else {}
    method = Method(update={entry: {"weight": 1000.0, "form": form, **more}}, outputs=outputs, loss=loss)
    plain = Method(update={"erm": {"batches": method.batches}}, outputs=outputs, loss=loss)
    optimizer = torch.optim.Adam(model.parameters(), 3e-2)
    g, chosen = torch.Generator().manual_seed(seed), random.Random(seed)  # noqa: S311
    pool = [(drawn(n, g), torch.randint(0, 3, (n,), generator=g)) for _ in range(40)]
    rows = [chosen.choice(pool) for _ in range(count * method.batches)]
    scale, key = (-500.0, "dotprod_error") if entry == "dotprod" else (1000.0, "penalty_error")
    found = []
    for step, (batches, _) in enumerate(method.groups(rows)):
        expected = exact(model, rows[method.batches * step :][: method.batches])
        report = method.backward(model, batches)
        ruled = flat(gradients(model))
        plain.backward(model, batches)
        made = (ruled - flat(gradients(model))) / scale
        error = float((made - expected).norm() / expected.norm())
        found.append((error, report.log.get(key, 0.0), report.passes))
        optimizer.step()
    return found


# seeds of each at which a step was 22 to 250 % off in silence
RUNS = [
    ("pool", "one_sided", 4, 37), ("bow", "central", 1, 120), ("wide bow", "central", 0, 3),
    pytest.param("wide bow", "one_sided", 6, 109, marks=pytest.mark.slow("many steps")), ("most", "central", 7, 60),
]  # fmt: skip


@pytest.mark.parametrize(("name", "form", "seed", "count"), RUNS)
def test_a_step_is_right_and_raises_no_false_alarm(name, form, seed, count):
    found = steps(name, form, seed, count)
    for error, said, _ in found:
        assert error < 0.1  # kinks on both sides of the pool's: mended from nearer points
        assert error > 0.03 or said < 0.1  # no false alarm
    assert min(passes for *_, passes in found[3:] or [(0, 0, 3)]) == pytest.approx(3)


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_branches_differ_where_a_kink_lies_between(name):
    """From the derivative by ones: it jumps at a kink and hardly moves beside it."""
    torch.manual_seed(0)
    made, start = (SMOOTH | KINKED)[name], torch.randn(2, 3, 8)

    def branches(x):
        x = x.clone().requires_grad_()
        torch.manual_seed(1)  # of dropout
        found, losses = {}, made(x * 1).square().sum()
        handles = watch(losses, found, 0)
        torch.autograd.grad(losses, x)
        for handle in handles:
            handle.remove()
        return found

    assert bool(branches(start)) == (name in KINKED)
    assert not crossed(branches(start), branches(start * (1 + 1e-5)))
    if name in KINKED:
        assert crossed(branches(start), branches(start.flip(-1)))


def test_training_says_in_how_many_steps_a_term_was_inaccurate(monkeypatch, capsys):
    errors = iter([0.02, 0.5, None, 0.09, 7.0, 0.0, None, None, 0.11, None, None, 0.0])
    plain = DotProd.gradient

    def logged(self, passes):
        made = plain(self, passes)
        passes.log.pop("dotprod_error", None)
        passes.log |= {"dotprod_error": error} if (error := next(errors)) is not None else {}
        return made

    monkeypatch.setattr(DotProd, "gradient", logged)
    _, trace = fit(update="dotprod")
    assert trace.inaccurate() == {"dotprod": 3 / 12}
    assert trace.figures()["dotprod_inaccurate_share"] == 3 / 12
    said = [line for line in capsys.readouterr().out.splitlines() if "inaccurate" in line]
    assert said == ["train: dotprod's term was inaccurate (> 10 %) in 25.0% of steps, see methods/updates/dotprod.py"]
    monkeypatch.undo()
    _, trace = fit(update="dotprod")
    assert trace.inaccurate() == {}
    assert "inaccurate" not in capsys.readouterr().out
