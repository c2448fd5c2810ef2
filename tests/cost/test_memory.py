"""Peak memory of planted work in a process of its own."""

from __future__ import annotations

import sys

import pytest
import torch

from gradworks.cost import memory

MIB = 1 << 20


def allocate(mib):
    kept = torch.ones(mib * MIB // 4)
    again = torch.ones(mib * MIB // 4)  # both at once
    del kept, again
    return torch.ones(MIB // 4)


_kept = []


def keep(mib):
    """As a library does that sets something up on its first use."""
    if not _kept:
        _kept.append(torch.ones(mib * MIB // 4))


def nothing(mib):
    pass


def fail(mib):
    raise ValueError(f"planted {mib}")


def die(mib):
    import os

    os._exit(3)


@pytest.mark.parametrize("start", ["fork", None])
@pytest.mark.parametrize("mib", [20, 60])
def test_the_peak_is_what_was_there_at_once(start, mib):
    if start == "fork" and sys.platform != "linux":
        pytest.skip("forks are for Linux")
    before = torch.ones(100 * MIB // 4)  # of the caller: not counted
    # first the same: a forked process counts the pages of libraries that it touches anew
    found = memory.peak(allocate, allocate, (mib,), "cpu", start)
    assert len(before) and 2 * mib - 1 <= found / MIB < 2 * mib + 8


def holes(mib):
    """What a recurrent net does: many small tensors that go, and between them smaller ones that stay."""
    # 64 KiB, and 16 KiB, for which the heap of a large process has no room left between what it holds already
    small = [(torch.ones(16 * 1024), torch.ones(4 * 1024)) for _ in range(16 * mib)]
    stays = [one for _, one in small]
    del small
    return stays, torch.ones(mib * MIB // 4)


def few(mib):
    """The same code with little memory: a forked process counts the pages of libraries that it touches first."""
    holes(1)


@pytest.mark.skipif(sys.platform != "linux", reason="the heap of glibc")
def test_holes_in_the_heap_do_not_count():
    assert 50 <= memory.peak(holes, few, (40,), "cpu") / MIB < 62  # not forked: this process's heap has holes too


def test_what_the_first_piece_took_is_not_counted():
    assert memory.peak(keep, nothing, (60,), "cpu", "fork") >= 60 * MIB
    assert memory.peak(keep, keep, (60,), "cpu", "fork") < 8 * MIB


@pytest.mark.parametrize(("work", "said"), [(fail, "ValueError: planted 1"), (die, "ended without an answer")])
def test_what_fails_is_told(work, said):
    with pytest.raises(memory.Failed, match=said):
        memory.peak(work, nothing, (1,), "cpu", "fork")


def killed(mib):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)  # as Linux does with what takes all memory


def too_much(mib):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("work", [killed, too_much])
def test_what_the_system_kills_is_out_of_memory(work):
    with pytest.raises(MemoryError):
        memory.peak(work, nothing, (1,), "cpu", "fork")
