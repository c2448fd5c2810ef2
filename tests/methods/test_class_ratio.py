"""`class_ratio` against counting by hand."""

import pytest
import torch
from torch import nn

from gradworks.methods import Method
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, error, gradients, same, split

SEED = 7
REFUSED = ("reg", "span", "seq")


def labelled(labels, seed=100):
    made = batch("three", len(labels), seed)
    made.labels = torch.tensor(labels)
    return made


def make(counts=None, **options):
    return Method(weighting={"class_ratio": {"counts": counts}}, seed=SEED, **(options or {"tasks": TASKS}))


def weights(report):
    return torch.cat([part.weights for parts in report.sums for part in parts])


def test_the_first_step_balances_its_own_batch_and_later_ones_all_that_was_seen():
    method, model = make(), build(Net)
    first, second = [0, 0, 0, 1, 0, 1], [0, 2, 1, 1, 2, 2]
    found = weights(method.backward(model, [[labelled(first)]]))
    # N / (K * N_c): six examples, four of class 0, two of class 1
    expected = torch.tensor([6 / (2 * 4), 6 / (2 * 4), 6 / (2 * 4), 6 / (2 * 2), 6 / (2 * 4), 6 / (2 * 2)])
    torch.testing.assert_close(found, expected.double())
    found = weights(method.backward(model, [[labelled(second)]]))
    of = {0: 12 / (3 * 5), 1: 12 / (3 * 4), 2: 12 / (3 * 3)}
    torch.testing.assert_close(found, torch.tensor([of[c] for c in second]).double())
    assert method.state_dict()["weighting"] == {"counts": {"three": [5, 4, 3]}}


def test_every_class_counts_the_same_in_the_gradient():
    """Dropout off: the mean over the classes of the mean loss of each."""
    model, plain = build(Net).eval(), build(Net).eval()
    b = labelled([0, 0, 0, 1, 0, 1])
    make().backward(model, [[b]])
    losses = TASKS["three"].loss(TASKS["three"].outputs(plain, b), b)
    ((losses[b.labels == 0].mean() + losses[b.labels == 1].mean()) / 2).backward()
    assert error(gradients(model), gradients(plain)) < 1e-14


def test_given_counts_are_those_of_the_whole_training_set():
    found = weights(make([600, 300, 100]).backward(build(Net), [[labelled([0, 1, 2, 0])]]))
    expected = torch.tensor([1000 / 1800, 1000 / 900, 1000 / 300, 1000 / 1800])
    torch.testing.assert_close(found, expected.double())
    shares = weights(make([0.6, 0.3, 0.1]).backward(build(Net), [[labelled([0, 1, 2, 0])]]))
    torch.testing.assert_close(shares, found)


def test_equal_counts_are_erm():
    model, plain = build(Net), build(Net)
    make([5, 5, 5]).backward(model, draw(1)[0])
    Method(tasks=TASKS, seed=SEED).backward(plain, draw(1)[0])
    assert same(gradients(model), gradients(plain))


@pytest.mark.parametrize("update", ["erm", "dotprod"])
def test_accumulated_equals_unaccumulated_and_state_moves_once_a_step(update):
    found, states = [], []
    for micro in (None, 2):
        model = build(Net).eval()
        method = Method(weighting="class_ratio", update=update, tasks=TASKS)
        for step in range(2):
            batches = [[labelled([0, 0, 1, 2, 0, 0], 100 + 9 * step + i)] for i in range(method.batches)]
            method.backward(model, [split(b, micro) if micro else [b] for (b,) in batches])
        found.append(gradients(model))
        states.append(method.state_dict()["weighting"])
    assert error(*found) < (1e-12 if update == "erm" else 1e-8)
    of = 2 * method.batches
    assert states == [{"counts": {"three": [4 * of, of, of]}}] * 2


def test_ranks_that_meet_different_classes_count_together():
    """The other rank's share is added by hand: labels 0 and 4 there, 0 and 1 here."""
    sent = []

    def reduce(tensors):
        sent.append([t.clone() for t in tensors])
        if tensors[0].dtype == torch.int64 and tensors[0].numel() == 1:
            tensors[0] += 5  # its five classes
        elif tensors[0].dtype == torch.int64:
            tensors[0] += torch.bincount(torch.tensor([0, 4, 4]), minlength=len(tensors[0]))

    method = make(tasks=TASKS, reduce=reduce)
    found = weights(method.backward(build(Net), [[labelled([0, 0, 1])]]))
    torch.testing.assert_close(found, torch.tensor([6 / (3 * 3), 6 / (3 * 3), 6 / (3 * 1)]).double())
    assert sent[0][0].tolist() == [2]
    assert sent[1][0].tolist() == [2, 1, 0, 0, 0, 0, 0]
    assert method.state_dict()["weighting"]["counts"]["three"][:5] == [3, 1, 0, 0, 2]


def test_tasks_are_counted_apart():
    method, model = make(), build(Net)
    method.backward(model, [[labelled([0, 0, 1, 2])]])
    one = batch("one", 4)
    one.labels = torch.tensor([1, 1, 1, 0])
    found = weights(method.backward(model, [[one]]))
    torch.testing.assert_close(found, torch.tensor([4 / 6, 4 / 6, 4 / 6, 2]).double())


def test_a_resumed_run_weighs_as_the_whole_one():
    whole, cut, model = make(), make(), build(Net)
    whole.backward(model, [[labelled([0, 0, 0, 1])]])
    cut.load_state_dict(whole.state_dict())
    whole.backward(model, [[labelled([0, 0, 2])]])  # and what was given away does not move with it
    last = [[labelled([0, 1, 2])]]
    cut.backward(build(Net), [[labelled([0, 0, 2])]])
    torch.testing.assert_close(weights(whole.backward(model, last)), weights(cut.backward(model, last)), rtol=0, atol=0)


def test_one_plain_pass():
    assert make().backward(build(Net), draw(1, micro=2)[0]).passes == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_no_classes_are_refused_at_the_first_batch(kind):
    if kind not in REFUSED:
        assert make().backward(build(Net), draw(1, kind)[0]).log["finite"] == 1
        return
    with pytest.raises(ValueError) as caught:
        make().backward(build(Net), draw(1, kind)[0])
    shape = {"reg": "float64 labels of shape (6,)", "span": "int64 labels of shape (6, 2)",
             "seq": "int64 labels of shape (6, 6)"}[kind]  # fmt: skip
    expected = "expected class indices, one per example: (n,) whole numbers from 0"
    assert str(caught.value) == f"class_ratio: found {shape} in task {kind!r}, {expected}"


def test_other_labels_and_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="found label -100 in task 'three', expected class indices"):
        make().backward(build(Net), [[labelled([0, -100])]])
    with pytest.raises(ValueError, match="found label 2, expected one of 2 counts"):
        make([10, 20]).backward(build(Net), [[labelled([0, 2])]])

    def outputs(model, b):
        return model(b[0])

    method = make(outputs=outputs, loss=lambda z, b: z.sum(1))
    ((batches, clean),) = method.groups([(torch.ones(2, 3), torch.tensor([0, 1]))])
    with pytest.raises(ValueError, match="found labels of type NoneType, expected class indices") as caught:
        method.backward(nn.Linear(3, 2), batches, clean)
    assert len(str(caught.value).splitlines()) <= 3


def test_true_and_false_are_two_classes():
    one = batch("one", 4)
    one.labels = torch.tensor([True, True, False, True])
    found = weights(make().backward(build(Net), [[one]]))
    torch.testing.assert_close(found, torch.tensor([4 / 6, 4 / 6, 2, 4 / 6]).double())


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], "counts: found [], expected one number per class"),
        ("abc", "counts: found 'abc', expected one number per class"),
        (3, "counts: found 3, expected one number per class"),
        ([3, 0], "counts: found 0, expected a number greater than 0"),
        ([3, "4"], "counts: found '4', expected a number greater than 0"),
    ],
)
def test_options(counts, words):
    with pytest.raises(ValueError) as caught:
        make(counts)
    assert str(caught.value).startswith("weighting class_ratio: " + words)
