"""Models of pictures: parameter counts of the sources, sizes, written and read, reweighted as a loop over examples."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data.batching import Examples
from gradworks.methods import Method
from gradworks.models import conv4, lenet5
from gradworks.spec import Batch
from gradworks.tasks import TaskSpec


def folder(path, kind, shape, **options):
    path.mkdir(exist_ok=True)
    kind.prepare(kind.Options(model=kind.__name__.rpartition(".")[2], **options), path, shape)
    return path


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_lenet5_has_the_parameters_of_lecun(tmp_path):
    model = models.create(folder(tmp_path, lenet5, (28, 28, 1)), 10, 0)
    # 6 * (25 + 1), 16 * (6 * 25 + 1), 400 * 120 + 120, 120 * 84 + 84, 84 * 10 + 10
    assert count(model) == 156 + 2416 + 48_120 + 10_164 + 850 == 61_706


def test_the_network_of_ren_et_al(tmp_path):
    options = {"channels": [16, 32, 64], "hidden": [100], "pool": 3, "same": True}
    model = models.create(folder(tmp_path, lenet5, (28, 28, 1), **options), 1, 0)
    # 28 -> 14 -> 7 -> 4: 1024 inputs of the first linear layer, as their w4
    assert model.trunk[10].in_features == 1024
    assert count(model) == 16 * 26 + 32 * 401 + 64 * 801 + 1024 * 100 + 100 + 101


@pytest.mark.parametrize(
    "shape, options, trunk, width",
    [
        ((28, 28, 1), {}, 111_936, 256),
        ((84, 84, 3), {}, 113_088, 2304),
        ((84, 84, 3), {"channels": 32, "halve": "pool"}, 28_896, 1152),
    ],
    ids=str,
)
def test_conv4_has_the_parameters_of_few_shot_learning(tmp_path, shape, options, trunk, width):
    model = models.create(folder(tmp_path, conv4, shape, **options), 5, 0)
    assert count(model.trunk) == trunk and model.head.in_features == width


def test_pictures_too_small_for_the_layers(tmp_path):
    with pytest.raises(InputError, match=r"shape: found \[6, 6, 1\]\nexpected pictures of which the layers leave some"):
        models.create(folder(tmp_path, lenet5, (6, 6, 1)), 10, 0)


def pixels(n, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.mark.parametrize("kind", [lenet5, conv4])
def test_what_was_written_answers_the_same(tmp_path, kind):
    model = models.create(folder(tmp_path / "e", kind, (28, 28, 1)), {"a": 3, "b": 2}, 1)
    inputs = model.collate([{"pixels": one} for one in pixels(6, (28, 28, 1))])
    for _ in range(3):
        model(inputs, task="a")  # moves running statistics
    models.save(model, tmp_path / "m")
    again = models.load(tmp_path / "m").eval()
    assert torch.equal(model.eval()(inputs, task="b"), again(inputs, task="b"))
    assert torch.equal(model(inputs, model.embed(inputs), "a"), model(inputs, task="a"))
    assert model.embed(inputs).shape == (6, 1, 784) and 0 <= model.embed(inputs).min() <= model.embed(inputs).max() <= 1
    other = models.create(tmp_path / "e", {"a": 3, "b": 2}, 2)
    assert not torch.equal(other.eval()(inputs, task="a"), model(inputs, task="a"))


def test_rows_and_columns_are_not_exchanged(tmp_path):
    """A picture is height, width, channels; the trunk gets channels first."""
    model = models.create(folder(tmp_path, lenet5, (12, 20, 3)), 2, 0)
    got = []
    model.trunk.register_forward_pre_hook(lambda _, args: got.append(args[0]))
    one = pixels(2, (12, 20, 3))
    model(model.collate([{"pixels": picture} for picture in one]))
    assert torch.equal(got[0], torch.from_numpy(one).permute(0, 3, 1, 2) / 255)


def test_statistics_of_the_batch_depend_on_what_else_is_in_it(tmp_path):
    for statistics, alike in (("running", True), ("batch", False)):
        path = folder(tmp_path / statistics, conv4, (28, 28, 1), channels=4, statistics=statistics)
        model = models.create(path, 5, 0).eval()
        inputs = model.collate([{"pixels": one} for one in pixels(6, (28, 28, 1))])
        alone = model({"pixels": inputs["pixels"][:2]})
        assert torch.allclose(model(inputs)[:2], alone, atol=1e-6) == alike
        assert bool(list(model.named_buffers())) == alike


# reweighting: u_i = <clean gradient, gradient of example i>, one example after the other, by plain autograd


def task():
    spec = TaskSpec("t", "image", ("image",), ("a", "b", "c"), ("accuracy",), options={"shape": (14, 14, 1)})
    return tasks.kind(spec)


def batch(model, n, seed):
    examples = Examples(
        "t", [str(i) for i in range(n)], [{"pixels": one} for one in pixels(n, (14, 14, 1), seed)],
        torch.arange(n) % 3, model.collate,
    )  # fmt: skip
    return examples.batch(range(n))


def loop_gradient(model, data, clean):
    """Eq. 4 to 7 of Ren et al., weights that sum to 1, with every example in a batch of its own."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient(rows, of):
        z = model({"pixels": of.inputs["pixels"][rows]})
        return torch.autograd.grad(F.cross_entropy(z, of.labels[rows]), parameters)

    v = gradient(slice(None), clean)
    each = [gradient([i], data) for i in range(len(data.labels))]
    u = [sum((a * b).sum() for a, b in zip(v, one, strict=True)) for one in each]
    w = torch.stack(u).clamp_min(0)
    assert 0 < (w > 0).sum() < len(w)
    return [sum(a * g for a, g in zip(w / w.sum(), gs, strict=True)) for gs in zip(*each, strict=True)]


@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
@pytest.mark.parametrize("options", [{}, {"channels": [4, 8, 8], "hidden": [9], "pool": 3, "same": True}], ids=str)
def test_lenet5_is_reweighted_as_by_a_loop(tmp_path, backend, options):
    options = {"kernel": 3, **options}
    model = models.create(folder(tmp_path, lenet5, (14, 14, 1), **options), 3, 0).double()
    data, clean = batch(model, 8, 1), batch(model, 6, 2)
    expected = loop_gradient(model, data, clean)
    method = Method(weighting={"reweight": {"backend": backend}}, task=task(), seed=0)
    method.backward(model, [[data]], [[clean]])
    for p, g in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, g, rtol=1e-4, atol=1e-4 * float(g.abs().max()))


def test_conv4_is_reweighted_by_logit_fd_as_batch_normalisation_couples_examples(tmp_path):
    model = models.create(folder(tmp_path, conv4, (14, 14, 1), channels=4), 3, 0).double()
    data, clean = batch(model, 8, 1), batch(model, 6, 2)
    with pytest.raises(ValueError, match=r"ghost cannot serve module trunk.1: its parameter weight .*BatchNorm2d"):
        Method(weighting={"reweight": {"backend": "ghost"}}, task=task(), seed=0).backward(model, [[data]], [[clean]])
    method = Method(weighting="reweight", task=task(), seed=0)
    before = {n: b.clone() for n, b in model.named_buffers()}
    parameters = list(model.parameters())

    def losses(of):
        return F.cross_entropy(model(of.inputs), of.labels, reduction="none")

    # the derivative of the loss of one example of the batch by the weights, the statistics being those of the batch
    v = torch.autograd.grad(losses(clean).mean(), parameters)
    each = [torch.autograd.grad(losses(data)[i], parameters) for i in range(8)]
    w = torch.stack([sum((a * b).sum() for a, b in zip(v, one, strict=True)) for one in each]).clamp_min(0)
    expected = [sum(a * g for a, g in zip(w / w.sum(), gs, strict=True)) for gs in zip(*each, strict=True)]
    model.load_state_dict(before, strict=False)
    method.backward(model, [[data]], [[clean]])
    largest = max(float(g.abs().max()) for g in expected)  # a bias before normalisation has a gradient of 0
    for p, g in zip(parameters, expected, strict=True):
        assert torch.allclose(p.grad, g, rtol=1e-3, atol=1e-6 * largest)
    # one plain pass over the batch moves the running statistics, those over clean examples and at moved weights do not
    moved = {n: b.clone() for n, b in model.named_buffers()}
    model.load_state_dict(before, strict=False)
    model(data.inputs)
    assert all(torch.allclose(b, moved[n]) for n, b in model.named_buffers())


def test_a_batch_is_made_of_pictures_and_labels(tmp_path):
    model = models.create(folder(tmp_path, lenet5, (14, 14, 1), kernel=3), 3, 0)
    made = batch(model, 4, 0)
    assert isinstance(made, Batch) and made.inputs["pixels"].dtype == torch.uint8
    assert made.inputs["pixels"].shape == (4, 14, 14, 1)
