"""benchmarks/ranks.py: what it times ends with the weights of one process, and what it makes of the times."""

import pytest
import torch

from benchmarks import ranks, texts
from gradworks.distributed import World


def test_efficiency_is_the_time_of_one_over_twice_that_of_two():
    quiet, disturbed = [[1.0, 0.625, 0.0, 1.0, 0.5]] * 8, [[1.0, 2.0, 0.3, 1.0, 0.5]] * 4
    made = ranks.row("m", [*quiet, *disturbed], 10**6)
    assert made["quiet"] == {"value": 0.8, "low": 0.8, "high": 0.8, "n": 8}
    assert (made["all"]["n"], made["all"]["low"], made["processor"]["value"]) == (12, 0.25, 1.0)
    text = ranks.written([made], "data", "machine", 8)
    assert "0.80 (n = 8, 0.80 to 0.80)" in text and "| m | 1.0 M | 1000.0 | 625.0 |" in text
    assert "none" in ranks.written([ranks.row("m", disturbed, 1)], "", "", 8)


@pytest.mark.parametrize("name", ["gru"])
def test_both_sides_are_the_loop_on_the_same_batches(name, monkeypatch):
    monkeypatch.delenv("GRADWORKS_DATA")
    monkeypatch.setattr(texts, "_MOST", 600)
    text = texts.load("MNLI")
    found = ranks.measured(name, text, World(), rounds=2, steps=2)  # one process on both sides
    assert len(found) == 2 and all(one > 0 and two > 0 for one, two, *_ in found)
    block, calls = ranks.Side.block, []

    def disturbed(self, number):
        made = block(self, number)
        calls.append(1)
        with torch.no_grad():
            next(self.model.parameters()).add_(len(calls) * 1e-3)
        return made

    monkeypatch.setattr(ranks.Side, "block", disturbed)
    with pytest.raises(ValueError, match="gru: two processes ended with other weights than one"):
        ranks.measured(name, text, World(), rounds=1, steps=1)
