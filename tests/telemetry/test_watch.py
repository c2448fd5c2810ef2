"""The loop's callback: what it is told, and that a run with it is the run without it."""

from __future__ import annotations

import pytest

from tests.test_loop import Toy, fit, same


def watched(**options):
    told = []
    model, trace = fit(watch=lambda report, **figures: told.append((report, figures)), **options)
    return model, trace, told


@pytest.mark.parametrize("update", ["erm", "dotprod"])
def test_every_step_is_told_and_none_is_changed(update):
    model, trace, told = watched(update=update)
    plain, alone = fit(update=update)
    assert same(model, plain) and trace == alone
    assert len(told) == trace.step and sum(figures["examples"] for _, figures in told) == trace.examples
    for name in ("loss", "learning_rate", "gradient_norm"):
        assert [figures[name] for _, figures in told] == [row[name] for row in trace.history]
    logged = [[step, key, value] for step, (report, _) in enumerate(told, 1) for key, value in report.log.items()]
    assert logged == trace.statistics


def test_looks_at_the_selection_split_are_no_part_of_a_step(monkeypatch):
    from gradworks import loop
    from tests import test_loop

    now = [0.0]

    def slow(*args):
        now[0] += 100.0
        return real(*args)

    real = test_loop.score
    monkeypatch.setattr(test_loop, "score", slow)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    _, _, told = watched()
    assert now[0] == 400.0 and {figures["seconds"] for _, figures in told} == {0.0}


def test_a_step_that_is_not_finite_is_told_too():
    class Bad(Toy):
        calls = 0

        def forward(self, inputs, embedded=None):
            Bad.calls += self.training
            return super().forward(inputs, embedded) * (float("nan") if Bad.calls > 10 else 1.0)

    _, trace, told = watched(model=Bad())
    assert trace.step == 10 and len(told) == 11
    assert told[-1][1]["loss"] != told[-1][1]["loss"]
