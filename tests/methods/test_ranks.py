"""Global law: two ranks of one micro-batch are one process with two micro-batches, bit for bit, dropout on."""

import subprocess
import sys
from pathlib import Path

import torch

from tests.methods import ranks
from tests.methods.toys import same


def test_two_gloo_ranks_are_two_micro_batches_bit_for_bit(tmp_path):
    out = tmp_path / "two.pt"
    command = [sys.executable, str(Path(ranks.__file__))]
    processes = [subprocess.Popen([*command, str(rank), "2", str(out)]) for rank in (0, 1)]
    one = ranks.one_side(0, 1)
    assert [p.wait(120) for p in processes] == [0, 0]
    two = torch.load(out, weights_only=True)
    assert set(one) == set(two)
    assert [case for case in one if not same(one[case], two[case])] == []
