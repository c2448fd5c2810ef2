"""`smart`, `r3f` and `rdrop` on a BERT whose `embed` is its embedding layer with its dropout: passes see one mask."""

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared import noise
from tests.methods import bert
from tests.methods.toys import error, gradients, masks, same

SEED = 5
ATTENTION = pytest.mark.parametrize("attention", ["eager", "sdpa"])
OBJECTIVES = {
    "vjp": {"smart": {"proximal": 0}},
    "noise": {"smart": {"proximal": 0, "ascent": "noise"}},
    "mtdnn": {"smart": {"proximal": 0, "ascent": "mtdnn"}},
    "r3f": {"r3f": {}},
}


def make(objective, update="erm"):
    given = {"embed": bert.embed, "divergence": bert.divergence}
    return Method(objective, update=update, outputs=bert.outputs, loss=bert.loss, seed=SEED, **given)


def step(objective, attention="sdpa", **options):
    model, method = bert.build(attention, **options), make(objective)
    report = method.backward(model, next(method.groups(bert.rows(1)))[0])
    return gradients(model), report


def plain(attention="sdpa", **options):
    """The gradient of the mean loss under the documented masks, without gradworks.methods."""
    model, (b,) = bert.build(attention, **options), bert.rows(1)
    with masks(SEED, "train", 0):
        bert.loss(bert.outputs(model, b), b).mean().backward()
    return gradients(model)


@ATTENTION
@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_perturbation_the_gradient_is_that_of_the_loss(name, attention):
    ((entry, options),) = OBJECTIVES[name].items()
    expected, errors = plain(attention), []
    for epsilon in (1e-1, 1e-3):
        found, report = step({entry: {**options, "epsilon": epsilon}}, attention)
        errors.append(error(found, expected))
        assert 0 < report.log["smoothness"] < 1e-5 * (epsilon / 0.1) ** 2
    assert errors[0] < 1e-3 and errors[1] < 1e-7


@ATTENTION
@pytest.mark.parametrize("smoothness", [0.0, 1.0])
def test_the_proximal_term_is_zero_where_the_teacher_starts(smoothness, attention):
    found, report = step({"smart": {"smoothness": smoothness, "epsilon": 1e-4}}, attention)
    assert report.log["proximal"] < 1e-20
    assert error(found, plain(attention)) < 1e-8


def test_further_steps_see_the_same_masks_in_teacher_and_student():
    """A teacher that is moved to where the model is has the model's outputs: momentum 0."""
    model, method = bert.build(), make({"smart": {"momentum": 0.0}})
    for batches, _ in method.groups(bert.rows(3)):
        report = method.backward(model, batches)
        assert report.log["proximal"] < 1e-20
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients(model), strict=True):
                p -= 0.1 * g


def test_own_masks_differ():
    _, report = step({"smart": {"masks": "own", "epsilon": 1e-4}})
    assert report.log["proximal"] > 1e-9 and report.log["smoothness"] > 1e-9


@ATTENTION
def test_rdrop_sees_two_masks_and_without_dropout_is_the_loss(attention):
    _, report = step("rdrop", attention)
    assert report.log["consistency"] > 1e-9
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    found, report = step("rdrop", attention, **none)
    assert report.log["consistency"] < 1e-20
    assert error(found, plain(attention, **none)) < 1e-12


@pytest.mark.parametrize("name", ["vjp", "r3f"])
def test_the_difference_of_gradients_is_of_one_function(name):
    found = []
    for form in ("central", "exact"):
        model, method = bert.build("eager"), make(OBJECTIVES[name], {"dotprod": {"form": form, "limit": None}})
        method.backward(model, next(method.groups(bert.rows(2)))[0])
        found.append(gradients(model))
    assert error(*found) < 1e-7


def test_noise_that_is_kept_is_found_behind_the_embeddings(monkeypatch):
    """Passes from embeddings on begin behind the first mask: each mask is drawn once, the same numbers as without."""
    drawn, make_noise = [], noise.Drawn
    monkeypatch.setattr(noise, "Drawn", lambda *args: drawn.append(args) or make_noise(*args))
    kept, _ = step("r3f", "eager")
    assert len(drawn) == 1 + 2 * 3 + 1  # embeddings, two layers of three, head
    monkeypatch.setattr(
        noise.Noise, "_dropout", lambda self, *args, **kwargs: torch.nn.functional.dropout(*args, **kwargs)
    )
    assert same(kept, step("r3f", "eager")[0])


@pytest.mark.parametrize("objective", ["smart", "r3f", "rdrop"])
def test_terms_are_added_in_float32_whatever_the_losses_are(objective):
    """In bf16 1 + 1e-3 is 1."""
    made = make(objective).objective
    small = [torch.full((6,), value, dtype=torch.bfloat16, requires_grad=True) for value in (1.0, 2.0**-10)]

    class Given:
        loss = staticmethod(lambda z, batch: z[0])
        divergence = staticmethod(lambda a, b: small[1])

    z = (small[0], small[0])
    held = {"log": {}, "teacher": z}
    losses = made.loss(Given, z, None, held)
    parts = made.parts(Given, z, None, held)
    terms = {"smart": 2, "r3f": 1, "rdrop": 1 / 4}[objective]
    assert losses.dtype == torch.float32 and all(part.dtype == torch.float32 for part in parts.values())
    assert losses.tolist() == [1.0 + terms * 2.0**-10] * 6
