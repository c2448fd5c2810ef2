"""`dotprod`: its options, what it logs and the lists of tensors that it shares with other updates."""

import warnings

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods.updates._shared import fused
from tests.methods import bert
from tests.methods.test_dotprod import SEED, check_no_direction, filled, mean_loss, oracle
from tests.methods.toys import TASKS, Bow, Net, batch, build, draw, error, flat, gradients, same


@pytest.mark.parametrize("options", [{"weight": 0.0}, {"weight": 0.5, "every": 2}])
def test_without_term_it_is_erm_on_two_batches(options):
    model, plain = build(Net), build(Net)
    method = Method(update={"dotprod": options}, tasks=TASKS, seed=SEED)
    erm = Method(update={"erm": {"batches": 2}}, tasks=TASKS, seed=SEED)
    for s in range(3):
        batches, _ = draw(2, seed=100 + 2 * s)
        method.backward(model, batches)
        erm.backward(plain, batches)
        with_term = options["weight"] != 0 and s % 2 == 0
        assert same(gradients(model), gradients(plain)) != with_term


def test_relu_kinks_are_found_and_the_distance_shrinks():
    pair = [batch(n=32, seed=100), batch(n=32, seed=101)]
    distances, errors = {}, {}
    for act in (torch.nn.Tanh, torch.nn.ReLU):
        model = build(Bow, dtype=torch.float32, act=act, hidden=200)
        method = Method(update={"dotprod": {"weight": 1.0}}, tasks=TASKS, seed=SEED)
        report = method.backward(model, [[b] for b in pair])
        distances[act] = method.state_dict()["update"]["distances"]["central"]
        errors[act] = report.log["dotprod_error"]
    assert not distances[torch.nn.Tanh]["kinks"]
    assert errors[torch.nn.Tanh] < 0.01
    assert distances[torch.nn.ReLU]["kinks"]
    assert errors[torch.nn.ReLU] < 0.03  # of the term, not of the distances that suit a smooth model
    assert distances[torch.nn.ReLU]["value"] < distances[torch.nn.Tanh]["value"] / 10


def test_the_papers_alpha_is_taken_as_given_with_a_warning():
    model = build(Net)
    pair = [batch(seed=100), batch(seed=101)]
    with pytest.warns(UserWarning, match="rounding"):
        method = Method(update={"dotprod": {"alpha": 1e-7, "form": "one_sided"}}, tasks=TASKS, seed=SEED)
    report = method.backward(model, [[b] for b in pair])
    assert report.passes == pytest.approx(3)
    assert error(filled(model), oracle(model, pair, 0.1)[1]) < 1e-6  # float64: far above its rounding
    assert method.state_dict()["update"]["distances"] == {"central": {}, "one_sided": {}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Method(update={"dotprod": {"alpha": 1e-3}}, tasks=TASKS)


def test_log_has_dot_product_and_cosine_of_the_two_batches():
    model = build(Net)
    batches, _ = draw(2)
    single = []
    for number, b in enumerate(batches):
        theta = dict(model.named_parameters())
        loss = mean_loss(model, theta, b[0], number)
        single.append(flat(torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)))
    expected = float(single[0] @ single[1])
    for update in ("dotprod", {"erm": {"batches": 2}}):
        log = Method(update=update, tasks=TASKS, seed=SEED).backward(model, batches).log
        assert log["dot"] == pytest.approx(expected, rel=1e-3)
        assert log["cosine"] == pytest.approx(expected / float(single[0].norm() * single[1].norm()), rel=1e-3)


@pytest.mark.parametrize("form", [None, "central", "exact"])
def test_pair_same_takes_the_second_batch_along_its_own_gradient(form):
    """The control: (G1 + G2 - w * H2 G2) / 2, the same batches and, one-sided, the same passes."""
    model = build(Net)
    pair = [batch(seed=100), batch(seed=101)]
    hg, mean = (oracle(model, [pair[1], pair[1]], 1.0, numbers=(1, 1))[0], oracle(model, pair, 0.0)[1])
    expected = [g - 0.7 * h / 2 for g, h in zip(mean, hg, strict=True)]
    method = Method(update={"dotprod": {"weight": 0.7, "pair": "same", "form": form}}, tasks=TASKS, seed=SEED)
    log = method.backward(model, [[b] for b in pair]).log
    assert error(filled(model), expected) < 1e-7
    assert error(filled(model), oracle(model, pair, 0.7)[1]) > 1e-3
    other = Method(update="dotprod", tasks=TASKS, seed=SEED).backward(model, [[b] for b in pair]).log
    assert (log["dot"], log["cosine"]) == pytest.approx((other["dot"], other["cosine"]), rel=1e-4)
    if form is None:
        assert method.backward(model, draw(2, seed=200)[0]).passes == pytest.approx(3)


@pytest.mark.parametrize("pair", ["other", "same"])
def test_no_direction(pair):
    check_no_direction({"dotprod": {"pair": pair}})


def test_conflict_is_logged_where_gradients_point_against_each_other():
    model, seen = build(Net), set()
    for s in range(12):
        batches = draw(2, n=3, seed=300 + 10 * s)[0]
        for update in ("dotprod", {"dotprod": {"weight": 0}}, {"erm": {"batches": 2}}):
            log = Method(update=update, tasks=TASKS, seed=SEED).backward(model, batches).log
            assert log["conflict"] == float(log["dot"] < 0)
        seen.add(log["conflict"])
    assert seen == {0.0, 1.0}


def test_erm_of_several_batches_logs_all_pairs():
    model, (batches, _) = build(Net), draw(4)
    theta = dict(model.named_parameters())
    g = [
        flat(torch.autograd.grad(mean_loss(model, theta, b, i), list(theta.values()), materialize_grads=True))
        for i, (b,) in enumerate(batches)
    ]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    dots = sum(float(g[i] @ g[j]) for i, j in pairs)
    log = Method(update={"erm": {"batches": 4}}, tasks=TASKS, seed=SEED).backward(model, batches).log
    assert log["dot"] == pytest.approx(dots / 6, rel=1e-5)
    assert log["cosine"] == pytest.approx(dots / sum(float(g[i].norm() * g[j].norm()) for i, j in pairs), rel=1e-5)
    against = [float(g[i] @ sum(g[:i])) < 0 for i in range(1, 4)]
    assert log["conflict"] == pytest.approx(sum(against) / 3)


def test_log_has_the_size_of_the_term():
    model, pair = build(Net), [batch(seed=100), batch(seed=101)]
    hg, _, mean = oracle(model, pair, 1.0)
    expected = float(0.7 * flat(hg).norm() / flat(mean).norm() / 2)
    for form in ("central", "one_sided", "exact"):
        method = Method(update={"dotprod": {"weight": 0.7, "form": form}}, tasks=TASKS, seed=SEED)
        assert method.backward(model, [[b] for b in pair]).log["term"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("form", ["central", "one_sided", "exact"])
def test_limit_shortens_the_term_and_leaves_a_short_one_alone(form):
    model, pair = build(Net), [batch(seed=100), batch(seed=101)]
    hg, _, mean = oracle(model, pair, 1.0)
    share = float(0.7 * flat(hg).norm() / flat(mean).norm() / 2)

    def found(limit):
        method = Method(update={"dotprod": {"weight": 0.7, "form": form, "limit": limit}}, tasks=TASKS, seed=SEED)
        assert method.backward(model, [[b] for b in pair]).log["term"] == pytest.approx(share, rel=1e-4)
        return filled(model)

    assert error(found(share / 4), [m - 0.35 / 4 * h for m, h in zip(mean, hg, strict=True)]) < 1e-6
    assert same(found(share * 2), found(None))


@pytest.mark.parametrize(("limit", "downhill"), [(None, False), (0.5, True)])
def test_under_high_curvature_the_term_climbs_unless_it_is_limited(limit, downhill):
    """loss = 30 / 2 * x^2, weight * curvature = 3: G = 30 x * (1 - 3 / 2)."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    method = Method(
        update={"dotprod": {"weight": 0.1, "limit": limit}},
        outputs=lambda m, b: m(b), loss=lambda z, b: 15 * z[:, 0].square(),
    )  # fmt: skip
    model.weight.data.fill_(1.0)
    batches, _ = next(method.groups([torch.ones(4, 1, dtype=torch.float64)] * 2))
    method.backward(model, batches)
    assert float(model.weight.grad) == pytest.approx(15.0 if downhill else -15.0, rel=1e-5)


def bert_loss(options):
    """The mean loss of the last steps of a training from a fresh BERT."""
    model = bert.build(width=32, dtype=torch.float32)
    method = Method(update={"dotprod": options}, outputs=bert.outputs, loss=bert.loss, seed=SEED)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-3), []
    for batches, _ in method.groups(bert.rows(160, n=32)):
        losses.append(method.backward(model, batches).log["loss"])
        optimizer.step()
    return sum(losses[-10:]) / 10


@pytest.mark.slow("trains to the end")
def test_the_default_trains_a_fresh_bert_which_the_papers_form_does_not():
    assert bert_loss({}) < 0.7 < 1.1 < bert_loss({"limit": None})


def test_big_tensors_are_treated_block_by_block_alike(monkeypatch):
    pair = [batch(n=16, seed=100), batch(n=16, seed=101)]
    found = []
    for size in (1 << 16, 7):
        monkeypatch.setattr(fused, "_BLOCK", size)
        for update in ("dotprod", {"erm": {"batches": 2}}, {"reptile": {"batches": 2}}, "asam"):
            model = build(Net)
            method = Method(update=update, tasks=TASKS, seed=SEED)
            log = method.backward(model, [[b] for b in pair[: method.batches]]).log
            found.append([*filled(model), torch.tensor(list(log.values()))])
    for whole, cut in zip(found[:4], found[4:], strict=True):
        assert error(cut, whole) < 1e-6
        assert error(cut[:-1], whole[:-1]) < 1e-9


def test_a_sample_sees_every_tensor_and_every_column(monkeypatch):
    monkeypatch.setattr(fused, "_SAMPLE", 67)  # 1064 entries: an even stride but for the rounding
    x = [torch.arange(1024.0).reshape(64, 16) % 16, torch.full((40,), 99.0)]
    assert set(fused.sample(x).tolist()) == {*range(16), 99.0}
    assert len(fused.sample(x)) <= 67


def test_steps_between_two_terms_are_plain_means_and_log_no_norms():
    model, plain = build(Net), build(Net)
    method = Method(update={"dotprod": {"every": 3}}, tasks=TASKS, seed=SEED)
    erm = Method(update={"erm": {"batches": 2}}, tasks=TASKS, seed=SEED)
    logged = []
    for s in range(6):
        batches, _ = draw(2, seed=100 + 2 * s)
        logged.append({"dot", "cosine", "conflict", "term"} & set(method.backward(model, batches).log))
        erm.backward(plain, batches)
        assert same(gradients(model), gradients(plain)) == (s % 3 > 0)
    assert logged == [{"dot", "cosine", "conflict", "term"}, set(), set()] * 2
