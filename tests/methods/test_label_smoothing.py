"""Label smoothing: against soft labels written out, its limit, and the tasks that have nothing to smooth."""

import pytest
import torch

from gradworks.methods import Method
from gradworks.spec import Batch
from tests.kinds import classes, values
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, error, gradients, masks, same

SEED = 3


def soft_loss(kind, out, b, share):
    """(n,) cross entropy with soft labels, class by class."""
    y = b.labels
    if kind == "one":
        z = torch.cat([torch.zeros_like(out[0]), out[0]], 1)
        out, y = (z,), y
    targets = [y[:, k] for k in range(2)] if kind == "span" else [y]
    found = []
    for z, target in zip(out, targets, strict=True):
        classes = z.shape[-1]
        known = target != -100
        soft = torch.nn.functional.one_hot(target.clamp_min(0), classes).to(z) * (1 - share) + share / classes
        losses = -(soft * z.log_softmax(-1)).sum(-1) * known
        found.append(losses.sum(1) / known.sum(1) if kind == "seq" else losses)
    return sum(found) / len(found)


@pytest.mark.parametrize("share", [0.1, 0.6])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "reg"])
def test_a_step_agrees_with_soft_labels(kind, share):
    model, b = build(Net), batch(kind)
    report = Method({"label_smoothing": {"share": share}}, tasks=TASKS, seed=SEED).backward(model, [[b]])
    with masks(SEED, "train", 0):
        losses = soft_loss(kind, TASKS[kind].outputs(model, b), b, share)
    expected = torch.autograd.grad((b.mass * losses).sum() / b.mass.sum(), list(model.parameters()), allow_unused=True)
    assert error(gradients(model), expected) < 1e-13
    torch.testing.assert_close(report.sums[0][0].losses, losses.detach())
    assert report.passes == 1


def test_pinned_values():
    """From the soft labels, the defaults on the toy batch."""
    log = Method("label_smoothing", tasks=TASKS, seed=SEED).backward(build(Net), draw(1)[0]).log
    assert [log["loss"], log["gradient_norm"]] == pytest.approx(PINNED, rel=1e-5)


PINNED = [1.08837295076, 0.61162824478]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "reg"])
def test_without_a_share_it_is_supervised(kind):
    one, two = build(Net), build(Net)
    Method({"label_smoothing": {"share": 0}}, tasks=TASKS, seed=SEED).backward(one, draw(1, kind)[0])
    Method(tasks=TASKS, seed=SEED).backward(two, draw(1, kind)[0])
    assert error(gradients(one), gradients(two)) < 1e-14


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_heads(share):
    """One logit z is two classes with logits 0 and z."""
    z = torch.randn(5, 1, dtype=torch.float64)
    b = Batch("t", list("abcde"), {}, torch.tensor([0, 1, 1, 0, 1]), torch.ones(5))
    two = (torch.cat([torch.zeros_like(z), z], 1),)
    expected = soft_loss("three", two, b, share)
    torch.testing.assert_close(classes(2, one_logit=True).smoothed((z,), b, share), expected)
    torch.testing.assert_close(classes(2).smoothed(two, b, share), expected)
    if share == 0:
        assert torch.equal(
            classes(2, one_logit=True).smoothed((z,), b, share), classes(2, one_logit=True).loss((z,), b)
        )
        assert same(classes(2).smoothed(two, b, 0.0), classes(2).loss(two, b))


def test_a_task_without_classes_is_refused_before_training():
    with pytest.raises(ValueError, match=r"label_smoothing: needs smoothed\(...\) of a task, and task 'sts' does not"):
        Method("label_smoothing", tasks={"nli": classes(3), "sts": values()})


@pytest.mark.parametrize("share", [1.0, -0.1, "0.1", None, float("nan")])
def test_refusals(share):
    with pytest.raises(ValueError, match=r"^objective label_smoothing: share: found "):
        Method({"label_smoothing": {"share": share}}, tasks=TASKS)
