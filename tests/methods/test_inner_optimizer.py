"""Inner steps of Adam without a first moment, as supervised-reptile has them, against the algorithm written out."""

import pytest
import torch

from gradworks.base.checkpoint import Checkpoint
from gradworks.methods import Method
from tests.methods.test_dotprod import SEED, filled
from tests.methods.test_reptile import gradient_at, start
from tests.methods.toys import TASKS, Net, batch, build, error, gradients, same

RATE, K, GROUPS = 0.02, 3, 2


def made(update, **options):
    given = {"batches": K, "inner_lr": RATE, "groups": GROUPS, "inner_optimizer": "adam", **options}
    return Method(update={update: given}, tasks=TASKS, seed=SEED)


def batches(step, count=K * GROUPS):
    return [batch("three", seed=1000 * step + i) for i in range(count)]


class Written:
    """v = 0.999 v + 0.001 g^2 and theta -= rate * g / (sqrt(v / (1 - 0.999^t)) + 1e-8); a task's parameters are put
    back behind it, v and t are not.
    """

    def __init__(self, update, kept):
        self.update, self.kept = update, kept
        self.v, self.t, self.number = None, 0, 0

    def step(self, model, drawn):
        """The displacement over rate (and k): theta_0 - theta_k, or that of the last inner step."""
        total = None
        for first in range(0, len(drawn), K):
            if not self.kept:
                self.v, self.t = None, 0
            at = theta = start(model)
            for b in drawn[first : first + K]:
                gradient = gradient_at(model, at, b, self.number)
                self.number += 1
                self.t += 1
                before = at
                self.v = [torch.zeros_like(g) for g in gradient] if self.v is None else self.v
                self.v = [0.999 * v + 0.001 * g * g for v, g in zip(self.v, gradient, strict=True)]
                roots = [(v / (1 - 0.999**self.t)) ** 0.5 for v in self.v]
                moves = [RATE * g / (root + 1e-8) for g, root in zip(gradient, roots, strict=True)]
                at = {n: t - m for (n, t), m in zip(at.items(), moves, strict=True)}
            origin, over = (theta, RATE * K) if self.update == "reptile" else (before, RATE)
            moved = [(a - b) / over / GROUPS for a, b in zip(origin.values(), at.values(), strict=True)]
            total = moved if total is None else [a + b for a, b in zip(total, moved, strict=True)]
        return total


@pytest.mark.parametrize("state", ["kept", "reset"])
@pytest.mark.parametrize("update", ["reptile", "fomaml"])
def test_meta_steps_are_those_of_the_algorithm(update, state):
    model, method, written = build(Net), made(update, inner_state=state), Written(update, state == "kept")
    for step in range(3):
        drawn = batches(step)
        expected = written.step(model, drawn)
        method.backward(model, [[b] for b in drawn])
        assert error(filled(model), expected) < 1e-9
        with torch.no_grad():
            for p, g in zip(model.parameters(), expected, strict=True):
                p -= 0.05 * g


@pytest.mark.parametrize("update", ["reptile", "fomaml"])
def test_a_run_that_was_killed_goes_on_to_the_bit(tmp_path, update):
    model, method, saved = build(Net), made(update), Checkpoint("a", tmp_path)
    for step in range(2):
        method.backward(model, [[b] for b in batches(step)])
    saved.save(method.state_dict())
    method.backward(model, [[b] for b in batches(2)])
    expected = gradients(model)
    again, without = made(update), made(update)
    again.load_state_dict(saved.load())
    again.backward(model, [[b] for b in batches(2)])
    assert same(gradients(model), expected)
    without.load_state_dict(saved.load() | {"update": {"steps": 4}})
    without.backward(model, [[b] for b in batches(2)])
    assert not same(gradients(model), expected)


@pytest.mark.parametrize("update", ["reptile", "fomaml"])
def test_measuring_the_inner_part_moves_no_state(update):
    model, measured, unmeasured = build(Net), made(update), made(update)
    unmeasured.update.load_state_dict({"steps": 3})
    for step in range(2):  # groups 0 to 3, of which 0 and 2 are measured
        log = measured.backward(model, [[b] for b in batches(step)]).log
        first = gradients(model)
        assert "inner" in log
        assert "inner" not in unmeasured.backward(model, [[b] for b in batches(step)]).log
        assert same(first, gradients(model))


def test_a_group_that_is_measured_makes_its_step_no_single_one():
    method, model, found = made("reptile", groups=3), build(Net), []
    for step in range(3):  # groups 0 to 8, of which 0, 2 and 8 are measured
        found.append((method.update.single, method.backward(model, [[b] for b in batches(step, 3 * K)]).passes))
    assert found == [(False, pytest.approx(5 * K)), (True, pytest.approx(3 * K)), (False, pytest.approx(4 * K))]


def test_a_batch_without_weight_moves_no_state():
    class No(type(Method(tasks=TASKS).weighting)):
        def weights(self, here, outputs, losses):
            return torch.zeros_like(losses), None

    method = Method(weighting=No(), update={"reptile": {"inner_optimizer": "adam"}}, tasks=TASKS, seed=SEED)
    assert method.backward(build(Net), [[b] for b in batches(0, 4)]).skipped
    assert method.state_dict()["update"] == {"steps": 1, "count": 0, "second": []}


def test_the_second_moment_is_not_rounded_away_in_half_precision():
    method, model = made("reptile"), build(Net, dtype=torch.bfloat16)
    for step in range(2):
        method.backward(model, [[b] for b in batches(step)])
    assert all(v.dtype == torch.float32 for v in method.state_dict()["update"]["second"])
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_options():
    for update, option, said in (
        ("maml", {}, "inner_optimizer: found 'adam', expected one of sgd"),
        ("fomaml", {"inner_optimizer": "adamw"}, "inner_optimizer: found 'adamw', expected one of sgd, adam"),
        ("reptile", {"inner_state": "none"}, "inner_state: found 'none', expected one of kept, reset"),
    ):
        with pytest.raises(ValueError, match=said):
            made(update, **option)


def test_dotprod_over_groups_is_the_mean_of_its_pairs():
    model, drawn = build(Net).eval(), batches(0, 4)
    given = {"form": "exact", "tasks": "same"}
    method = Method(update={"dotprod": {**given, "groups": 2}}, tasks=TASKS, seed=SEED)
    assert (method.batches, method.needs.tasks) == (4, "same")
    method.backward(model, [[b] for b in drawn])
    found, pairs = gradients(model), []
    for pair in (drawn[:2], drawn[2:]):
        Method(update={"dotprod": given}, tasks=TASKS, seed=SEED).backward(model, [[b] for b in pair])
        pairs.append(gradients(model))
    mean = [None if a is None else (a + b) / 2 for a, b in zip(*pairs, strict=True)]
    assert all((f is None) == (m is None) for f, m in zip(found, mean, strict=True))
    assert error([f for f in found if f is not None], [m for m in mean if m is not None]) < 1e-12


def test_dotprod_over_groups_leaves_its_term_out_in_whole_steps():
    method, model = Method(update={"dotprod": {"groups": 3, "every": 2}}, tasks=TASKS, seed=SEED), build(Net)
    found = ["term" in method.backward(model, [[b] for b in batches(step, 6)]).log for step in range(4)]
    assert found == [True, False, True, False] and method.update.once is False
