"""What a person's loop does with `.grad`: any torch optimizer, clipping, parameter groups, schedulers, averaging."""

import copy

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared.bases import BaseWeighting
from tests.methods.toys import TASKS, Net, batch, build, gradients, same

# every optimizer of torch but these: SparseAdam takes sparse gradients only, LBFGS asks for a closure (below)
OPTIMIZERS = {
    name: getattr(torch.optim, name)
    for name in sorted(dir(torch.optim))
    if isinstance(getattr(torch.optim, name), type)
    and issubclass(getattr(torch.optim, name), torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam", "LBFGS")
}


class Both:
    """An optimizer for matrices and AdamW for the rest."""

    def __init__(self, make, parameters):
        parameters = list(parameters)
        self._parts = [
            make([p for p in parameters if p.ndim == 2], lr=1e-2),
            torch.optim.AdamW([p for p in parameters if p.ndim != 2], lr=1e-2),
        ]

    def step(self):
        for part in self._parts:
            part.step()

    def state_dict(self):
        return {"state": {k: v for i, p in enumerate(self._parts) for k, v in rows(p, i)}}


def rows(optimizer, i):
    return [((i, k), v) for k, v in optimizer.state_dict()["state"].items()]


def made(name, parameters):
    if name == "Muon":
        return Both(torch.optim.Muon, parameters)
    return OPTIMIZERS[name](parameters, lr=1e-2)


def plain_gradient(model, b):
    """What `.backward()` of the mean loss gives."""
    for p in model.parameters():
        p.grad = None
    loss = TASKS[b.task].loss(TASKS[b.task].outputs(model, b), b).mean()
    loss.backward()
    return loss


def close(model, other):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def loops(build_optimizer, act=lambda model, optimizer, i: optimizer.step()):
    """The model of a plain loop and the one of the same loop with a method in the place of `.backward()`."""
    found = []
    for with_method in (False, True):
        model = build(Net).eval()
        optimizer, method = build_optimizer(model), Method(tasks=TASKS)
        for i in range(4):
            b = batch("three", 12, 100 + i)
            if with_method:
                method.backward(model, [[b]])
            else:
                plain_gradient(model, b)
            act(model, optimizer, i)
        found.append(model)
    assert not same(list(found[0].parameters()), list(build(Net).parameters()))
    return found


def test_the_optimizers_of_torch_are_found():
    assert {"SGD", "Adam", "AdamW", "Adamax", "Adagrad", "RMSprop", "NAdam", "RAdam", "Adafactor"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_goes_as_with_backward(name):
    close(*loops(lambda model: made(name, model.parameters())))


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"amsgrad": True}], ids=str)
def test_every_form_of_adamw_goes_as_with_backward(options):
    close(*loops(lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, **options)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_method_of_two_batches_and_weights_trains_with_every_optimizer(name):
    model = build(Net)
    method = Method(weighting="reweight", update="dotprod", tasks=TASKS)
    optimizer, losses = made(name, model.parameters()), []
    for i in range(25):
        pair = [[batch("three", 12, 100 + j)] for j in (0, 1)]
        report = method.backward(model, pair, pair)
        optimizer.step()
        losses.append(report.log["loss"])
        assert report.log["finite"] == 1.0, i
    assert sum(losses[-3:]) < sum(losses[:3])


class NoWeight(BaseWeighting):
    def weights(self, here, outputs, losses):
        return torch.zeros_like(losses), None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_step_leaves_every_optimizer_as_it_was(name):
    model = build(Net)
    optimizer = made(name, model.parameters())
    Method(tasks=TASKS).backward(model, [[batch()]])
    optimizer.step()
    before, state = [p.detach().clone() for p in model.parameters()], copy.deepcopy(optimizer.state_dict()["state"])
    assert Method(weighting=NoWeight(), tasks=TASKS).backward(model, [[batch()]]).skipped
    optimizer.step()
    assert same(before, list(model.parameters()))
    after = optimizer.state_dict()["state"]
    for key, slot in state.items():
        for part, value in slot.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[key][part])), part


def test_lbfgs_takes_the_gradient_with_one_iteration_a_step():
    model, plain = build(Net).eval(), build(Net).eval()
    method = Method(tasks=TASKS)
    ours, theirs = (torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=1) for m in (model, plain))
    for i in range(3):
        b = batch("three", 12, 100 + i)
        report = method.backward(model, [[b]])
        ours.step(lambda report=report: report.log["loss"])
        theirs.step(lambda b=b: plain_gradient(plain, b))
    close(model, plain)
    assert not same(list(model.parameters()), list(build(Net).parameters()))


@pytest.mark.parametrize("triple", [("supervised", "uniform", "erm"), ("supervised", "reweight", "dotprod")])
def test_clipping_sees_the_true_gradient(triple):
    model, method = build(Net), Method(*triple, tasks=TASKS)
    micro_batches = [[batch(seed=100 + i), batch(seed=200 + i)] for i in range(method.batches)]
    report = method.backward(model, micro_batches, micro_batches)
    before = gradients(model)
    found = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
    assert float(found) == pytest.approx(report.log["gradient_norm"], rel=1e-6)
    for g, clipped in zip(before, gradients(model), strict=True):
        if g is not None:
            torch.testing.assert_close(clipped, g * 1e-2 / (found + 1e-6))


def test_clipped_loops_go_as_with_backward():
    def norm(model, optimizer, i):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()

    def value(model, optimizer, i):
        torch.nn.utils.clip_grad_value_(model.parameters(), 1e-3)
        optimizer.step()

    for act in (norm, value):
        close(*loops(lambda model: torch.optim.SGD(model.parameters(), lr=0.5), act))


def test_parameter_groups_and_zero_grad_go_as_with_backward():
    def grouped(model):
        head = list(model.heads.parameters())
        rest = [p for n, p in model.named_parameters() if not n.startswith("heads.")]
        return torch.optim.AdamW([{"params": rest, "lr": 1e-3}, {"params": head, "weight_decay": 0.1}], lr=1e-1)

    def act(model, optimizer, i):
        optimizer.step()
        optimizer.zero_grad(set_to_none=bool(i % 2))

    close(*loops(grouped, act))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 4),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda i: 1 / (1 + i)),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.5)], [2]
        ),
    ],
    ids=["cosine", "one_cycle", "lambda", "sequential"],
)
def test_schedulers_go_as_with_backward(schedule):
    def with_schedule(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        optimizer.schedule = schedule(optimizer)
        return optimizer

    def act(model, optimizer, i):
        optimizer.step()
        optimizer.schedule.step()

    close(*loops(with_schedule, act))


def test_a_plateau_is_seen_in_the_reported_loss():
    model, method = build(Net), Method(tasks=TASKS)
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)  # the loss stays
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, eps=0)
    for _ in range(4):
        schedule.step(method.backward(model, [[batch()]]).log["loss"])
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-13)


def test_averaged_models_follow():
    model, method = build(Net), Method(update="dotprod", tasks=TASKS)
    average, seen = torch.optim.swa_utils.AveragedModel(model), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(3):
        method.backward(model, [[batch(seed=i)], [batch(seed=i + 50)]])
        optimizer.step()
        average.update_parameters(model)
        seen.append(model.a.weight.detach().clone())
    torch.testing.assert_close(average.module.a.weight.detach(), sum(seen) / 3)
