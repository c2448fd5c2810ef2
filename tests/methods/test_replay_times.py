"""When a batch is evaluated twice to see that it gives the same: in one process, in a resumed one, and on ranks."""

import subprocess
import sys

import numpy
import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared import replay
from gradworks.methods._shared.buffers import Tree
from gradworks.spec import Batch
from tests.methods.own_models import BATCHES, MOVING, Classes, Net, made

TASK = Classes()


def checks(method, model, batches):
    return [method.backward(model, [[b] for b in step]).checked for step in batches]


def test_it_is_made_first_and_at_the_interval():
    method = Method(update="sam", task=TASK, check_every=3)
    found = checks(method, made(Net), [[b] for b in BATCHES])
    assert found == pytest.approx([2 / 3, 0, 0, 2 / 3, 0, 0, 2 / 3, 0])
    assert replay.EVERY == 200


def test_it_is_made_again_when_what_is_trained_or_a_mode_changes():
    method, model = Method(update="sam", task=TASK), made(Net)
    assert checks(method, model, [[BATCHES[0]], [BATCHES[1]]]) == pytest.approx([2 / 3, 0])
    model.a.weight.requires_grad_(False)
    assert checks(method, model, [[BATCHES[0]], [BATCHES[1]]]) == pytest.approx([2 / 3, 0])
    model.a.weight.requires_grad_(True), model.h.weight.requires_grad_(False)  # as many, of the same shapes and kinds
    assert checks(method, model, [[BATCHES[0]], [BATCHES[1]]]) == pytest.approx([2 / 3, 0])
    model.middle.eval()
    assert checks(method, model, [[BATCHES[0]], [BATCHES[1]]]) == pytest.approx([2 / 3, 0])
    for _ in range(2):  # other models, the second of the same names and modes
        assert checks(method, made(Net), [[BATCHES[0]]]) == pytest.approx([2 / 3])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_the_look_at_each_step_sees_modes_and_children_wherever_they_are():
    tree, model = Tree(), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.jit.script(torch.nn.Dropout()))

    def listed():
        before = tree.modules
        tree.follow(model)
        assert [module for _, module in tree.modules] == list(model.modules())
        return tree.modules is not before

    assert listed() and not listed()
    assert tree.modes() == [True] * 3
    model[1].eval()  # keeps its attributes elsewhere
    assert sorted(tree.modes()) == [False, True, True]
    model[0].eval()
    assert sorted(tree.modes()) == [False, False, True]
    model[0].add_module("inside", torch.nn.Dropout())
    assert listed()
    model[0] = torch.nn.Linear(2, 2)
    assert listed() and not listed()


def as_batch(inputs, labels):
    return Batch("t", list("abcdef"), inputs, labels, torch.ones(6, dtype=torch.float64))


class Any(Classes):
    def outputs(self, model, batch):
        x = batch.inputs
        x = x["ids"] if isinstance(x, dict) else x[0] if isinstance(x, tuple) else x
        return (model(x),)


def test_it_is_made_for_each_kind_of_batch_and_not_for_each_size():
    b = BATCHES[0]
    ids, labels = b.inputs, b.labels
    kinds = [ids, ids.int(), {"ids": ids}, {"ids": ids, "mask": ids}, (ids, None)]
    method, model = Method(update="sam", task=Any()), made(Net)
    for inputs in kinds:
        found = checks(method, model, [[as_batch(inputs, labels)], [as_batch(inputs, labels)]])
        assert found == pytest.approx([2 / 3, 0])
    for inputs in (ids[:, :3], *kinds):  # known
        assert checks(method, model, [[as_batch(inputs, labels)]]) == [0]


def test_a_kind_that_breaks_the_premise_later_is_caught_when_it_comes():
    class Later(Any):
        def outputs(self, model, batch):
            (z,) = super().outputs(model, batch)
            return (z + float(numpy.random.rand()) if isinstance(batch.inputs, dict) else z,)

    b, method, model = BATCHES[0], Method(update="sam", task=Later()), made(Net)
    method.backward(model, [[b]])
    with pytest.raises(ValueError, match="numpy's global generator moved, outside of the modules"):
        method.backward(model, [[as_batch({"ids": b.inputs}, b.labels)]])


def test_a_premise_that_fails_later_is_caught_at_the_interval():
    class Warm(Classes):
        steps = 0

        def outputs(self, model, batch, embedded=None):
            (z,) = super().outputs(model, batch, embedded)
            return (z * (1 + (float(numpy.random.rand()) if self.steps > 4 else 0)),)

    task = Warm()
    method, model = Method(update="sam", task=task, check_every=10), made(Net)
    with pytest.raises(ValueError, match="numpy's global generator moved"):
        for step in range(12):
            task.steps = step
            method.backward(model, [[BATCHES[0]]])
    assert task.steps == 10


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 6])
def test_a_resumed_run_checks_when_the_whole_one_does_and_ends_bit_identical(cut):
    def run(cut):
        method, model, found = Method(update="sam", task=TASK, check_every=3), made(MOVING["spectral"][0]), []
        for step in range(8):
            if step == cut:
                state, other = method.state_dict(), made(MOVING["spectral"][0])
                other.load_state_dict(model.state_dict())
                method, model = Method(update="sam", task=TASK, check_every=3), other
                method.load_state_dict(state)
            found.append(method.backward(model, [[BATCHES[step]]]).checked)
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
        return found, [*model.parameters(), *model.buffers()], method.state_dict()

    (found, tensors, state), (again, same, resumed) = run(None), run(cut)
    assert found == again
    assert all(torch.equal(a, b) for a, b in zip(tensors, same, strict=True))
    assert state == resumed


def test_rounding_is_no_cause_and_a_small_difference_is():
    a = torch.randn(100)
    assert replay.difference((a,), (a * (1 + 1e-7),)) < 3e-5 < replay.difference((a,), (a * (1 + 1e-4),))
    gone = torch.tensor([1.0, float("nan"), float("inf")])
    assert replay.difference((gone,), (gone.clone(),)) == 0
    assert replay.difference((gone,), (torch.ones(3),)) == float("inf")


RANKS = """
import sys, torch, torch.distributed as dist, numpy
from datetime import timedelta
from tests.methods.own_models import BATCHES, Classes, Net, made
from gradworks.methods import Method
rank = int(sys.argv[1])
place = f"file://{sys.argv[2]}"
dist.init_process_group("gloo", init_method=place, rank=rank, world_size=2, timeout=timedelta(seconds=60))
class Task(Classes):
    def outputs(self, model, batch, embedded=None):
        (z,) = super().outputs(model, batch, embedded)
        return (z + float(numpy.random.rand()) if rank and self.broken else z,)
def reduce(tensors):
    for t in tensors: dist.all_reduce(t)
task = Task(); task.broken = False
method, model = Method(update="sam", task=task, reduce=reduce, rank=rank), made(Net)
other = BATCHES[0].__class__("t", BATCHES[0].ids, BATCHES[0].inputs.int(), BATCHES[0].labels, BATCHES[0].mass)
print([method.backward(model, [[b]]).checked > 0 for b in (BATCHES[0], BATCHES[1], other if rank else BATCHES[0])])
task.broken = True
model.eval()
try: method.backward(model, [[BATCHES[0]]])
except ValueError as error: print(str(error).splitlines()[0][:60])
"""


@pytest.mark.slow("several processes")
def test_ranks_check_together_and_stop_together(tmp_path):
    """One rank meets a new kind of batch, or fails: the other neither waits nor goes on."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [run.communicate(timeout=120)[0].splitlines() for run in runs]
    assert [lines[0] for lines in said] == ["[True, False, True]"] * 2
    assert said[0][1].startswith("replay: on another rank")
    assert said[1][1].startswith("replay: the same batch")
