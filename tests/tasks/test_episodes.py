"""Few-shot episodes: what is drawn and learned from, and supervised-reptile's algorithm beside the library's."""

import copy
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data import tables
from gradworks.data.mixture import Mixture, Part
from gradworks.methods import Method
from gradworks.models import conv4
from gradworks.tasks import TaskSpec
from gradworks.tasks.kinds._shared import drawn

SHAPE = (12, 12, 1)
CLASSES, PICTURES = 8, 6


def kind(**options):
    given = {"shape": SHAPE, "ways": 3, "train_shots": 4, "select": 5, "test": 7, **options}
    return tasks.kind(TaskSpec("t", "episodes", ("image",), None, ("accuracy",), options=given))


def table(made, classes=CLASSES, pictures=PICTURES):
    """Of class c and picture i: pixels 10 c + i, with a bright row c."""
    rows = [(c, i) for c in range(classes) for i in range(pictures)]
    drawn = [np.full(SHAPE, 10 * c + i, np.uint8) for c, i in rows]
    for one, (c, _) in zip(drawn, rows, strict=True):
        one[c] += 100
    ids, names = [f"{c}/{i}" for c, i in rows], [f"class {c}" for c, _ in rows]
    return pa.table({"id": ids, "image": made.column(drawn), "label": names})


def network(tmp_path, ways=3, **options):
    conv4.prepare(conv4.Options(model="conv4", channels=4, blocks=2, statistics="batch", **options), tmp_path, SHAPE)
    return models.create(tmp_path, ways, 0).double()


# what is drawn


def test_mini_batches_read_all_before_they_repeat_one_and_go_over_the_end():
    found = list(itertools.islice(drawn.mini_batches(5, 3, 0, "a"), 10))
    assert all(len(one) == 3 for one in found)
    flat = list(itertools.chain(*found))
    assert all(sorted(flat[i : i + 5]) == list(range(5)) for i in range(0, 30, 5))
    assert found == list(itertools.islice(drawn.mini_batches(5, 3, 0, "a"), 10))
    assert found != list(itertools.islice(drawn.mini_batches(5, 3, 0, "b"), 10))


def test_the_batches_of_a_group_are_of_one_episode():
    classes = [torch.arange(10 * c, 10 * c + 6) for c in range(CLASSES)]
    draws = drawn.training(classes, 3, 4, 0, 5, 2, 0)
    seen = []
    for _ in range(40):
        rows, labels = zip(*itertools.islice(draws, 2), strict=True)
        rows, labels = list(itertools.chain(*rows)), torch.cat(labels).tolist()
        of = {row // 10: label for row, label in zip(rows, labels, strict=True)}
        assert all(of[row // 10] == label for row, label in zip(rows, labels, strict=True))
        assert len(set(of.values())) == len(of) <= 3 and len(set(rows)) == 10  # of 12 pictures
        seen.append(of)
    assert {c for of in seen for c in of} == set(range(CLASSES))
    assert len({of[c] for of in seen for c in of if c == 5}) == 3  # the place of a class changes
    begun, later = drawn.training(classes, 3, 4, 0, 5, 3, 0), drawn.training(classes, 3, 4, 0, 5, 3, 0, start=7)
    rest = list(itertools.islice(begun, 7, 12))
    assert [a for a, _ in rest] == [a for a, _ in itertools.islice(later, 5)]


def test_the_tail_is_the_last_batch_of_an_episode_and_in_no_other():
    classes = [torch.arange(10 * c, 10 * c + 6) for c in range(CLASSES)]
    draws = drawn.training(classes, 3, 5, 2, 4, 3, 0)
    for _ in range(20):
        *before, (last, labels) = itertools.islice(draws, 3)
        seen = {row for rows, _ in before for row in rows}
        assert [len(rows) for rows, _ in before] == [4, 4] and len(set(last)) == 6 and not seen & set(last)
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and len({row // 10 for row in last}) == 3
        of = {row // 10: label for row, label in zip(last, labels.tolist(), strict=True)}
        assert all(of[row // 10] == y for rows, ys in before for row, y in zip(rows, ys.tolist(), strict=True))
    later = drawn.training(classes, 3, 5, 2, 4, 3, 0, start=60)
    assert [rows for rows, _ in itertools.islice(draws, 4)] == [rows for rows, _ in itertools.islice(later, 4)]
    alone = itertools.islice(drawn.training(classes, 3, 5, 2, 15, 1, 0), 5)
    assert all(len(set(rows)) == 15 for rows, _ in alone)
    with pytest.raises(ValueError, match="tail: found 4\nexpected fewer than the 4 train_shots"):
        kind(tail=4)


def test_too_few_pictures_or_classes_are_named():
    made = kind()
    one = table(made).slice(0, PICTURES + 1)  # all of class 0, one of class 1
    with pytest.raises(InputError, match=r"f.test: found 2 classes\nexpected at least 3, those of an episode"):
        made.arrange("test", one, 0, "f")
    one = table(made).slice(0, 3 * PICTURES + 1)
    with pytest.raises(InputError, match="found the class 'class 3' with 1 of its pictures\nexpected at least 2"):
        made.arrange("test", one, 0, "f")
    with pytest.raises(InputError, match="expected at least 4, as an episode takes"):
        tables.to_examples(one, made, type("M", (), {"shape": SHAPE}), 8, "f")


def test_examples_of_selection_and_test_are_episodes():
    made = kind(shots=2, queries=3)
    whole = table(made)
    assert made.arrange("train", whole, 0, "f") is whole
    found = {(name, seed): made.arrange(name, whole, seed, "f") for name in ("selection", "test") for seed in (0, 1)}
    assert found["test", 0].equals(found["test", 1]) and not found["selection", 0].equals(found["selection", 1])
    assert [len(found[name, 0]) for name in ("selection", "test")] == [5, 7]
    for one in found["test", 0].to_pylist():
        pictures = np.frombuffer(one["image"], np.uint8).reshape(15, *SHAPE)
        values = pictures.min((1, 2, 3))  # 10 c + i
        assert len(set(values)) == 15  # no query is among those that are learned from
        x, y, z = (int(name) for name in one["label"].split() if name != "class")
        assert (values // 10).tolist() == [x, x, y, y, z, z, x, x, x, y, y, y, z, z, z]


def test_turned_classes_are_classes_of_the_training_split():
    made, upright_only = kind(rotations=True), kind()
    whole = table(upright_only)
    found = made.arrange("train", whole, 0, "f")
    assert made.arrange("clean", whole, 0, "f") is whole and upright_only.arrange("train", whole, 0, "f") is whole
    assert found.slice(0, len(whole)).equals(whole) and found.schema == whole.schema
    rows = {one["id"]: one for one in found.to_pylist()}
    assert len(rows) == 4 * len(whole) and rows["2/3/270"]["label"] == "class 2/270"
    upright = np.frombuffer(rows["2/3"]["image"], np.uint8).reshape(12, 12)
    for degrees, turned in ((90, upright.T[::-1]), (180, upright[::-1, ::-1]), (270, upright[::-1].T)):
        picture = np.frombuffer(rows[f"2/3/{degrees}"]["image"], np.uint8).reshape(12, 12)
        assert (picture == turned).all() and (picture != upright).any()
    with pytest.raises(ValueError, match=r"rotations: found pictures of \[12, 8, 1\]\nexpected as high as wide"):
        kind(rotations=True, shape=(12, 8, 1))


def test_a_run_reads_the_same_episodes_after_it_was_killed(tmp_path):
    made, model = kind(), network(tmp_path)
    examples = tables.to_examples(table(made), made, model, 8, "f")
    needs = Method(update={"reptile": {"batches": 3, "tasks": "same", "groups": 2}}, task=made).needs
    mixture = Mixture({"t": Part(examples, examples)})
    draws = mixture.draws(needs, 5, None, 0)
    steps, states = [], []
    for i in range(4):
        steps.append(draws.step(i)[0])
        states.append(draws.state_dict())
    for step in steps:
        assert len(step) == 6
        for group in (step[:3], step[3:]):
            of = {(int(key[0]), int(label)) for b in group for key, label in zip(b.ids, b.labels, strict=True)}
            assert len(of) == len({c for c, _ in of}) == len({label for _, label in of}) <= 3
    again = mixture.draws(needs, 5, None, 0)
    again.load_state_dict(states[1])
    assert [b.ids for b in again.step(2)[0]] == [b.ids for b in steps[2]]


def test_batches_that_need_not_be_of_the_same_task_are_of_an_episode_each(tmp_path):
    made, model = kind(), network(tmp_path)
    examples = tables.to_examples(table(made), made, model, 8, "f")
    needs = Method(update="dotprod", task=made).needs
    draws = Mixture({"t": Part(examples, examples)}).draws(needs, 12, None, 0)  # a whole episode
    pairs = [[{key[0] for key in b.ids} for b in draws.step(i)[0]] for i in range(20)]
    assert all(len(classes) == 3 for pair in pairs for classes in pair)
    assert sum(a == b for a, b in pairs) < 5  # of 56 triples of classes


# supervised-reptile, written out: parameters that move, and are put back


def plain_reptile(model, groups, rate, step, last_gradient, adam):
    """One meta-step: theta + step * mean(theta_k - theta) over the tasks; or over their last inner steps (foml).

    `adam`: None, or the second moments and the number of inner steps so far, which go on from task to task.
    """
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    total = {name: torch.zeros_like(p) for name, p in start.items()}
    for batches in groups:
        model.load_state_dict(start, strict=False)
        for batch in batches:
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            loss = F.cross_entropy(model(batch.inputs), batch.labels)
            gradient = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                if adam is not None:
                    adam["t"] += 1
                for (name, p), g in zip(model.named_parameters(), gradient, strict=True):
                    if adam is not None:
                        adam[name] = 0.999 * adam.get(name, 0.0) + 0.001 * g * g
                        g = g / ((adam[name] / (1 - 0.999 ** adam["t"])).sqrt() + 1e-8)
                    p -= rate * g
        origin = before if last_gradient else start
        for name, p in model.named_parameters():
            total[name] += (p.detach() - origin[name]) / len(groups)
    model.load_state_dict({name: start[name] + step * total[name] for name in start}, strict=False)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("update, last", [("reptile", False), ("fomaml", True)])
def test_meta_steps_are_those_of_supervised_reptile(tmp_path, update, last, optimizer):
    made, ours = kind(), network(tmp_path)
    theirs = copy.deepcopy(ours)
    examples = tables.to_examples(table(made), made, ours, 8, "f")
    k, groups, rate, step = 4, 3, 0.05, 0.7
    slot = {update: {"batches": k, "inner_lr": rate, "inner_optimizer": optimizer, "tasks": "same", "groups": groups}}
    adam = {"t": 0} if optimizer == "adam" else None
    method = Method(update=slot, task=made, seed=0)
    # the mean over k of Reptile and the last gradient of FOMAML, as the scale law has them
    optimizer = torch.optim.SGD(ours.parameters(), step * rate * (1 if last else k))
    draws = Mixture({"t": Part(examples, examples)}).draws(method.needs, 5, None, 0)
    for number in range(4):
        batches, _ = draws.step(number)
        plain_reptile(theirs, [batches[i : i + k] for i in range(0, len(batches), k)], rate, step, last, adam)
        method.backward(ours, [[one] for one in batches])
        optimizer.step()
    # nothing depends on the biases before a batch normalisation: Adam moves them by rounding errors over their size
    biases = {f"trunk.{i}.bias" for i, one in enumerate(ours.trunk) if isinstance(one, torch.nn.Conv2d)}
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-9, atol=1e-7 if adam and name in biases else 1e-12), name
    assert not torch.allclose(ours.head.weight, network(tmp_path).head.weight)


def plain_evaluation(model, pictures, made, name, before=None):
    """The shares of queries right after inner steps, one query at a time beside the support set, and all together.

    before: inner steps of training and the second moments that they left, of which adam goes on.
    """
    o = made.options
    learner = copy.deepcopy(model)
    support, asked = pictures[: o.ways * o.shots], pictures[o.ways * o.shots :]
    labels = [c for c in range(o.ways) for _ in range(o.shots)]
    begun, *second = before or (0, *map(torch.zeros_like, learner.parameters()))
    second = [v.clone() for v in second]
    batches = drawn.mini_batches(len(labels), o.inner.batch, "evaluate", name)
    for count in range(begun + 1, begun + o.inner.steps + 1):
        rows = next(batches)
        loss = F.cross_entropy(learner({"pixels": support[rows]}), torch.tensor([labels[r] for r in rows]))
        gradient = torch.autograd.grad(loss, list(learner.parameters()))
        with torch.no_grad():
            for p, g, v in zip(learner.parameters(), gradient, second, strict=True):
                if o.inner.optimizer == "adam":  # without a first moment
                    v *= 0.999
                    v += 0.001 * g * g
                    g = g / ((v / (1 - 0.999**count)).sqrt() + 1e-8)
                p -= o.inner.learning_rate * g
    alone = [int(learner({"pixels": torch.cat([support, one[None]])})[-1].argmax()) for one in asked]
    together = learner({"pixels": asked}).argmax(1).tolist()
    right = [c for c in range(o.ways) for _ in range(o.queries)]
    return [np.mean([a == b for a, b in zip(chosen, right, strict=True)]) for chosen in (alone, together)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_episode_is_learned_and_asked_as_supervised_reptile_does(tmp_path, optimizer):
    inner = {"optimizer": optimizer, "learning_rate": 0.02, "steps": 4, "batch": 4}
    made = kind(shots=2, queries=2, inner=inner, test=12)
    model = network(tmp_path)
    before = copy.deepcopy(model.state_dict())
    examples = tables.to_examples(made.arrange("test", table(made), 0, "f"), made, model, 8, "f")
    batch = examples.batch(range(12))
    with torch.no_grad():
        found = made.respond(model.eval(), batch, [])
    pictures = batch.inputs["pixels"].unflatten(1, (-1, SHAPE[0]))
    expected = [plain_evaluation(model, one, made, name) for one, name in zip(pictures, batch.ids, strict=True)]
    assert found.tolist() == [pytest.approx(one) for one in expected]
    assert len(set(found[:, 0].tolist())) > 1 and found[:, 0].tolist() != found[:, 1].tolist()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("state", ["kept", "reset"])
def test_adam_goes_on_from_the_moments_of_training_as_in_supervised_reptile(tmp_path, state):
    inner = {"optimizer": "adam", "state": state, "learning_rate": 0.02, "steps": 4, "batch": 4}
    made, model = kind(shots=2, queries=2, inner=inner, test=12), network(tmp_path)
    draw = torch.Generator().manual_seed(0)
    moments = [torch.rand(p.shape, generator=draw, dtype=p.dtype) * 1e-3 for p in model.parameters()]
    models.carry(model, True)
    model.moments.hold(3, moments)
    models.save(model, tmp_path / "trained")
    model = models.load(tmp_path / "trained").double()
    examples = tables.to_examples(made.arrange("test", table(made), 0, "f"), made, model, 8, "f")
    batch = examples.batch(range(12))
    pictures = batch.inputs["pixels"].unflatten(1, (-1, SHAPE[0]))
    held = {name: value.clone() for name, value in model.state_dict().items()}
    begun = (3, *(v.float().double() for v in moments))  # as the file has them
    found = {
        name: [plain_evaluation(model, one, made, i, before) for one, i in zip(pictures, batch.ids, strict=True)]
        for name, before in (("kept", begun), ("reset", None))
    }
    answered = made.respond(model.eval(), batch, []).tolist()
    assert answered == [pytest.approx(one) for one in found[state]] and found["kept"] != found["reset"]
    assert all(torch.equal(held[name], value) for name, value in model.state_dict().items())


def test_rows_that_do_not_fit():
    for options, said in (
        ({"classes": ["a", "b"]}, r"classes: found \['a', 'b'\]\nexpected none: an episode draws its own"),
        ({"ways": 1}, "ways"),
        ({"inner": {"optimizer": "adamw"}}, "inner"),
        ({"shape": [3]}, "shape"),
    ):
        row = {"kind": "episodes", "texts": ["image"], "shape": [12, 12, 1], **options}
        with pytest.raises(InputError, match=said):
            tasks.own("few", row, "params.yaml: tasks.few")
    made = tasks.kind(tasks.own("few", {"kind": "episodes", "texts": ["image"], "shape": [12, 12, 1]}, "p"))
    assert (made.size, made.options.shots, made.spec.metrics) == (5, 1, ("accuracy",))
    with pytest.raises(InputError, match="has no classes of its own"):
        made.drawn_from("p: corrupt.conditions.noise")


def test_accuracy_over_episodes_has_the_interval_of_episodes():
    made = kind()
    shares = np.array([[0.2, 0.0], [0.4, 1.0], [1.0, 1.0], [0.6, 1.0]] * 25)
    for metric, column, value in (("accuracy", 0, 0.55), ("transductive_accuracy", 1, 0.75)):
        found, error = made.score(metric, np.zeros(100), shares), shares[:, column].std(ddof=1) / 10
        assert found.value == pytest.approx(value) and found.n == 100
        assert found.low == pytest.approx(value - 1.96 * error, abs=0.01)
        assert found.high == pytest.approx(value + 1.96 * error, abs=0.01)
        assert made.shares(metric, np.zeros(100), shares).tolist() == shares[:, column].tolist()
    perfect = made.score("accuracy", np.zeros(50), np.ones((50, 2)))
    assert perfect.value == perfect.high == 1 and 0.9 < perfect.low < 1
    assert isinstance(made.references("accuracy", np.zeros(9), None)["chance"].value, float)
    assert made.constants(np.zeros(2))[0].tolist() == [[1 / 3, 1 / 3]] * 2


def test_both_forms_are_in_the_table_of_predictions_and_the_first_is_the_default():
    made, shares = kind(), np.array([[0.5, 1.0], [0.0, 0.25]])
    table = pa.table(made.predictions(shares))
    assert table.column_names == ["right", "right_transductive"] == list(made.columns)
    assert made.read(table).tolist() == shares.tolist()
    assert pa.table(made.predictions(None)).num_rows == 0
    assert made.best(np.array([[[0.0, 1.0]], [[0.5, 0.0]]]), np.zeros(1)).tolist() == [1]
    assert made.apart(shares, shares[::-1]).tolist() == [0.5, 0.5]
    assert tasks.kind(tasks.find("omniglot", {})).spec.metrics == ("accuracy", "transductive_accuracy")
