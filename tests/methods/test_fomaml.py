"""`fomaml` against explicit inner steps: the last batch's gradient behind those over the others."""

import pytest

from gradworks.methods import Method
from tests.methods.test_dotprod import SEED, ByLoss, check_no_direction
from tests.methods.test_reptile import RATE, K, gradient_at, group, path, start, step
from tests.methods.toys import TASKS, Net, build, error, flat, same


def update(**options):
    return {"fomaml": {"batches": K, "inner_lr": RATE, **options}}


@pytest.mark.parametrize("kind", ["three", "span", "seq"])
def test_it_is_the_last_gradient_of_k_batches_in_all(kind):
    model, batches = build(Net), group(kind)
    seen, _ = path(model, batches)
    assert error(step(update(), model, batches)[1], seen[-1]) < 1e-12


def test_without_inner_rate_it_is_the_plain_gradient_of_the_last_batch():
    model, batches = build(Net), group()
    expected = gradient_at(model, start(model), batches[-1], K - 1)
    assert error(step(update(inner_lr=0.0), model, batches)[1], expected) < 1e-14


def test_one_batch_is_erm():
    assert same(step(update(batches=1), build(Net), group(k=1))[1], step("erm", build(Net), group(k=1))[1])


def test_inner_steps_weigh_at_the_moved_parameters():
    model, batches = build(Net), group()
    seen, _ = path(model, batches, by_loss=True)
    assert error(step(update(), model, batches, ByLoss())[1], seen[-1]) < 1e-12


def test_log_has_the_size_of_the_inner_part_and_passes_are_counted():
    model, batches = build(Net), group()
    seen, _ = path(model, batches)
    plain = flat(gradient_at(model, start(model), batches[-1], K - 1))
    expected = (flat(seen[-1]) - plain).norm() / plain.norm()
    method = Method(update=update(), tasks=TASKS, seed=SEED)
    first = method.backward(model, [[b] for b in batches])
    second = method.backward(model, [[b] for b in batches])
    assert first.log["inner"] == pytest.approx(float(expected), rel=1e-5)
    assert (first.passes, second.passes) == (pytest.approx(K + 1), pytest.approx(K))


def test_no_direction():
    check_no_direction(update())


def test_pinned():
    """Norm and product with the plain gradient of the last batch, from the oracle."""
    model, batches = build(Net), group()
    plain = flat(gradient_at(model, start(model), batches[-1], K - 1))
    for made in (path(model, batches)[0][-1], step(update(), model, batches)[1]):
        assert [float(flat(made).norm()), float(flat(made) @ plain)] == pytest.approx(PINNED, rel=1e-6)


PINNED = [0.4302917133, 0.2073102761]
