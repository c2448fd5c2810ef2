"""A batch that gives something else the second time stops training, with the cause; the check leaves no trace."""

import random

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from gradworks.methods import Method
from gradworks.methods._shared import replay
from gradworks.spec import Batch
from tests.methods.own_models import BATCHES, Blocks, Classes, Net, gradient, group, made
from tests.methods.shipped import ENTRIES

TASK = Classes()
HIDDEN = [torch.Generator().manual_seed(0)]


def drawn():
    return random.random()  # noqa: S311


def layer(forward, **attributes):
    """A class of module."""
    body = {"forward": lambda self, x: forward(self, x)}

    def start(self):
        nn.Module.__init__(self)
        for name, value in attributes.items():
            setattr(self, name, value())

    return type("Own", (nn.Module,), body | {"__init__": start})


def numpy_mask(_, x):
    return x * torch.from_numpy(numpy.random.rand(*x.shape))


def python_scale(_, x):
    return x * (1 + drawn())


def own_generator(self, x):
    return x * torch.rand(x.shape, generator=self.rng)


def hidden_generator(_, x):
    return x * torch.rand(x.shape, generator=HIDDEN[0])


def replaced_attribute(self, x):
    self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 1))
    return x - self.mean


@torch.no_grad()
def _move(mean, x):
    mean.lerp_(x.mean((0, 1)), 0.1)


def attribute_in_place(self, x):
    _move(self.mean, x)
    return x - self.mean


def counted(self, x):
    self.calls += 1
    return x * (1 + 0.01 * self.calls)


def other_without_graph(_, x):
    return x * (1.0 if torch.is_grad_enabled() else 1.1)


def listed(self, x):
    self.state[0] += 1
    return x * self.state[0]


def zeros():
    return torch.zeros(8, dtype=torch.float64)


CAUSES = {
    "numpy": (layer(numpy_mask), "found numpy's global generator moved, in module middle (Own)"),
    "random": (layer(python_scale), "found Python's `random` moved, in module middle (Own)"),
    "own": (layer(own_generator, rng=torch.Generator), "of its own (attribute rng of module middle (Own)) moved"),
    "hidden": (layer(hidden_generator), "found a generator of its own (a list or dict) moved, in module middle (Own)"),
    "replaced": (
        layer(replaced_attribute, mean=zeros),
        "found attribute mean moved, which is no buffer, in module m",
    ),
    "in place": (
        layer(attribute_in_place, mean=zeros),
        "found attribute mean moved, which is no buffer, in module m",
    ),
    "counted": (layer(counted, calls=int), "found attribute calls moved, which is no buffer, in module middle (Own)"),
    "path": (layer(other_without_graph), "found other outputs with a graph than without one, in module middle (Own)"),
    "list": (layer(listed, state=lambda: [0]), "or state that is in no buffer, in module middle (Own)"),
}


@pytest.mark.parametrize("slots", [{"update": "sam"}, {"weighting": "reweight"}, {"objective": "smart"}], ids=str)
@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_is_named(cause, slots):
    build, words = CAUSES[cause]
    method = Method(task=TASK, **slots)
    model = made(lambda: Net(build))
    with pytest.raises(ValueError) as caught:
        method.backward(model, *group(method))
    said = str(caught.value)
    assert said.startswith("replay: the same batch at the same parameters under the same dropout masks gave other out")
    assert words in said
    assert len(said.splitlines()) == 3
    assert all(p.grad is None for p in model.parameters())
    Method(task=TASK).backward(model, [[BATCHES[0]]])  # plain training asks for nothing of the kind


def with_negatives(draw):
    class Contrastive(Classes):
        def loss(self, out, batch):
            (z,) = out
            return F.cross_entropy(z, batch.labels, reduction="none") + (z * z[draw(len(z))]).sum(1)

    return Contrastive()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda n: torch.randint(0, n, (n,)), "found torch's global generator moved in the loss"),
        (lambda n: torch.from_numpy(numpy.random.randint(0, n, n)), "found numpy's global generator moved in the loss"),
        (lambda n: torch.randint(0, n, (n,), generator=HIDDEN[0]), "found a generator of its own (a list or dict) mov"),
    ],
)
def test_negatives_drawn_inside_the_loss(draw, words):
    with pytest.raises(ValueError, match="gave other losses of the same outputs") as caught:
        Method(update="dotprod", task=with_negatives(draw)).backward(made(Net), [[BATCHES[0]], [BATCHES[1]]])
    assert words in str(caught.value)
    assert "expected random numbers of the loss to come with the batch" in str(caught.value)


def test_wav2vec2_masks_with_numpy():
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_stride=(4, 4), conv_kernel=(8, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        mask_time_prob=0.3, mask_time_length=2, num_labels=3, layerdrop=0.0, classifier_proj_size=8,
    )  # fmt: skip

    class Sound(Classes):
        def outputs(self, model, batch):
            return (model(batch.inputs).logits,)

    batch = Batch("s", list("abcd"), torch.randn(4, 800), torch.tensor([0, 1, 2, 0]), torch.ones(4))
    model = made(lambda: Wav2Vec2ForSequenceClassification(config), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"numpy's global generator moved, in module wav2vec2 \(Wav2Vec2Model\)"):
        Method(update="sam", task=Sound()).backward(model, [[batch]])


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("slot", ENTRIES)
def test_no_entry_takes_state_in_an_attribute_for_a_derivative(slot, micro):
    """Each is right without the check, because it evaluates a batch once, or refuses."""
    for name in ENTRIES[slot]:
        model, method = made(lambda: Net(CAUSES["counted"][0])), Method(task=TASK, **{slot: name})
        try:
            report = method.backward(model, *group(method, micro=micro))
        except ValueError as error:
            assert "attribute calls moved" in str(error)
        else:
            assert report.checked == 0
            assert name != "hard_mining" or micro == 1  # it chooses over all micro-batches first


def test_masks_that_are_replayed_and_cached_noise_pass():
    for slots in ({"objective": "rdrop"}, {"update": "dotprod"}, {"weighting": {"reweight": {"backend": "logit_fd"}}}):
        method = Method(task=TASK, **slots)
        assert method.backward(made(lambda: Blocks(drop=0.3)), *group(method)).checked > 0


class Cached(nn.Module):
    """Dropout of its own generator in front of torch's: kept noise must not be what is compared."""

    def __init__(self):
        super().__init__()
        self.rng, self.drop = torch.Generator(), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(x) * (torch.rand(x.shape, generator=self.rng) > 0.1)


def test_kept_noise_does_not_hide_a_generator():
    with pytest.raises(ValueError, match="attribute rng"):
        Method(update="sam", task=TASK).backward(made(lambda: Net(Cached)), [[BATCHES[0]]])


class Traced(nn.Module):
    """Draws and counts without an effect on what it gives, and moves a buffer."""

    def __init__(self):
        super().__init__()
        self.calls, self.seen = 0, torch.zeros(1)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        self.count += 1
        drawn(), numpy.random.rand(), torch.rand(1)
        return x


def test_the_check_leaves_no_trace(monkeypatch):
    def run(differs):
        monkeypatch.setattr(replay.Replay, "_differs", differs)
        random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
        model = made(lambda: Net(Traced))
        Method(update="sam", task=TASK).backward(model, [[BATCHES[0]]])
        middle = model.middle
        state = (drawn(), float(numpy.random.rand()), float(torch.rand(1)))
        return middle.calls, float(middle.seen), float(middle.count), state, gradient(model)

    (*found, g), (*expected, plain) = run(replay.Replay._differs), run(lambda *_: "")
    assert found == expected
    assert found[2] == 1  # the buffer, once; attributes with each pass
    assert torch.equal(g, plain)
