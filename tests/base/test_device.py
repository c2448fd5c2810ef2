"""Threads and device are what params.yaml says, or an error in words."""

import subprocess
import sys

import pytest
import torch

from gradworks.base.device import ASKED, set_up
from gradworks.base.errors import InputError


@pytest.fixture(autouse=True)
def as_before():
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_threads_and_deterministic_kernels():
    assert set_up(2, "cpu") == torch.device("cpu")
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()


def test_the_compiler_is_not_imported():
    """Which takes longer than a small stage does."""
    program = "import sys; from gradworks.base.device import set_up; set_up(1, 'cpu'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in modules and "torch._dynamo.eval_frame" not in modules


def test_auto_takes_cuda_where_there_is_one_and_never_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert set_up(1, "auto").type == device


def test_missing_cuda_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device: found cuda, but torch sees no GPU"):
        set_up(1, "cuda")


def test_a_stage_that_asked_for_a_gpu_and_sees_none_stops(monkeypatch):
    monkeypatch.setenv(ASKED, "2")
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        for chosen in ("auto", "cuda"):
            if there:
                assert set_up(1, chosen).type == "cuda"
                continue
            with pytest.raises(InputError, match=r"asked for 2 GPU, but torch sees none.*\nexpected a GPU, or"):
                set_up(1, chosen)
        assert set_up(1, "cpu").type == "cpu"  # was said, and is not silent
