"""One forward pass for several tasks beside one for each: both sides take the losses of all tasks over as many rows."""

from benchmarks import together
from benchmarks.models import MODELS
from gradworks import loop


def test_one_side_runs_the_encoder_once_and_the_other_for_each_task(monkeypatch):
    models, made, network = [], [], together.network

    def kept(*args):
        models.append(network(*args))
        calls = []
        models[-1].encoder.register_forward_hook(lambda *_: calls.append(1))
        models[-1].calls = calls
        return models[-1]

    step = loop.step
    monkeypatch.setattr(together, "network", kept)
    monkeypatch.setattr(loop, "step", lambda *args, **more: made.append((args[3], step(*args, **more))))
    for count in (2, 4):
        names = list(together.KINDS)[:count]
        for one, passes in ((False, count), (True, 1)):
            together.side(MODELS["bert-4x256"].small, names, one)(0)
            drawn, found = made[-1]
            assert len(models[-1].calls) == passes == found.report.passes == len(drawn)
            assert {len(batch.ids) for (batch,) in drawn} == {32} and found.finite
            assert all(p.grad is not None and bool(p.grad.any()) for p in models[-1].heads.parameters())
