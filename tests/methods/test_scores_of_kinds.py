"""`reweight` on every kind of task with the models of gradworks: its scores are those of a loop over examples.

Inputs of choices and windows are several rows an example: a back-end that took rows for examples would be seen here.
"""

import pytest
import torch

from gradworks import models
from gradworks.data.tokenizer import train
from gradworks.methods import Method
from tests.kinds import EVERY, example, examples
from tests.methods.test_every_kind import exercise  # noqa: F401
from tests.written import ARCHITECTURES

ENCODERS = {
    "gru": {"embedding": 6, "hidden": 5, "mlp": 6, "dropout": 0.0, "bidirectional": True, "pooling": "mean"},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0},
}
WINDOW = {"tagging": 3, "span": 7}  # tokens: several windows of some examples
WORDS = " ".join(map(str, range(10)))
ELSEWHERE = (*ARCHITECTURES, "image", "episodes")  # test_written.py, tests/models/test_pictures.py


def build(name, kind, folder):
    """In float64, with weights drawn wide: the scores of a fresh model are small."""
    folder.mkdir()
    module, tokenizer = models.find(name), train([WORDS], 60, True)
    module.prepare(module.Options(model=name, **ENCODERS[name]), tokenizer, folder, texts=2, vectors=None)
    model = models.create(folder, kind.size, seed=1).double()
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def gradients(model, kind, batch):
    """One row for each example."""
    losses = kind.loss(kind.outputs(model, batch), batch)
    every = list(model.parameters())
    rows = [torch.autograd.grad(one, every, retain_graph=True, materialize_grads=True) for one in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.parametrize("backend", ["auto", "logit_fd"])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", [one for one in EVERY if one not in ELSEWHERE])
def test_scores_are_those_of_a_loop_over_examples(name, encoder, backend, tmp_path):
    kind = example(name)
    model = build(encoder, kind, tmp_path / "m")
    data = examples(kind, model, n=24, max_length=WINDOW.get(name, 24))
    batch, clean = data.batch(range(3, 11)), data.batch(range(16, 24))
    each, mass = gradients(model, kind, clean), clean.mass.double()
    expected = gradients(model, kind, batch) @ ((mass @ each) / mass.sum())
    method = Method(weighting={"reweight": {"backend": backend}}, tasks={kind.spec.name: kind}, seed=0)
    report = method.backward(model, [[batch]], [[clean]])
    found = report.sums[0][0].score
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    weights, made = expected.clamp_min(0) * batch.mass, report.sums[0][0].weights
    assert float((made / made.sum() - weights / weights.sum()).abs().max()) < 1e-5
