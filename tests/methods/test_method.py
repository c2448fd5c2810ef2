"""Method in a person's own loop: groups, wrapping, and errors that say what to do."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from gradworks import Method
from gradworks.spec import Batch
from tests.methods.toys import TASKS, Net, batch, build, draw, gradients, same

torch.manual_seed(0)
X = torch.randn(40, 5)
Y = (X @ torch.randn(5, 3)).argmax(1)


def loader(size=8, n=40):
    return DataLoader(TensorDataset(X[:n], Y[:n]), batch_size=size)


def outputs(model, b):
    return model(b[0])


def loss(z, b):
    return F.cross_entropy(z, b[1], reduction="none")


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))


@pytest.mark.parametrize("weighting", ["uniform", "random", "reweight"])
@pytest.mark.parametrize("update", ["erm", {"erm": {"batches": 2}}, "dotprod"])
def test_the_five_line_loop_learns_the_training_data(weighting, update):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 5e-2)
    method = Method(weighting=weighting, update=update, outputs=outputs, loss=loss)
    losses = []
    for _ in range(12):
        for batches, clean in method.groups(loader(), loader(4)):
            losses.append(method.backward(model, batches, clean).log["loss"])
            optimizer.step()
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_groups_consume_what_the_method_needs_and_drop_the_rest():
    method = Method(weighting="reweight", update="dotprod", outputs=outputs, loss=loss)
    groups = list(method.groups(loader(), loader(4, n=8)))
    assert len(groups) == 2  # five batches, two a step
    batches, clean = groups[1]
    assert [len(b) for b in batches] == [len(c) for c in clean] == [1, 1]
    assert torch.equal(batches[1][0].inputs[1], Y[24:32])
    assert torch.equal(clean[0][0].inputs[1], Y[:4])  # cycled: two clean batches were read before
    assert batches[0][0].ids == [f"2-0-{i}" for i in range(8)]


def test_groups_accumulate():
    method = Method(outputs=outputs, loss=loss)
    groups = list(method.groups(loader(4), accumulate=2))
    assert len(groups) == 5
    model, whole = net().eval(), net().eval()
    method.backward(model, *groups[0])
    Method(outputs=outputs, loss=loss).backward(whole, *next(method.groups(loader(8))))
    for a, b in zip(gradients(model), gradients(whole), strict=True):
        torch.testing.assert_close(a, b)


def test_groups_take_spec_batches_as_they_are_and_do_not_read_clean_batches_in_vain():
    method = Method(tasks=TASKS)
    stream = [batch(seed=i) for i in range(3)]

    def never():
        raise AssertionError("read")
        yield

    assert [b[0][0] for b, _ in method.groups(stream, never())] == stream


@pytest.mark.parametrize(
    "value",
    [
        {"x": X[:4], "y": Y[:4]},
        [X[:4], Y[:4]],
        {"text": ["a"] * 4, "nested": {"y": Y[:4]}},
        type("Row", (), {})(),
    ],
)
def test_examples_of_any_batch_are_counted_by_its_first_tensor(value):
    method = Method(outputs=outputs, loss=loss)
    if type(value).__name__ == "Row":
        value.x = X[:4]
    (((wrapped,),), _) = next(method.groups([value]))
    assert wrapped.inputs is value
    assert len(wrapped.ids) == len(wrapped.mass) == 4


def test_several_outputs_and_a_single_one_come_back_as_they_were_made():
    seen = []

    def pair_loss(z, b):
        seen.append(type(z))
        return loss(z[0] if isinstance(z, tuple) else z, b)

    for made in (lambda m, b: (m(b[0]), m(b[0])), lambda m, b: (m(b[0]),), lambda m, b: m(b[0])):
        method = Method(outputs=made, loss=pair_loss)
        method.backward(net(), *next(method.groups(loader())))
    assert seen == [tuple, tuple, torch.Tensor]


def refused(words, act):
    with pytest.raises((ValueError, TypeError)) as caught:
        act()
    assert words in str(caught.value)


def test_refusals():
    fine = Method(outputs=outputs, loss=loss)
    group = next(fine.groups(loader()))
    refused("expected one of task, tasks, or the two functions", lambda: Method())
    refused("expected one of task, tasks, or the two functions", lambda: Method(outputs=outputs))
    refused("expected one of task, tasks", lambda: Method(task=TASKS["three"], tasks=TASKS))
    reweight = Method(weighting="reweight", outputs=outputs, loss=loss)
    refused("weighting reweight: needs clean batches", lambda: next(reweight.groups(loader())))
    refused("clean_loader: it ended", lambda: next(reweight.groups(loader(), [])))
    refused("clean: found 0, expected 1", lambda: reweight.backward(net(), group[0]))
    refused("batches: found 2, expected 1", lambda: fine.backward(net(), group[0] * 2))
    refused("batches: found Batch, expected a list", lambda: fine.backward(net(), [batch()]))
    refused("batches: found list, expected a list of micro-batches", lambda: fine.backward(net(), [[]]))
    refused("batch 0: no tensor in str", lambda: next(fine.groups(["a"])))
    mean = Method(outputs=outputs, loss=lambda z, b: F.cross_entropy(z, b[1]))
    refused("loss: found shape (), expected (8,)", lambda: mean.backward(net(), *group))
    odd = Method(outputs=lambda m, b: {"logits": m(b[0])}, loss=loss)
    refused("outputs: found dict, expected a tensor or a tuple", lambda: odd.backward(net(), *group))
    stranger = Batch("other", ["a"], X[:1], Y[:1], torch.ones(1))
    refused("batch of task 'other': expected one of 'three'", lambda: Method(tasks=TASKS).backward(net(), [[stranger]]))
    state = fine.state_dict()
    refused("found seed 0, expected 1", lambda: Method(outputs=outputs, loss=loss, seed=1).load_state_dict(state))
    exact = Method(update={"dotprod": {"form": "exact"}}, tasks=TASKS, reduce=lambda ts: None)
    refused("one process only", lambda: exact.backward(build(Net), *draw(2)))


def test_an_error_in_a_moved_pass_leaves_the_parameters_as_they_were():
    model = build(Net)
    before, memory = [p.detach().clone() for p in model.parameters()], [p.data_ptr() for p in model.parameters()]
    calls = []

    class Fails:
        def outputs(self, m, b, embedded=None):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("second pass")
            return TASKS["three"].outputs(m, b)

        def loss(self, z, b):
            return TASKS["three"].loss(z, b)

    method = Method(update="dotprod", task=Fails())
    random = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="second pass"):
        method.backward(model, *draw(2))
    assert same(before, list(model.parameters()))
    assert [p.data_ptr() for p in model.parameters()] == memory
    assert torch.equal(torch.get_rng_state(), random)
    assert method.state_dict()["drawn"] == 0


def test_state_is_made_of_tensors_numbers_and_strings():
    def check(value):
        if isinstance(value, dict):
            assert all(isinstance(k, str) for k in value)
            return all(check(v) for v in value.values())
        return isinstance(value, torch.Tensor | int | float | str | list)

    method = Method(weighting="reweight", update="dotprod", tasks=TASKS)
    method.backward(build(Net), *draw(2))
    assert check(method.state_dict())
    assert method.state_dict()["drawn"] == 2


def test_grad_is_overwritten_and_owned():
    model = build(Net)
    method = Method(tasks=TASKS)
    method.backward(model, *draw(1))
    first = [None if p.grad is None else p.grad for p in model.parameters()]
    kept = gradients(model)
    method.backward(model, *draw(1, seed=300))
    assert same(first, kept)  # the earlier gradient was not written
    assert not same(gradients(model), kept)
